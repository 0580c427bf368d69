/* Log lines: every text lies in its line, kernels find the same marks, and no byte past the block is read. */
#include "base/gbf_cpu.h"
#include "batch/gbf_log.h"
#include "fuzz.h"

enum { LINES = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    gbf_log_form form;
    memset(&form, 0, sizeof form);
    form.layout = (gbf_log_layout)(take(&in, 1) % 3);
    form.skip = take(&in, 1) % 3;
    form.address_only = take(&in, 1) & 1;
    form.delimiter = take(&in, 1) & 1 ? ',' : '\t';
    form.count = 1 + take(&in, 1) % GBF_LOG_COLUMNS;
    for (uint32_t c = 0; c < form.count; c++)
        form.slots[c] = take(&in, 1) % 10;
    size_t size = (size_t)(in.end - in.at);
    uint8_t *text = malloc(size + 1);
    must(text != NULL);
    memcpy(text, in.at, size);
    text[size++] = '\n';
    uint32_t *marks = malloc((size + 64) * 4), *same = malloc((size + 64) * 4);
    must(marks != NULL && same != NULL);
    uint32_t count = gbf_log_index_scalar(text, (uint32_t)size, marks);
    must(gbf_log_index_pick(gbf_cpu_features())(text, (uint32_t)size, same) == count);
    must(memcmp(marks, same, count * 4) == 0);
    uint8_t kinds[LINES];
    uint32_t starts[LINES], lengths[LINES], at[GBF_LOG_COLUMNS * LINES], lens[GBF_LOG_COLUMNS * LINES];
    uint64_t hashes[LINES];
    gbf_log_rows rows = {kinds, starts, lengths, at, lens, hashes, LINES};
    for (int again = 0; again < 2; again++) {
        memset(lens, 0, sizeof lens);
        memset(at, 0, sizeof at);
        uint32_t lines = gbf_log_read(&form, text, (uint32_t)size, marks, count, &rows);
        must(lines <= LINES && lines <= gbf_log_count(text, marks, count));
        for (uint32_t i = 0; i < lines; i++) {
            must(starts[i] + lengths[i] < size);
            if (kinds[i] == GBF_LOG_SLOW)
                continue;
            for (uint32_t c = 0; c < GBF_LOG_COLUMNS; c++)
                if (lens[c * LINES + i] != 0)
                    must(at[c * LINES + i] >= starts[i] &&
                         at[c * LINES + i] + lens[c * LINES + i] <= starts[i] + lengths[i]);
        }
        if (form.layout != GBF_LOG_JSON || again)
            break;
        for (uint32_t i = 0; i < lines && form.structure_count < GBF_LOG_STRUCTURES; i++)
            if (hashes[i] != 0) {
                gbf_log_structure *known = &form.structures[form.structure_count++];
                known->hash = hashes[i];
                known->count = 2;
                known->slots[1] = i;
            }
    }
    free(text);
    free(marks);
    free(same);
    return 0;
}
