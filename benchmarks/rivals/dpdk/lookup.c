/* DPDK's IPv4 lookups over the benchmark table: rte_lpm and rte_fib (both DIR-24-8), batch of 1 M addresses.
 *
 * usage: lookup ROUNDS fib|both TABLE QUERIES...
 *   fib leaves rte_lpm out, whose insertion takes minutes for a whole table
 *   TABLE    records of 3 x uint32: address (host order), prefix length, next hop (1 .. 2^24 - 1)
 *   QUERIES  uint32 addresses, host order
 * Prints lines of tab-separated: file, kernel, checksum of the next hops, then ns per address of each round.
 * Rounds go through the kernels in turn. A miss is next hop 0. Source: DPDK 22.11 Programmer's Guide, "LPM Library", "FIB Library".
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_fib.h>
#include <rte_lpm.h>

enum { BURST = 64, TBL8_GROUPS = 1 << 16, KERNELS = 3, MAX_ROUNDS = 100 };

typedef struct {
    uint32_t address, bits, hop;
} record;

static const char *const KERNEL_NAMES[KERNELS] = {"rte_lpm bulk", "rte_fib scalar", "rte_fib avx512"};
static const enum rte_fib_lookup_type FIB_TYPES[KERNELS] = {0, RTE_FIB_LOOKUP_DIR24_8_SCALAR_MACRO,
                                                            RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(3);
}

static double now_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static void *read_whole(const char *path, size_t item_bytes, size_t *count)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        fail(path, "cannot read");
    const size_t nbytes = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(nbytes);
    if (!data || fread(data, 1, nbytes, file) != nbytes)
        fail(path, "short read");
    fclose(file);
    *count = nbytes / item_bytes;
    return data;
}

static void lookup_lpm(struct rte_lpm *lpm, const uint32_t *addresses, uint32_t *out, size_t count)
{
    for (size_t at = 0; at < count; at += BURST) {
        const unsigned burst = (unsigned)(count - at < BURST ? count - at : BURST);
        rte_lpm_lookup_bulk(lpm, addresses + at, out + at, burst);
    }
}

static void lookup_fib(struct rte_fib *fib, uint32_t *addresses, uint32_t *out, size_t count)
{
    uint64_t hops[BURST];
    for (size_t at = 0; at < count; at += BURST) {
        const int burst = (int)(count - at < BURST ? count - at : BURST);
        rte_fib_lookup_bulk(fib, addresses + at, hops, burst);
        for (int i = 0; i < burst; i++)
            out[at + (size_t)i] = (uint32_t)hops[i];
    }
}

int main(int argc, char **argv)
{
    char *eal[] = {"lookup",      "--no-huge", "-m", "2048",        "--no-pci", "--no-telemetry",
                   "--no-shconf", "-l",        "0",  "--log-level", "error",    "--force-max-simd-bitwidth",
                   "512"};
    size_t rules;
    if (argc < 5)
        return fprintf(stderr, "usage: lookup ROUNDS fib|both TABLE QUERIES...\n"), 2;
    if (rte_eal_init((int)(sizeof eal / sizeof *eal), eal) < 0)
        fail("rte_eal_init", "the EAL does not start here");
    const int rounds = atoi(argv[1]) < MAX_ROUNDS ? atoi(argv[1]) : MAX_ROUNDS;
    record *table = read_whole(argv[3], sizeof *table, &rules);

    double started = now_ns();
    struct rte_fib_conf fib_config = {.type = RTE_FIB_DIR24_8, .default_nh = 0, .max_routes = (int)rules + 1};
    fib_config.dir24_8.nh_sz = RTE_FIB_DIR24_8_4B;
    fib_config.dir24_8.num_tbl8 = TBL8_GROUPS;
    struct rte_fib *fib = rte_fib_create("fib", 0, &fib_config);
    if (!fib)
        fail("rte_fib_create", "no table");
    for (size_t i = 0; i < rules; i++)
        if (rte_fib_add(fib, table[i].address, (uint8_t)table[i].bits, table[i].hop))
            fail("rte_fib_add", "refused");
    printf("build\trte_fib\t0\t%.0f\n", now_ns() - started);

    struct rte_lpm *lpm = NULL;
    if (strcmp(argv[2], "both") == 0) {
        started = now_ns();
        struct rte_lpm_config lpm_config = {.max_rules = (uint32_t)rules + 1, .number_tbl8s = TBL8_GROUPS, .flags = 0};
        lpm = rte_lpm_create("lpm", 0, &lpm_config);
        if (!lpm)
            fail("rte_lpm_create", "no table");
        for (size_t i = 0; i < rules; i++)
            if (rte_lpm_add(lpm, table[i].address, (uint8_t)table[i].bits, table[i].hop))
                fail("rte_lpm_add", "refused");
        printf("build\trte_lpm\t0\t%.0f\n", now_ns() - started);
    }

    for (int file = 4; file < argc; file++) {
        size_t count;
        uint32_t *addresses = read_whole(argv[file], sizeof *addresses, &count);
        uint32_t *out = malloc(count * sizeof *out);
        double ns[KERNELS][MAX_ROUNDS];
        uint64_t sum[KERNELS] = {0};
        int usable[KERNELS];
        for (int k = 0; k < KERNELS; k++)
            usable[k] = k == 0 ? lpm != NULL : rte_fib_select_lookup(fib, FIB_TYPES[k]) == 0;
        for (int round = 0; round < rounds; round++)
            for (int k = 0; k < KERNELS; k++) {
                if (!usable[k])
                    continue;
                if (k)
                    rte_fib_select_lookup(fib, FIB_TYPES[k]);
                memset(out, 0xFF, count * sizeof *out);
                started = now_ns();
                if (k)
                    lookup_fib(fib, addresses, out, count);
                else
                    lookup_lpm(lpm, addresses, out, count);
                ns[k][round] = (now_ns() - started) / (double)count;
                sum[k] = 0;
                for (size_t i = 0; i < count; i++)
                    if (k || (out[i] & RTE_LPM_LOOKUP_SUCCESS))
                        sum[k] += out[i] & 0xFFFFFF;
            }
        for (int k = 0; k < KERNELS; k++) {
            if (!usable[k])
                continue;
            printf("%s\t%s\t%" PRIu64, argv[file], KERNEL_NAMES[k], sum[k]);
            for (int round = 0; round < rounds; round++)
                printf("\t%.4f", ns[k][round]);
            printf("\n");
        }
        free(addresses);
        free(out);
    }
    return 0;
}
