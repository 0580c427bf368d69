/* Fields of an event stream: what is counted is written, every line begins with the name, and what a client joins again is the
 * text with each of its line ends made LF. */
#include "fuzz.h"
#include "http/gbf_sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    uint8_t *text = exact(data, nbytes);
    uint64_t counted = gbf_sse_field(NULL, "data: ", 6, text, nbytes), at = 0, want = 0;
    uint8_t *out = malloc(counted);
    must(out != NULL && gbf_sse_field(out, "data: ", 6, text, nbytes) == counted);
    for (int first = 1; at < counted; first = 0) {
        if (!first) {
            must(want < nbytes && (text[want] == '\r' || text[want] == '\n'));
            want += text[want] == '\r' && want + 1 < nbytes && text[want + 1] == '\n' ? 2 : 1;
        }
        must(counted - at > 6 && memcmp(out + at, "data: ", 6) == 0);
        for (at += 6; out[at] != '\n'; at++, want++)
            must(out[at] != '\r' && want < nbytes && out[at] == text[want]);
        at++;
    }
    must(at == counted && want == nbytes);
    must(gbf_sse_one_line(text, nbytes, 0) ==
         (counted == nbytes + 7 && memchr(out, '\n', counted) == out + counted - 1));
    free(text);
    free(out);
    return 0;
}
