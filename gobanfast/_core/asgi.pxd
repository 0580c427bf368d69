from libc.stdint cimport uint64_t


cdef class RequestIds:
    cdef char _prefix[12]
    cdef uint64_t _next

    cdef str make(self)


cdef class MarkedSend:
    cdef object _send
    cdef str _request_id
    cdef list _extra

    cdef list mark(self, list headers)


cdef class AsgiGate:
    cdef object _app, _gate, _handshake, _refuse
    cdef RequestIds _ids
    cdef object _engine, _decide
    cdef object _trust   # None: that of the rules in force
    cdef str _mount      # that the option or the application says, "" for none
    cdef bint _routed    # whether some paths are treated otherwise
    cdef bint _told      # whether someone is told of decisions


cdef class Budget:
    cdef readonly size_t limit
    cdef size_t _used
