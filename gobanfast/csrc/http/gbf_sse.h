/* Fields of an event stream (HTML, "Server-sent events"): a text's lines, each behind the field's name.
 *
 * Lines end at CR, LF or CRLF and nowhere else, which is where a client's parser ends them; a text that ends with one has an
 * empty line behind it. So what a client joins again with LF is the text, its line ends made LF. */
#ifndef GBF_SSE_H
#define GBF_SSE_H

#include "base/gbf_base.h"

/* Writes the lines of text[0..n) to `out`, each as name, line, LF; returns the bytes written. Without `out` it only counts. */
static inline uint64_t gbf_sse_field(uint8_t *out, const char *name, uint64_t name_nbytes, const uint8_t *text,
                                     uint64_t n)
{
    const uint8_t *end = text + n;
    const int has_cr = n != 0 && memchr(text, '\r', n) != NULL;
    uint64_t written = 0;
    for (;;) {
        const uint8_t *stop = text;
        if (has_cr)
            while (stop < end && *stop != '\r' && *stop != '\n')
                stop++;
        else if (text < end && (stop = memchr(text, '\n', (uint64_t)(end - text))) == NULL)
            stop = end;
        const uint64_t nbytes = (uint64_t)(stop - text);
        if (out != NULL) {
            memcpy(out + written, name, name_nbytes);
            if (nbytes != 0)
                memcpy(out + written + name_nbytes, text, nbytes);
            out[written + name_nbytes + nbytes] = '\n';
        }
        written += name_nbytes + nbytes + 1;
        if (stop == end)
            return written;
        text = stop + (*stop == '\r' && stop + 1 < end && stop[1] == '\n' ? 2 : 1);
    }
}

/* 1 when no byte of text[0..n) ends a line, nor is NUL where `nul` forbids it. */
static inline int gbf_sse_one_line(const uint8_t *text, uint64_t n, int nul)
{
    return n == 0 ||
           (memchr(text, '\n', n) == NULL && memchr(text, '\r', n) == NULL && (!nul || memchr(text, '\0', n) == NULL));
}

#endif
