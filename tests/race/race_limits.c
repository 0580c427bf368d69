/* Threads that count the same keys of one table while others flood it with new ones: under TSan no access races, a limit
 * lets in what it says and not one more, and what is given back can be taken again. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "state/gbf_limit.h"

#define TAKERS 6
#define KEYS 64u
#define LIMIT 500u
#define CAPACITY 8192u

static gbf_limits table;
static gbf_limit window, bucket, other;
static _Atomic uint32_t admitted[2][KEYS], done;

static void *take(void *argument)
{
    uint64_t x = *(const uint64_t *)argument;
    gbf_limit_answer answer;
    for (uint32_t i = 0; i < 2 * KEYS * LIMIT; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        uint32_t which = x & 1, key = (x >> 1) % KEYS;
        gbf_limit_do(&table, which ? &window : &bucket, (gbf_limit_key){key, 1}, GBF_LIMIT_TAKE, 1, 1000, &answer);
        if (!answer.tracked)
            abort();
        atomic_fetch_add(&admitted[which][key], answer.admitted);
    }
    atomic_fetch_add(&done, 1);
    return NULL;
}

static void *flood(void *argument)
{
    uint64_t x = *(const uint64_t *)argument;
    gbf_limit_answer answer;
    while (atomic_load(&done) < TAKERS) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        gbf_limit_do(&table, &other, (gbf_limit_key){x, 2}, GBF_LIMIT_TAKE, 1, 1000, &answer);
        gbf_limit_do(&table, &other, (gbf_limit_key){x, 2}, x & 1 ? GBF_LIMIT_GIVE : GBF_LIMIT_CLEAR, 1, 1000, &answer);
    }
    return NULL;
}

int main(void)
{
    enum { COUNT = TAKERS + 2 };
    pthread_t threads[COUNT];
    uint64_t seeds[COUNT], sum = 0;
    gbf_limit_answer answer;
    gbf_fault fault;
    void *memory = aligned_alloc(64, gbf_limits_nbytes(CAPACITY));
    if (memory == NULL)
        return 1;
    memset(memory, 0, gbf_limits_nbytes(CAPACITY));
    gbf_limits_open(&table, memory, CAPACITY, 12345);
    if (gbf_limit_set(&window, 1, LIMIT, 60000, 0, &fault) != GBF_OK ||
        gbf_limit_set(&bucket, 2, LIMIT, 60000, LIMIT, &fault) != GBF_OK ||
        gbf_limit_set(&other, 3, 100, 60000, 0, &fault) != GBF_OK)
        return 1;
    for (uint32_t key = 0; key < KEYS; key++) { /* so far that no flood has them forgotten */
        for (uint32_t i = 0; i < 2; i++)
            gbf_limit_do(&table, i ? &window : &bucket, (gbf_limit_key){key, 1}, GBF_LIMIT_TAKE, LIMIT / 2 + 1, 1000,
                         &answer);
    }
    for (int i = 0; i < COUNT; i++) {
        seeds[i] = (uint64_t)i * 7919 + 1;
        if (pthread_create(&threads[i], NULL, i < TAKERS ? take : flood, &seeds[i]) != 0)
            return 1;
    }
    for (int i = 0; i < COUNT; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t key = 0; key < KEYS; key++) {
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t found = atomic_load(&admitted[i][key]);
            sum += found;
            if (found != LIMIT - LIMIT / 2 - 1) {
                fprintf(stderr, "race_limits: key %u let %u in, not %u\n", key, found, LIMIT - LIMIT / 2 - 1);
                return 1;
            }
        }
    }
    free(memory);
    printf("race_limits: %d threads, %llu requests let in, not one more\n", COUNT, (unsigned long long)sum);
    return 0;
}
