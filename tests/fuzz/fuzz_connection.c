/* Signals that open, with a hash or without one, answer every call without leaving their block.
 *
 * Input: rows of bits to build a sound block from, then edits to it, then the JA4s and protocols to ask. */
#include "mend.h"
#include "rules/gbf_connection.h"

enum { WORDS = 2, NAME_ROWS = 5, TERM_ROWS = 3, ROWS = GBF_HELLO_ROWS + 2 * NAME_ROWS + 2 * TERM_ROWS + 1 };

static const char TEXT[] = "t13d1516h2_8daaf6152771_02713d6af862h2http/1.1";

static void *build(input *in)
{
    static const gbf_term ja4[] = {{0, 1, 1}, {0, 10, 2}, {0, 36, 1}}, alpn[] = {{36, 2, 1}, {38, 8, 2}};
    uint64_t rows[ROWS * WORDS];
    for (int i = 0; i < ROWS * WORDS; i++)
        rows[i] = take(in, 1);
    const uint64_t *names = rows + GBF_HELLO_ROWS * WORDS, *terms = names + NAME_ROWS * 2 * WORDS;
    gbf_connection_source source = {.absent = terms + 2 * TERM_ROWS * WORDS,
                                    .name_rows = names,
                                    .hello_rows = rows,
                                    .ja4_rows = terms,
                                    .alpn_rows = terms + TERM_ROWS * WORDS,
                                    .ja4_terms = ja4,
                                    .alpn_terms = alpn,
                                    .text = (const uint8_t *)TEXT,
                                    .names_digest = (const uint8_t *)TEXT,
                                    .name_row_count = NAME_ROWS,
                                    .ja4_row_count = TERM_ROWS,
                                    .alpn_row_count = TERM_ROWS,
                                    .ja4_term_count = 3,
                                    .alpn_term_count = 2,
                                    .text_nbytes = sizeof TEXT - 1,
                                    .words = WORDS,
                                    .asks = take(in, 1)};
    void *block = NULL;
    must(gbf_connection_build(&source, &block) == GBF_OK);
    return block;
}

static uint64_t sum(const uint64_t *vector, uint32_t words)
{
    uint64_t total = 0;
    for (uint32_t w = 0; w < words; w++)
        total += vector[w];
    return total;
}

static void ask(const gbf_connection *s, input in)
{
    uint64_t *vector = calloc(2, 8ul * s->words), total = sum(s->absent, s->words);
    must(vector != NULL);
    memset(vector, 0xFF, 8ul * s->words);
    uint64_t *scratch = vector + s->words;
    if (s->asks & GBF_ASKS_NAME)
        for (uint32_t row = 0; row < s->name_row_count; row++)
            gbf_connection_and_name(s, gbf_connection_name_row(s, row), vector);
    gbf_bits_and(vector, s->hello_rows + GBF_ROW_TOLD * s->words, s->words);

    uint8_t offered[] = "\2h2\10http/1.1\1x", ja4[36];
    for (int i = 0; i < 36; i++)
        ja4[i] = (uint8_t)(TEXT[i] ^ take(&in, 1));
    offered[13] = (uint8_t)take(&in, 1);
    gbf_hello hello = {.message = offered, .alpn = {0, sizeof offered - 1}};
    for (hello.flags = 0; hello.flags < 4; hello.flags++)
        for (hello.version = 0x02FF; hello.version < 0x0307; hello.version++)
            gbf_connection_and_hello(s, &hello, vector);
    if (s->asks & GBF_ASKS_JA4)
        gbf_connection_and_ja4(s, ja4, vector, scratch);
    if (s->asks & GBF_ASKS_ALPN)
        gbf_connection_and_alpn(s, &hello, vector, scratch);
    volatile uint64_t kept = total + sum(vector, s->words);
    (void)kept;
    free(vector);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    uint64_t block_bytes;
    uint8_t *sound = build(&in), *block = damaged(&in, sound, &block_bytes, GBF_TAG('S', 'I', 'G', 'N'));
    for (int verify = 0; verify < 2; verify++) {
        gbf_connection signals;
        gbf_fault fault;
        if (gbf_connection_open(&signals, block, block_bytes, verify, &fault) == GBF_OK)
            ask(&signals, in);
    }
    free(block);
    return 0;
}
