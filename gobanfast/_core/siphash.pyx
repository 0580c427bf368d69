"""SipHash-2-4 hashes of byte strings, 128 bits."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint64_t

from gobanfast._core.native.hash cimport GBF_SIPHASH_KEY_BYTES, gbf_hash128, gbf_siphash128


def siphash128(data, bytes key not None):
    """SipHash-2-4 of `data`, 16 bytes in the order of the reference implementation.

    Args:
        data: contiguous bytes-like object.
        key: 16 secret bytes.
    Raises:
        ValueError: the key has another length.
    Source: csrc/hash/gbf_siphash.h.
    """
    cdef Py_buffer view
    cdef gbf_hash128 answer
    if len(key) != GBF_SIPHASH_KEY_BYTES:
        raise ValueError(f"key has {len(key)} bytes; give {GBF_SIPHASH_KEY_BYTES}")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    answer = gbf_siphash128(<const uint8_t *>key, view.buf, <uint64_t>view.len)
    PyBuffer_Release(&view)
    return (<const char *>&answer)[:sizeof(answer)]
