/* Whatever text, numbers and foreign counts come: thresholds are in range and read as they are written, a percentile is a
 * latency that was noted but for 1/32, and a slot of any bytes is read within its room or not at all.
 *
 * Input: a text, a probability, latencies with the time between them; the same bytes as counts and as a slot. */
#include <math.h>

#include "base/gbf_shared.h"
#include "fuzz.h"
#include "state/gbf_latency.h"

static void thresholds(const uint8_t *data, size_t nbytes)
{
    uint64_t threshold = 0, random = 0, again = 0, bits = 0;
    char text[GBF_SAMPLING_DIGITS];
    double probability;
    size_t n = nbytes < 20 ? nbytes : 20;
    uint8_t *copy = exact(data, n);
    if (gbf_sampling_read((const char *)copy, n, &threshold)) {
        must(threshold < GBF_SAMPLING_NEVER);
        uint32_t digits = gbf_sampling_write(threshold, text);
        must(digits <= GBF_SAMPLING_DIGITS && gbf_sampling_read(text, digits, &again) && again == threshold);
        for (uint32_t precision = 1; precision <= GBF_SAMPLING_DIGITS; precision++)
            must(gbf_sampling_round(threshold, precision) < GBF_SAMPLING_NEVER);
    }
    must(!gbf_sampling_read_random((const char *)copy, n, &random) || random < GBF_SAMPLING_NEVER);
    free(copy);
    memcpy(&bits, data, nbytes < 8 ? nbytes : 8);
    memcpy(&probability, &bits, 8);
    threshold = gbf_sampling_threshold(probability);
    must(threshold <= GBF_SAMPLING_NEVER);
    must(!(probability >= 0x1p-55 && probability <= 1) ||
         fabs(gbf_sampling_probability(threshold) - probability) <= 0x1p-56);
    must(!isnan(probability) || threshold == GBF_SAMPLING_NEVER);
}

static void latencies(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    uint64_t now = 1000 * GBF_LATENCY_WINDOW_NS, noted = 0, highest = 0, window = now / GBF_LATENCY_WINDOW_NS;
    gbf_rates *rates = gbf_rates_new(2, now);
    must(rates != NULL);
    while (in.at < in.end) {
        uint64_t ns = (uint64_t)take(&in, 4) << take(&in, 1) % 33;
        now += (uint64_t)take(&in, 1) << 28;
        gbf_latency_tick(rates, now);
        if (now / GBF_LATENCY_WINDOW_NS != window) { /* compare within a window */
            gbf_latency_forget(rates, 1);
            noted = highest = 0;
            window = now / GBF_LATENCY_WINDOW_NS;
        }
        gbf_latency_note(rates, 1, ns, 0, 1);
        noted++;
        highest = ns > highest ? ns : highest;
        gbf_latency_counts sum = {{0}, 0, 0};
        must(gbf_latency_add(rates, 1, &sum) == noted && sum.roots == noted && gbf_latency_count(&sum) == noted);
        double found = gbf_latency_percentile(&sum, 100), wanted = (double)highest;
        wanted = wanted < 65536 ? 65536 : wanted;
        must(highest >> GBF_LATENCY_HIGH ? isinf(found) : fabs(found - wanted) <= wanted / 32);
        must(gbf_latency_percentile(&sum, 99) <= found);
    }
    gbf_rates_free(rates);
}

static void foreign(const uint8_t *data, size_t nbytes)
{
    enum { ROOM = 256 };
    gbf_latency_counts sum = {{0}, 0, 0};
    uint8_t out[ROOM];
    size_t whole = nbytes < sizeof sum ? sizeof sum : nbytes;
    uint8_t *copy = calloc(1, whole);
    gbf_shared_slot *slot = calloc(1, sizeof *slot + ROOM);
    must(copy != NULL && slot != NULL);
    memcpy(copy, data, nbytes);
    gbf_latency_merge(&sum, copy + whole - sizeof sum);
    double found = gbf_latency_percentile(&sum, 99);
    must(gbf_latency_count(&sum) == 0 ? isnan(found) : found >= 65536);
    memcpy((void *)slot, data, nbytes < sizeof *slot + ROOM ? nbytes : sizeof *slot + ROOM);
    uint64_t owner = gbf_shared_owner(slot), n = gbf_shared_read(slot, owner, out, ROOM);
    must(n == GBF_SHARED_NOTHING || n <= ROOM);
    must(gbf_shared_write(slot, owner, data, nbytes < ROOM ? nbytes : ROOM));
    must(gbf_shared_read(slot, owner, out, ROOM) == (nbytes < ROOM ? nbytes : ROOM));
    must(memcmp(out, data, nbytes < ROOM ? nbytes : ROOM) == 0);
    must(gbf_shared_claim(slot, owner, owner + 1) && gbf_shared_read(slot, owner + 1, out, ROOM) == GBF_SHARED_NOTHING);
    free(slot);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    thresholds(data, nbytes);
    latencies(data, nbytes);
    foreign(data, nbytes);
    return 0;
}
