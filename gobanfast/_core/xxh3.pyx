"""XXH3 hashes of byte strings."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from gobanfast._core.native.base cimport GBF_OK
from gobanfast._core.native.hash cimport (
    gbf_hash128, gbf_uint128, gbf_xxh3_128, gbf_xxh3_128_keyed, gbf_xxh3_64, gbf_xxh3_64_keyed, gbf_xxh3_kernel,
    gbf_xxh3_key, gbf_xxh3_key_set, gbf_xxh3_pick,
)

from gobanfast._core.kernels import cpu_features


def kernel_name(uint32_t features):
    """Name of the best kernel that needs nothing beyond the feature bits `features`."""
    return gbf_xxh3_pick(features).name.decode()


def xxh3_64(data, uint64_t seed=0, bytes secret=None, str kernel=None):
    """XXH3 64-bit hash of `data` as an int.

    Args:
        data: contiguous bytes-like object.
        seed: 0..2**64-1.
        secret: at least 136 bytes, or None for the default one. With a seed as well, the seed keys inputs of up to
            240 bytes and the secret keys longer ones, as the algorithm specifies.
        kernel: cap on the instruction set, as for PrefixTable; None with no secret: the best kernel.
    Raises:
        ValueError: the secret is too short, or the kernel is unknown or cannot run here.
    Source: csrc/DESIGN.md, "XXH3".
    """
    cdef gbf_xxh3_key key
    cdef bint keyed = secret is not None or kernel is not None
    cdef Py_buffer view
    cdef uint64_t answer
    if keyed:
        set_key(&key, seed, secret, kernel)
    open_view(data, &view)
    if keyed:
        answer = gbf_xxh3_64_keyed(&key, view.buf, <uint64_t>view.len)
    else:
        answer = gbf_xxh3_64(view.buf, <uint64_t>view.len, seed)
    PyBuffer_Release(&view)
    return answer


def xxh3_128(data, uint64_t seed=0, bytes secret=None, str kernel=None):
    """XXH3 128-bit hash of `data` as an int. Arguments and errors as for xxh3_64."""
    cdef gbf_xxh3_key key
    cdef bint keyed = secret is not None or kernel is not None
    cdef Py_buffer view
    cdef gbf_hash128 answer
    cdef gbf_uint128 whole
    if keyed:
        set_key(&key, seed, secret, kernel)
    open_view(data, &view)
    if keyed:
        answer = gbf_xxh3_128_keyed(&key, view.buf, <uint64_t>view.len)
    else:
        answer = gbf_xxh3_128(view.buf, <uint64_t>view.len, seed)
    PyBuffer_Release(&view)
    whole = answer.high
    return whole << 64 | <gbf_uint128>answer.low


cdef inline int open_view(object data, Py_buffer *view) except -1:
    """0 with the bytes of `data` in `view`; PyBuffer_Release() closes it."""
    if PyBytes_CheckExact(data):  # what most callers have, at half the cost; there is nothing to release
        memset(view, 0, sizeof(Py_buffer))
        view.buf = PyBytes_AS_STRING(data)
        view.len = PyBytes_GET_SIZE(data)
        return 0
    return PyObject_GetBuffer(data, view, PyBUF_SIMPLE)


cdef int set_key(gbf_xxh3_key *key, uint64_t seed, bytes secret, str kernel) except -1:
    """0 after filling in `key`, which borrows `secret`."""
    cdef const gbf_xxh3_kernel *picked = gbf_xxh3_pick(<uint32_t>cpu_features(kernel))
    cdef const uint8_t *secret_data = NULL
    cdef uint64_t secret_bytes = 0
    if secret is not None:
        secret_data = secret
        secret_bytes = <uint64_t>len(secret)
    if gbf_xxh3_key_set(key, picked, seed, secret_data, secret_bytes) != GBF_OK:
        raise ValueError(f"secret has {secret_bytes} bytes; give at least 136")
    return 0
