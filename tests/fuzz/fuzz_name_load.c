/* A name table that opens may be asked anything. The input is a list of edits to a good table (with every section in use),
 * then the names to ask; the content hash is left out, so that mutation reaches the indices. */
#include "fuzz.h"
#include "name/gbf_name_build.h"

static void *good_table(void)
{
    static const uint64_t key[GBF_NAME_KEYS] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
    static const char *const literals[] = {
        ".a.b", "*.a.b", "a.b", "**.a.b", "x.a.b", "*.c", "longer-than-seven.example"};
    static const gbf_glob_item items[] = {
        {UINT64_C(1) << 3, 0, 0}, {(UINT64_C(1) << 40) - 2, 1, 1}, {UINT64_C(1) << 1, 1, 0}};
    gbf_name_builder *builder = gbf_name_builder_new(key, 1);
    gbf_name name;
    gbf_fault fault;
    void *block = NULL;
    for (uint32_t i = 0; i < 40; i++) {
        const char *text = literals[i % 7];
        char numbered[32] = ".n00.d";
        numbered[2] = (char)('0' + i / 8);
        numbered[3] = (char)('0' + i % 8);
        text = i < 7 ? text : numbered;
        uint32_t kind = gbf_name_literal(&name, (const uint8_t *)text, strlen(text), gbf_name_fold_scalar);
        if (gbf_name_builder_add(builder, &name, kind, i) != GBF_OK)
            abort();
    }
    gbf_name_read(&name, "a.b", 3, gbf_name_fold_scalar);
    if (gbf_name_builder_glob(builder, 90) != GBF_OK || gbf_name_builder_way(builder, &name, items, 3) != GBF_OK ||
        gbf_name_builder_glob(builder, 91) != GBF_OK || gbf_name_builder_way(builder, NULL, items, 3) != GBF_OK ||
        gbf_name_builder_finish(builder, "{}", 2, &block, &fault) != GBF_OK)
        abort();
    gbf_name_builder_free(builder);
    return block;
}

/* Asks one name of every kind of lookup. */
static void ask(const gbf_name_table *table, const uint8_t *text, uint64_t nbytes)
{
    uint32_t values[16];
    gbf_name name;
    volatile uint32_t sink = 0;
    if (gbf_name_read(&name, text, nbytes, table->fold)) {
        sink = gbf_name_lookup(table, &name);
        sink = (uint32_t)gbf_name_lookup_all(table, &name, values, 16);
    }
    gbf_name_lookup_batch(table, &text, &nbytes, 1, values);
    (void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static void *good;
    if (good == NULL)
        good = good_table();
    if (nbytes < 2)
        return 0;
    uint64_t block_bytes = gbf_block_nbytes(good), cut = data[1] == 0 ? 64 : 0;
    size_t edits = data[0] % 32, at = 2;
    uint8_t *block = exact(good, block_bytes);
    for (; edits > 0 && at + 4 <= nbytes; edits--, at += 4) { /* place, new byte, how many */
        uint64_t place = (data[at] | (uint64_t)data[at + 1] << 8) % block_bytes;
        for (uint64_t i = 0; i <= data[at + 3] % 4u && place + i < block_bytes; i++)
            block[place + i] = data[at + 2];
    }
    gbf_name_table table;
    gbf_fault fault;
    for (uint32_t features = 0; features < 2; features++) {
        if (gbf_name_open(&table, block, block_bytes - cut, 0, gbf_name_kernel_pick(features), &fault) != GBF_OK)
            break;
        static const char *const names[] = {
            "x.a.b", "a.b", "q.x.a.b", "n00.d", "1.n33.d", "c.c.c", "longer-than-seven.example"};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            ask(&table, (const uint8_t *)names[i], strlen(names[i]));
        ask(&table, data + at, nbytes - at);
    }
    free(block);
    return 0;
}
