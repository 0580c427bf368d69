#include "rules/gbf_connection.h"

enum {
    KIND = GBF_TAG('S', 'I', 'G', 'N'),
    HEAD = GBF_TAG('H', 'E', 'A', 'D'), /* words, asks */
    ABSENT = GBF_TAG('A', 'B', 'S', 'N'),
    NAME_ROWS = GBF_TAG('S', 'N', 'I', 'R'),
    NAME_HASH = GBF_TAG('S', 'N', 'I', 'H'),
    HELLO_ROWS = GBF_TAG('T', 'L', 'S', 'R'),
    JA4_TERMS = GBF_TAG('J', 'A', '4', 'T'),
    JA4_ROWS = GBF_TAG('J', 'A', '4', 'R'),
    ALPN_TERMS = GBF_TAG('A', 'P', 'N', 'T'),
    ALPN_ROWS = GBF_TAG('A', 'P', 'N', 'R'),
    TERM_TEXT = GBF_TAG('T', 'R', 'M', 'X'),
    JA4_BYTES = 36,
};

static int compare(const gbf_connection *s, const gbf_term *term, const uint8_t *text, uint32_t nbytes)
{
    if (term->nbytes != nbytes)
        return term->nbytes < nbytes ? -1 : 1;
    return nbytes == 0 ? 0 : memcmp(s->text + term->at, text, nbytes);
}

/* ORs the row of the term equal to text[0..nbytes), if there is one, into `bits`. */
static void add_term(const gbf_connection *s, const gbf_terms *t, const uint8_t *text, uint32_t nbytes, uint64_t *bits)
{
    uint64_t low = 0, high = t->term_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int order = compare(s, &t->terms[middle], text, nbytes);
        if (order == 0) {
            gbf_bits_or(bits, t->rows + (uint64_t)t->terms[middle].row * s->words, s->words);
            return;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
}

void gbf_connection_and_ja4(const gbf_connection *s, const uint8_t ja4[36], uint64_t *vector, uint64_t *scratch)
{
    memcpy(scratch, s->ja4.rows, 8ul * s->words);
    for (uint32_t nbytes = 1; nbytes <= JA4_BYTES; nbytes++)
        add_term(s, &s->ja4, ja4, nbytes, scratch);
    gbf_bits_and(vector, scratch, s->words);
}

void gbf_connection_and_alpn(const gbf_connection *s, const gbf_hello *hello, uint64_t *vector, uint64_t *scratch)
{
    const uint8_t *at = hello->message + hello->alpn.at, *end = at + hello->alpn.nbytes;
    memcpy(scratch, s->alpn.rows, 8ul * s->words);
    for (; at < end; at += 1 + at[0])
        add_term(s, &s->alpn, at + 1, at[0], scratch);
    gbf_bits_and(vector, scratch, s->words);
}

gbf_status gbf_connection_build(const gbf_connection_source *s, void **block)
{
    const uint32_t head[2] = {s->words, s->asks};
    const uint64_t row = 8 * (uint64_t)s->words;
    const gbf_part parts[] = {
        {HEAD, 4, head, sizeof head},
        {ABSENT, 8, s->absent, row},
        {NAME_ROWS, 8, s->name_rows, s->name_row_count * 2 * row},
        {NAME_HASH, 16, s->names_digest, 16},
        {HELLO_ROWS, 8, s->hello_rows, GBF_HELLO_ROWS * row},
        {JA4_TERMS, sizeof(gbf_term), s->ja4_terms, s->ja4_term_count * sizeof(gbf_term)},
        {JA4_ROWS, 8, s->ja4_rows, s->ja4_row_count * row},
        {ALPN_TERMS, sizeof(gbf_term), s->alpn_terms, s->alpn_term_count * sizeof(gbf_term)},
        {ALPN_ROWS, 8, s->alpn_rows, s->alpn_row_count * row},
        {TERM_TEXT, 1, s->text, s->text_nbytes},
    };
    return gbf_block_build(parts, sizeof parts / sizeof *parts, KIND, block);
}

static gbf_status bind_terms(const gbf_connection *s, gbf_terms *t, const void *block, uint32_t terms, uint32_t rows,
                             gbf_fault *fault)
{
    uint64_t row_words;
    t->terms = gbf_block_section(block, terms, sizeof *t->terms, &t->term_count);
    t->rows = gbf_block_section(block, rows, 8, &row_words);
    t->row_count = row_words / s->words;
    if (row_words % s->words != 0 || (t->term_count > 0 && t->row_count == 0))
        return gbf_refuse(fault, GBF_BAD_FORMAT, "rows of a signal do not fit its terms", 64);
    for (uint64_t i = 0; i < t->term_count; i++) {
        const gbf_term *term = &t->terms[i];
        if (term->row >= t->row_count || term->at > s->text_nbytes || term->nbytes > s->text_nbytes - term->at)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "term of a signal points outside", i);
        if (i > 0 && compare(s, term - 1, s->text + term->at, term->nbytes) >= 0)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "terms of a signal do not ascend", i);
    }
    return GBF_OK;
}

gbf_status gbf_connection_open(gbf_connection *signals, const void *block, uint64_t nbytes, int verify,
                               gbf_fault *fault)
{
    gbf_status status = gbf_block_open(block, nbytes, KIND, verify, fault);
    if (status != GBF_OK)
        return status;
    uint64_t head_words, absent_words, name_words, hello_words;
    const uint32_t *head = gbf_block_section(block, HEAD, 4, &head_words);
    if (head_words != 2 || head[0] == 0 || head[0] > UINT32_MAX / 64)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "header of signals is damaged", 64);
    gbf_connection s = {.words = head[0], .asks = head[1]};
    s.text = gbf_block_section(block, TERM_TEXT, 1, &s.text_nbytes);
    s.absent = gbf_block_section(block, ABSENT, 8, &absent_words);
    s.name_rows = gbf_block_section(block, NAME_ROWS, 8, &name_words);
    s.hello_rows = gbf_block_section(block, HELLO_ROWS, 8, &hello_words);
    s.name_row_count = name_words / 2 / s.words;
    if (absent_words != s.words || hello_words != (uint64_t)GBF_HELLO_ROWS * s.words ||
        name_words != s.name_row_count * 2 * s.words || ((s.asks & GBF_ASKS_NAME) && s.name_row_count <= GBF_ROW_KNOWN))
        return gbf_refuse(fault, GBF_BAD_FORMAT, "rows of signals do not fit each other", 64);
    if ((status = bind_terms(&s, &s.ja4, block, JA4_TERMS, JA4_ROWS, fault)) != GBF_OK ||
        (status = bind_terms(&s, &s.alpn, block, ALPN_TERMS, ALPN_ROWS, fault)) != GBF_OK)
        return status;
    if (((s.asks & GBF_ASKS_JA4) && s.ja4.row_count == 0) || ((s.asks & GBF_ASKS_ALPN) && s.alpn.row_count == 0))
        return gbf_refuse(fault, GBF_BAD_FORMAT, "rows of a signal are missing", 64);
    *signals = s;
    return GBF_OK;
}
