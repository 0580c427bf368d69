/* Every kernel gives what the scalar one gives, in every key mode, and reads nothing outside its input.
 *
 * libFuzzer:   clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -Igobanfast/csrc \
 *                  tests/fuzz/fuzz_xxh3.c gobanfast/csrc/hash/gbf_xxh3*.c gobanfast/csrc/base/gbf_cpu.c
 * standalone:  add -DGBF_STANDALONE and leave `fuzzer` out; every length 0..1,100 and random longer ones, with any
 *              compiler, natively or cross-compiled and under an emulator. Exits 0 or aborts.
 *
 * Input: 8 bytes of seed, 1 byte that gives the length of the secret, then the bytes to hash. */
#include <stdio.h>
#include <stdlib.h>

#include "base/gbf_cpu.h"
#include "hash/gbf_xxh3.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static const char *const levels[] = {"avx512", "avx2", "neon", "scalar"};
enum { LEVELS = sizeof levels / sizeof *levels };

static uint64_t next_random(uint64_t *state) /* splitmix64, Steele, Lea and Flood 2014 */
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static void require(int holds, const char *what, const char *kernel, size_t nbytes)
{
    if (holds)
        return;
    fprintf(stderr, "%s: kernel %s, %zu bytes\n", what, kernel, nbytes);
    abort();
}

static void compare(const uint8_t *data, size_t nbytes, uint64_t seed, const uint8_t *secret, size_t secret_bytes)
{
    gbf_xxh3_key expected, actual;
    gbf_xxh3_key_set(&expected, gbf_xxh3_pick(0), seed, secret, secret_bytes);
    gbf_hash128 h = gbf_xxh3_128_keyed(&expected, data, nbytes);
    uint64_t h64 = gbf_xxh3_64_keyed(&expected, data, nbytes);
    for (int i = 0; i < LEVELS; i++) {
        uint32_t features;
        if (!gbf_cpu_cap(levels[i], &features))
            continue;
        const gbf_xxh3_kernel *kernel = gbf_xxh3_pick(features);
        const char *name = kernel->name;
        gbf_xxh3_key_set(&actual, kernel, seed, secret, secret_bytes);
        gbf_hash128 g = gbf_xxh3_128_keyed(&actual, data, nbytes);
        require(g.low == h.low && g.high == h.high, "128 bits differ", name, nbytes);
        require(gbf_xxh3_64_keyed(&actual, data, nbytes) == h64, "64 bits differ", name, nbytes);
    }
    if (secret == NULL) {
        gbf_hash128 g = gbf_xxh3_128(data, nbytes, seed);
        require(g.low == h.low && g.high == h.high, "128 bits differ", "best", nbytes);
        require(gbf_xxh3_64(data, nbytes, seed) == h64, "64 bits differ", "best", nbytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size < 9)
        return 0;
    uint64_t seed = gbf_load64(input), state = seed;
    size_t nbytes = size - 9, secret_bytes = GBF_XXH3_SECRET_MIN_BYTES + input[8] % 121;
    uint8_t *data = malloc(nbytes ? nbytes : 1); /* exact sizes, so that the sanitizer sees one byte too many */
    uint8_t *secret = malloc(secret_bytes);
    if (data == NULL || secret == NULL)
        abort();
    memcpy(data, input + 9, nbytes);
    for (size_t i = 0; i < secret_bytes; i++)
        secret[i] = (uint8_t)next_random(&state);
    compare(data, nbytes, 0, NULL, 0);
    compare(data, nbytes, seed, NULL, 0);
    compare(data, nbytes, 0, secret, secret_bytes);
    compare(data, nbytes, seed, secret, secret_bytes);
    free(secret);
    free(data);
    return 0;
}

#if defined(GBF_STANDALONE)
int main(void)
{
    static uint8_t input[9 + 100000];
    uint64_t state = 1;
    for (size_t round = 0; round < 1301; round++) {
        size_t nbytes = round <= 1100 ? round : next_random(&state) % 100000;
        for (size_t i = 0; i < 9 + nbytes; i++)
            input[i] = (uint8_t)next_random(&state);
        LLVMFuzzerTestOneInput(input, 9 + nbytes);
    }
    for (int i = 0; i < LEVELS; i++) {
        uint32_t features;
        printf("%s %s\n", levels[i], gbf_cpu_cap(levels[i], &features) ? "checked" : "cannot run here");
    }
    return 0;
}
#endif
