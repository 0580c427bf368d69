/* Patterns, then a text to ask, in lines: a set of all patterns, each a group of its own, says of the text what sets of one
 * pattern say, reads nothing past its end, and malformed is malformed for every set. */
#include "fuzz.h"
#include "http/gbf_origin_build.h"

enum { PATTERNS = 8 };

static const uint64_t key[GBF_NAME_KEYS] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};

typedef struct {
    const uint8_t *at;
    uint32_t nbytes;
} line;

static line next_line(input *in)
{
    line found = {in->at, 0};
    while (in->at < in->end && *in->at != '\n')
        in->at++;
    found.nbytes = (uint32_t)(in->at - found.at);
    in->at += in->at < in->end;
    return found;
}

static void *built(const line *patterns, uint32_t count, int hosts)
{
    gbf_origin_builder *builder = gbf_origin_builder_new(key, hosts);
    gbf_fault fault;
    void *block = NULL;
    must(builder != NULL);
    for (uint32_t i = 0; i < count; i++)
        must(gbf_origin_builder_add(builder, patterns[i].at, patterns[i].nbytes, i) == GBF_OK);
    must(gbf_origin_builder_finish(builder, NULL, 0, &block, &fault) == GBF_OK);
    gbf_origin_builder_free(builder);
    return block;
}

static uint32_t ask(const void *block, const uint8_t *text, uint32_t nbytes, uint32_t default_port, uint32_t *groups)
{
    gbf_origins table;
    gbf_fault fault;
    must(gbf_origins_open(&table, block, gbf_block_nbytes(block), 1, gbf_name_kernel_pick(0), &fault) == GBF_OK);
    uint32_t found =
        table.head.hosts ? gbf_hosts_find(&table, text, nbytes, default_port) : gbf_origins_find(&table, text, nbytes);
    must(found < table.class_count);
    *groups = 0;
    for (uint32_t i = table.sets[found]; i < table.sets[found + 1]; i++)
        *groups |= UINT32_C(1) << table.groups[i];
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    line patterns[PATTERNS];
    uint32_t choice = take(&in, 1), count = 0, together, alone;
    int hosts = (int)(choice & 1);
    for (uint32_t wanted = choice >> 2 & 7; wanted > 0; wanted--) {
        gbf_origin_pattern read;
        patterns[count] = next_line(&in);
        count += gbf_origin_pattern_read(&read, patterns[count].at, patterns[count].nbytes, hosts) != 0;
    }
    uint32_t text_bytes = (uint32_t)(in.end - in.at), default_port = choice & 2 ? 443 : 0;
    uint8_t *text = exact(in.at, text_bytes);
    void *block = built(patterns, count, hosts);
    uint32_t class = ask(block, text, text_bytes, default_port, &together);
    free(block);
    for (uint32_t i = 0; i < count; i++) {
        block = built(&patterns[i], 1, hosts);
        uint32_t one = ask(block, text, text_bytes, default_port, &alone);
        free(block);
        must((one == GBF_ORIGIN_MALFORMED) == (class == GBF_ORIGIN_MALFORMED));
        must(alone == (together >> i & 1));
    }
    free(text);
    return 0;
}
