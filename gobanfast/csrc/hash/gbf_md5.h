/* MD5 (RFC 1321), for the JA3 digests that feeds hold. Nothing here relies on its strength. */
#ifndef GBF_MD5_H
#define GBF_MD5_H

#include "base/gbf_base.h"

/* Digest of `text`, written over it in part: up to 72 bytes behind its end are used for padding. */
void gbf_md5(uint8_t *text, uint32_t nbytes, uint8_t digest[16]);

#endif
