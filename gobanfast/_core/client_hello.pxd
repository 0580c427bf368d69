from libc.stdint cimport uint8_t, uint32_t

from gobanfast._core.native.tls cimport gbf_hello, gbf_hello_frame, gbf_span


cdef enum TlsFingerprint:
    JA3
    JA3_TEXT
    JA4_R


cdef class ClientHello:
    cdef bytes _owner                   # what the spans point into
    cdef gbf_hello _hello
    cdef gbf_hello_frame _frame
    cdef char _transport

    cdef int take(self, bytes data, bint bare) except -1
    cdef str text_of(self, TlsFingerprint what)
    cdef tuple numbers(self, gbf_span span)
    cdef bint has(self, uint32_t flag) noexcept

    # JA4 of a hello whose status is "ok" into out[0..36).
    cdef int ja4_bytes(self, uint8_t *out) except -1
