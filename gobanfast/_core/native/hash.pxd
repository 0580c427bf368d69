# C declarations of csrc/hash/: XXH3, SipHash and SHA-256.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.native.base cimport gbf_status


cdef extern from "hash/gbf_xxh3.h" nogil:
    # Wider than any C type Cython knows; it converts by sizeof, so the declared base does not matter.
    ctypedef unsigned long long gbf_uint128 "unsigned __int128"
    ctypedef struct gbf_hash128:
        uint64_t low
        uint64_t high
    ctypedef struct gbf_xxh3_kernel:
        const char *name
    ctypedef struct gbf_xxh3_key:
        pass
    const gbf_xxh3_kernel *gbf_xxh3_pick(uint32_t features)
    gbf_status gbf_xxh3_key_set(gbf_xxh3_key *key, const gbf_xxh3_kernel *kernel, uint64_t seed,
                                const uint8_t *secret,
                                uint64_t secret_bytes)
    uint64_t gbf_xxh3_64(const void *data, uint64_t nbytes, uint64_t seed)
    gbf_hash128 gbf_xxh3_128(const void *data, uint64_t nbytes, uint64_t seed)
    uint64_t gbf_xxh3_64_keyed(const gbf_xxh3_key *key, const void *data, uint64_t nbytes)
    gbf_hash128 gbf_xxh3_128_keyed(const gbf_xxh3_key *key, const void *data, uint64_t nbytes)


cdef extern from "hash/gbf_sha256.h" nogil:
    ctypedef struct gbf_sha256_kernel:
        const char *name
    const gbf_sha256_kernel *gbf_sha256_pick(uint32_t features)


cdef extern from "hash/gbf_siphash.h" nogil:
    enum:
        GBF_SIPHASH_KEY_BYTES
    gbf_hash128 gbf_siphash128(const uint8_t *key, const void *data, uint64_t nbytes)
