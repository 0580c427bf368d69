/* Lines of access logs as columns of borrowed text: a structural index, then one walk a layout.
 *
 * The index has the position of every byte that can end a line, a quoted text or an escape (control characters, `"` and
 * backslash), found many bytes at a time; the walks read little else. What a walk does not know for certain it leaves to the slow
 * reader (kind GBF_LOG_SLOW), so a walk may know little but never guesses.
 * Source: DESIGN.md, "Log lines"; the index is that of Langdale and Lemire (simdjson paper, VLDB Journal 2019). */
#ifndef GBF_LOG_H
#define GBF_LOG_H

#include "base/gbf_base.h"

enum {
    GBF_LOG_COLUMNS = 8,    /* texts of a line, the address among them */
    GBF_LOG_STRUCTURES = 8, /* of JSON lines in one log */
    GBF_LOG_SLOTS = 256,    /* values of a JSON line that are counted */
    GBF_LOG_DEPTH = 16,
};

typedef enum { GBF_LOG_COMBINED, GBF_LOG_CSV, GBF_LOG_JSON } gbf_log_layout;

/* What a line is, which says what its columns are. JSON: GBF_LOG_ADDRESS + number of its structure. */
enum {
    GBF_LOG_SLOW,       /* for the slow reader */
    GBF_LOG_ADDRESS,    /* address; CSV: the columns asked for */
    GBF_LOG_FULL,       /* address, method and path, referer, user agent */
    GBF_LOG_FULL_RAW,   /* the same with a request line as it is */
    GBF_LOG_COMMON,     /* address, method and path */
    GBF_LOG_COMMON_RAW, /* address, request line as it is */
};

typedef struct {
    uint64_t hash;                   /* of keys, order, nesting and types */
    uint32_t slots[GBF_LOG_COLUMNS]; /* numbers of the wanted values, ascending in no order; count of them: */
    uint32_t count;
} gbf_log_structure;

typedef struct {
    gbf_log_layout layout;
    int address_only;
    uint32_t skip;                   /* combined: fields before the address */
    uint8_t delimiter;               /* CSV */
    uint32_t slots[GBF_LOG_COLUMNS]; /* CSV: columns wanted, from 0 */
    uint32_t count;
    gbf_log_structure structures[GBF_LOG_STRUCTURES];
    uint32_t structure_count;
} gbf_log_form;

/* One item a line. Text of column c of line i is at[c * room + i], nbytes[c * room + i], offsets in the block; columns that its kind
 * has not are not written. `hashes`: of JSON, the structure; else not written. */
typedef struct {
    uint8_t *kinds;
    uint32_t *starts, *lengths; /* the line, without carriage returns and NULs around it, and byte order mark */
    uint32_t *at, *nbytes;
    uint64_t *hashes;
    uint32_t room;
} gbf_log_rows;

/* Writes the positions of control characters, quotes and backslashes, ascending, and returns how many. `out` holds nbytes + 64. */
typedef uint32_t (*gbf_log_index)(const uint8_t *text, uint32_t nbytes, uint32_t *out);
uint32_t gbf_log_index_scalar(const uint8_t *text, uint32_t nbytes, uint32_t *out);
uint32_t gbf_log_index_avx2(const uint8_t *text, uint32_t nbytes, uint32_t *out);

/* The best index that needs nothing beyond `features` (GBF_CPU_*). */
gbf_log_index gbf_log_index_pick(uint32_t features);

/* Lines among the marks. */
uint32_t gbf_log_count(const uint8_t *text, const uint32_t *marks, uint32_t count);

/* Reads every line of a block whose last byte is a line feed. `marks` is its index. Returns the lines read: rows->room at most. */
uint32_t gbf_log_read(const gbf_log_form *form, const uint8_t *text, uint32_t nbytes, const uint32_t *marks,
                      uint32_t count, const gbf_log_rows *rows);

/* One value of a JSON line: where its text is (without the quotes), and what it is. */
typedef struct {
    uint32_t at, nbytes;
    uint8_t
        type; /* 's' text, 'b' text with escapes, 'e' empty text, 'n' number, 'l' true or false, '0' null; 'o', 'a': empty */
} gbf_log_value;

/* Values of one JSON object in order, at most GBF_LOG_SLOTS of them; 0 when it is none that this reader knows. `marks` begin at or after
 * `start`, which is a line of `nbytes` bytes. */
int gbf_log_json(const uint8_t *text, uint32_t start, uint32_t nbytes, const uint32_t *marks, uint32_t mark_count,
                 gbf_log_value *values, uint32_t *value_count, uint64_t *hash);

#endif
