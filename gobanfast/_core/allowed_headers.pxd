from libc.stdint cimport uint8_t, uint32_t

from gobanfast._core.native.http cimport gbf_acrh


cdef class AllowedHeaders:
    cdef gbf_acrh _allowed  # borrows the next two
    cdef bytes _text
    cdef bytes _ends
    cdef readonly tuple names
    cdef readonly bint any

    # Whether every name of one Access-Control-Request-Headers value is allowed; lines may be joined by commas.
    cdef bint allows(self, const uint8_t *text, uint32_t n) noexcept nogil
