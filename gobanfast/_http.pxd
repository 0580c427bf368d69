from libc.stdint cimport uint64_t


cdef class RequestIds:
    cdef char _prefix[12]
    cdef uint64_t _next


cdef class MarkedSend:
    cdef object _send
    cdef str _request_id
    cdef list _extra
