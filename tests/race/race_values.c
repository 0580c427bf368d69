/* Threads look values up in a tiny value cache and put them there, all at once: whoever finds a row finds it whole. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/gbf_values.h"

enum { THREADS = 4, TURNS = 100000, VALUES = 500, WORDS = 9 };

static gbf_values cache;

static void *work(void *argument)
{
    uint64_t state = *(uint64_t *)argument, found = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint64_t value = (state >> 33) % VALUES, vector[WORDS], scratch[WORDS];
        gbf_hash128 hash = gbf_values_hash(&cache, 3, (const uint8_t *)&value, sizeof value);
        memset(vector, 0xFF, sizeof vector);
        if (gbf_values_and(&cache, hash, vector, scratch)) {
            found++;
            for (int w = 0; w < WORDS; w++)
                if (vector[w] != value * 1000 + (uint64_t)w)
                    abort();
            continue;
        }
        for (int w = 0; w < WORDS; w++)
            vector[w] = value * 1000 + (uint64_t)w;
        gbf_values_put(&cache, hash, vector);
    }
    *(uint64_t *)argument = found;
    return NULL;
}

int main(void)
{
    static const uint8_t secret[GBF_VALUES_SECRET] = {1, 2, 3};
    pthread_t threads[THREADS];
    uint64_t state[THREADS], found = 0;
    if (gbf_values_make(&cache, WORDS, 0, secret, gbf_xxh3_pick(0)) != GBF_OK)
        return 1;
    for (int i = 0; i < THREADS; i++) {
        state[i] = (uint64_t)i;
        if (pthread_create(&threads[i], NULL, work, &state[i]) != 0)
            return 1;
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        found += state[i];
    }
    printf("%llu of %d found, %llu missed\n", (unsigned long long)found, THREADS * TURNS,
           (unsigned long long)gbf_values_missed(&cache));
    int right = found + gbf_values_missed(&cache) == (uint64_t)THREADS * TURNS && found > 0;
    gbf_values_free(&cache);
    return !right;
}
