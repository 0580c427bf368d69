/* A set of origins or hosts that opens may be asked anything. The input edits a good set with every section in use, then has
 * the text to ask. */
#include "fuzz.h"
#include "http/gbf_origin_build.h"
#include "mend.h"

static void *good_set(int hosts)
{
    static const uint64_t key[GBF_NAME_KEYS] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
    static const char *const origins[] = {"https://a.b",
                                          "https://*.a.b:*",
                                          "https://**.b:8443",
                                          "https://**.b:9000",
                                          "x://[::1]:1",
                                          "https://a.b:8443",
                                          "*",
                                          "https://longer-than-what-an-entry-has-room-for.example.com",
                                          "http://192.0.2.7"};
    static const char *const names[] = {"a.b", "*.a.b:*", "**.b:8443", "[::1]", "192.0.2.7:1", "c."};
    gbf_origin_builder *builder = gbf_origin_builder_new(key, hosts);
    gbf_fault fault;
    void *block = NULL;
    uint32_t count = hosts ? sizeof names / sizeof *names : sizeof origins / sizeof *origins;
    must(builder != NULL);
    for (uint32_t i = 0; i < count; i++) {
        const char *text = hosts ? names[i] : origins[i];
        must(gbf_origin_builder_add(builder, (const uint8_t *)text, (uint32_t)strlen(text), i) == GBF_OK);
    }
    must(gbf_origin_builder_finish(builder, "[]", 2, &block, &fault) == GBF_OK);
    gbf_origin_builder_free(builder);
    return block;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const char *const asked[] = {
        "https://a.b", "https://q.a.b:7", "https://q.q.b:9000", "x://[::1]:1", "a.b:8443", "http://192.0.2.7", "[::1]",
        "q.a.b"};
    input in = {data, data + nbytes};
    uint64_t block_bytes;
    int hosts = (int)(take(&in, 1) & 1);
    uint8_t *block = damaged(&in, good_set(hosts), &block_bytes, GBF_KIND_ORIGIN);
    gbf_origins table;
    gbf_fault fault;
    if (gbf_origins_open(&table, block, block_bytes, 0, gbf_name_kernel_pick(0), &fault) == GBF_OK) {
        uint32_t rest = (uint32_t)(in.end - in.at);
        uint8_t *text = exact(in.at, rest);
        for (size_t i = 0; i <= sizeof asked / sizeof *asked; i++) {
            int last = i == sizeof asked / sizeof *asked;
            const uint8_t *at = last ? text : (const uint8_t *)asked[i];
            uint32_t n = last ? rest : (uint32_t)strlen(asked[i]);
            uint32_t found = gbf_origins_find(&table, at, n), host = gbf_hosts_find(&table, at, n, 80);
            must(found < table.class_count && host < table.class_count);
            must(table.sets[found] <= table.sets[found + 1] && table.sets[found + 1] <= table.group_count);
        }
        free(text);
    }
    free(block);
    return 0;
}
