/* Fingerprints of a ClientHello: JA3 (salesforce/ja3) to match feeds, and JA4 (FoxIO-LLC/ja4,
 * technical_details/JA4.md, BSD-3). The rest of the JA4+ family has another licence and is not here. */
#ifndef GBF_JA_H
#define GBF_JA_H

#include "hash/gbf_sha256.h"
#include "tls/gbf_hello.h"

enum { GBF_JA4_BYTES = 36, GBF_JA3_BYTES = 32 };

/* Bytes of work memory that suffice for any function below on this hello. Aligned to 8. */
uint32_t gbf_ja_room(const gbf_hello *hello);

/* Each writes text into `room`, without a final NUL, and says how many bytes it is long.
 * `transport` is JA4's first letter: 't' for TCP, 'q' for QUIC. */
uint32_t gbf_ja3_text(const gbf_hello *hello, uint8_t *room);
uint32_t gbf_ja4_raw(const gbf_hello *hello, char transport, uint8_t *room);

/* Digests; `room` is scratch. */
void gbf_ja3(const gbf_hello *hello, uint8_t *room, uint8_t out[GBF_JA3_BYTES]);
void gbf_ja4(const gbf_hello *hello, char transport, const gbf_sha256_kernel *kernel, uint8_t *room,
             uint8_t out[GBF_JA4_BYTES]);

/* 1 when text[0..nbytes) has the shape of a JA4. */
int gbf_ja4_shaped(const char *text, size_t nbytes);

#endif
