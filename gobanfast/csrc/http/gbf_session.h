/* Session values of a request, and their keyed hash: cookies (RFC 6265) and query parameters of one name.
 *
 * A client that knows two sessions may send both, and servers differ in which they take, so all values of a name count: up to
 * GBF_SESSION_VALUES different ones, of GBF_SESSION_BYTES each; beyond that the session is malformed. Servers differ, too, in whether
 * they decode `%41`: a value is hashed with all such escapes decoded, again and again, so that no spelling is another session.
 * DESIGN.md, "Sessions". */
#ifndef GBF_SESSION_H
#define GBF_SESSION_H

#include "hash/gbf_siphash.h"

#define GBF_SESSION_VALUES 4u
#define GBF_SESSION_BYTES 4096u
#define GBF_SESSION_READ                                                                                               \
    65536u /* bytes of a header or query that are looked at; of more, nobody knows which cookies are there */

typedef struct {
    const uint8_t *at; /* borrowed */
    uint32_t nbytes;
    uint32_t plus; /* 1: `+` is a space, as in a query */
} gbf_session_value;

typedef struct {
    gbf_session_value value[GBF_SESSION_VALUES];
    uint32_t count;
    uint32_t malformed;
} gbf_session_values;

/* Takes in a value that is not empty; the same once more counts once. */
void gbf_session_add(gbf_session_values *v, const uint8_t *at, uint64_t nbytes, uint32_t plus);
/* Takes in the cookies of this name in a Cookie header: split at semicolons, blanks cut off, quotes around a value taken away. */
void gbf_session_cookie(gbf_session_values *v, const uint8_t *text, uint64_t nbytes, const uint8_t *name,
                        uint32_t name_bytes);
/* Takes in a header. `repeated`: lines of this name were joined by commas, and servers take one of them; each is a value.
 * `scheme`: a scheme that no two servers compare alike stands before the value, as in Authorization; it is cut off. */
void gbf_session_header(gbf_session_values *v, const uint8_t *text, uint64_t nbytes, int repeated, int scheme);
/* Takes in the parameters of this name in a query, as application/x-www-form-urlencoded. */
void gbf_session_query(gbf_session_values *v, const uint8_t *text, uint64_t nbytes, const uint8_t *name,
                       uint32_t name_bytes);
/* The same for one whose escapes are decoded; `out` has room for value->nbytes, and the answer says how many were written. */
uint32_t gbf_session_decode(const gbf_session_value *value, uint8_t *out);

/* Hash of a value of at most GBF_SESSION_BYTES. */
static inline gbf_hash128 gbf_session_hash(const uint8_t key[GBF_SIPHASH_KEY_BYTES], const gbf_session_value *value)
{
    uint8_t decoded[GBF_SESSION_BYTES];
    if (memchr(value->at, '%', value->nbytes) == NULL &&
        (!value->plus || memchr(value->at, '+', value->nbytes) == NULL))
        return gbf_siphash128(key, value->at, value->nbytes);
    return gbf_siphash128(key, decoded, gbf_session_decode(value, decoded));
}

#endif
