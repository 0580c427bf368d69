/* Any bytes may be given to the ClientHello reader, and whatever it accepts may be fingerprinted. Also: a hello split
 * over records reads as in one, no cut of a whole hello is refused, and `need` never asks for more than is left. */
#include "base/gbf_cpu.h"
#include "fuzz.h"
#include "tls/gbf_ja.h"

static void fingerprint(const gbf_hello *hello)
{
    uint8_t *room = malloc(gbf_ja_room(hello)), scalar[GBF_JA4_BYTES], best[GBF_JA4_BYTES], ja3[GBF_JA3_BYTES];
    must(room != NULL);
    gbf_ja4(hello, 't', gbf_sha256_pick(0), room, scalar);
    gbf_ja4(hello, 't', gbf_sha256_pick(gbf_cpu_features()), room, best);
    must(memcmp(scalar, best, sizeof scalar) == 0);
    must(gbf_ja4_raw(hello, 't', room) <= gbf_ja_room(hello));
    gbf_ja3(hello, room, ja3);
    free(room);
}

static int read_whole(const uint8_t *data, gbf_hello_frame *frame)
{
    gbf_hello hello;
    uint8_t *message = malloc(frame->message_bytes);
    must(message != NULL);
    if (frame->records == 0)
        memcpy(message, data, frame->message_bytes);
    else
        gbf_hello_gather(data, frame, message);
    int good = gbf_hello_read(message, frame, &hello);
    if (good) {
        fingerprint(&hello);
        gbf_hello_grease(&hello);
        const uint8_t *name = message + hello.name.at;
        int clean = gbf_hello_name_clean(name, hello.name.nbytes);
        uint32_t odd = gbf_hello_name_flags(name, hello.name.nbytes);
        must(!(clean && (odd & (GBF_NAME_EMPTY | GBF_NAME_NUL | GBF_NAME_NON_ASCII))));
    } else {
        must(frame->place <= frame->message_bytes);
        gbf_hello_offset(data, frame, frame->place);
    }
    free(message);
    return good;
}

/* The message again, `step` bytes to a record. */
static void split(const uint8_t *message, uint32_t nbytes, uint32_t step, int good)
{
    uint8_t *data = malloc((size_t)nbytes * 6 + 6);
    must(data != NULL);
    uint32_t end = 0;
    for (uint32_t at = 0; at < nbytes; at += step) {
        uint32_t piece = nbytes - at < step ? nbytes - at : step;
        const uint8_t header[5] = {22, 3, 1, (uint8_t)(piece >> 8), (uint8_t)piece};
        memcpy(data + end, header, 5);
        memcpy(data + end + 5, message + at, piece);
        end += 5 + piece;
    }
    gbf_hello_frame frame = gbf_hello_records(data, end);
    must(frame.status == GBF_HELLO_OK && frame.end == end && read_whole(data, &frame) == good);
    uint32_t kept = end * (uint64_t)step % end;
    uint8_t *part = exact(data, kept);
    frame = gbf_hello_records(part, kept);
    must(frame.status == GBF_HELLO_INCOMPLETE && frame.place >= 1 && frame.place <= end - kept);
    free(part);
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t nbytes)
{
    uint8_t *data = exact(bytes, nbytes);
    gbf_hello_frame frame = gbf_hello_records(data, nbytes);
    if (frame.status == GBF_HELLO_OK) {
        int good = read_whole(data, &frame);
        uint8_t *message = malloc(frame.message_bytes);
        must(message != NULL);
        gbf_hello_gather(data, &frame, message);
        gbf_hello_frame bare = gbf_hello_bare(message, frame.message_bytes);
        must(bare.status == GBF_HELLO_OK && read_whole(message, &bare) == good);
        split(message, frame.message_bytes, 1 + nbytes % 61, good);
        free(message);
    }
    frame = gbf_hello_bare(data, nbytes);
    if (frame.status == GBF_HELLO_OK)
        read_whole(data, &frame);
    free(data);
    return 0;
}
