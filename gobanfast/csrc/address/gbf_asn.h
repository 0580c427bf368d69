/* Names of autonomous systems beside a prefix table: three sections of an "ASN " block.
 *
 *   "ASNU"  u32  AS numbers, strictly ascending
 *   "ASNO"  u32  where each name starts in "ASNT"; one more item ends the last name
 *   "ASNT"  u8   the names, UTF-8, one after the other
 *
 * A name costs 8 bytes beside its text. Source: DESIGN.md, "AS names". */
#ifndef GBF_ASN_H
#define GBF_ASN_H

#include "base/gbf_base.h"
#include "base/gbf_block.h"

#define GBF_ASN_KIND GBF_TAG('A', 'S', 'N', ' ')
#define GBF_ASN_NUMBERS GBF_TAG('A', 'S', 'N', 'U')
#define GBF_ASN_OFFSETS GBF_TAG('A', 'S', 'N', 'O')
#define GBF_ASN_TEXT GBF_TAG('A', 'S', 'N', 'T')

typedef struct {
    const uint32_t *numbers;
    const uint32_t *offsets; /* count + 1 */
    const char *text;
    uint32_t count;
} gbf_asn_names;

/* Names of an opened block. Every number and offset is checked, so a lookup needs no bounds check. The names
 * borrow `block`. */
gbf_status gbf_asn_names_open(gbf_asn_names *names, const void *block, gbf_fault *fault);

/* Text of the name of `asn` and its bytes, or NULL. At most 32 probes, never fails; any number of threads. */
GBF_INLINE const char *gbf_asn_name(const gbf_asn_names *names, uint32_t asn, uint32_t *nbytes)
{
    uint32_t low = 0, high = names->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (names->numbers[middle] < asn)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == names->count || names->numbers[low] != asn)
        return NULL;
    *nbytes = names->offsets[low + 1] - names->offsets[low];
    return names->text + names->offsets[low];
}

#endif
