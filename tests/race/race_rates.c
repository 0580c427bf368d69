/* Threads that note latencies and read thresholds while others turn windows, sum and set, and one that publishes in a slot
 * while others read it: under TSan no access races, no response is lost, no payload is torn. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/gbf_shared.h"
#include "state/gbf_latency.h"

#define THREADS 4
#define ROUNDS 20000u
#define ROOM 4096u

static gbf_rates *rates;
static gbf_shared_slot *slot;
static _Atomic uint32_t done, torn;

static void *note(void *argument)
{
    uint64_t x = *(const uint64_t *)argument;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        gbf_latency_note(rates, x % 3, x >> 24, i % 2, gbf_sampling_keeps(x >> 8, gbf_rates_threshold(rates, x % 3)));
    }
    atomic_fetch_add(&done, 1);
    return NULL;
}

static void *turn(void *argument)
{
    (void)argument;
    for (uint64_t now = 0; atomic_load(&done) < THREADS; now += now < 50 * GBF_LATENCY_WINDOW_NS / 10 ? 1000000 : 0) {
        gbf_latency_counts sum = {{0}, 0, 0};
        gbf_latency_tick(rates, now);
        gbf_rates_set(rates, (uint32_t)(now % 3), now);
        gbf_latency_add(rates, (uint32_t)(now % 3), &sum);
    }
    return NULL;
}

static void *publish(void *argument)
{
    uint8_t payload[ROOM];
    (void)argument;
    for (uint32_t i = 0; atomic_load(&done) < THREADS; i++) {
        memset(payload, (int)(i & 255), sizeof payload);
        if (!gbf_shared_write(slot, 7, payload, ROOM - i % 64))
            abort();
    }
    return NULL;
}

static void *look(void *argument)
{
    uint8_t payload[ROOM];
    (void)argument;
    while (atomic_load(&done) < THREADS) {
        uint64_t n = gbf_shared_read(slot, 7, payload, ROOM);
        for (uint64_t i = 1; n != GBF_SHARED_NOTHING && i < n; i++)
            if (payload[i] != payload[0])
                atomic_fetch_add(&torn, 1);
    }
    return NULL;
}

int main(void)
{
    static void *(*const works[])(void *) = {note, note, note, note, turn, turn, publish, look, look};
    enum { COUNT = sizeof works / sizeof *works };
    pthread_t threads[COUNT];
    uint64_t seeds[COUNT], counted = 0;
    uint32_t errors = 0;
    rates = gbf_rates_new(3, 0);
    slot = calloc(1, sizeof *slot + ROOM);
    if (rates == NULL || slot == NULL || !gbf_shared_claim(slot, 0, 7) || gbf_shared_claim(slot, 0, 8))
        return 1;
    for (int i = 0; i < COUNT; i++) {
        seeds[i] = (uint64_t)i * 7919 + 1;
        if (pthread_create(&threads[i], NULL, works[i], &seeds[i]) != 0)
            return 1;
    }
    for (int i = 0; i < COUNT; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < 3; i++) {
        gbf_latency_counts sum = {{0}, 0, 0};
        counted += gbf_latency_add(rates, i, &sum);
        errors += sum.errors;
    }
    printf("race_rates: %u of %u responses, %u of %u errors, %u torn\n", (uint32_t)counted, THREADS * ROUNDS, errors,
           THREADS * ROUNDS / 2, atomic_load(&torn));
    gbf_rates_free(rates);
    free(slot);
    return counted != THREADS * ROUNDS || errors != THREADS * ROUNDS / 2 || torn != 0;
}
