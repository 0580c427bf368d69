from gobanfast._core.exchange cimport Exchange, GuardCore


cdef class SendWrapper:
    cdef object _send
    cdef Exchange _exchange
    cdef object _open_lease, _lease  # None: it is no stream
    cdef bint _watched       # whether somebody wants to know of the end

    cdef int note_part(self, object message) except -1
    cdef int let_go(self) except -1


cdef class AsgiMiddleware:
    cdef object _app, _handshake, _head_app, _send_response, _open_lease
    cdef GuardCore _guard
    cdef str _mount          # that the option or the application says, "" for none
    cdef bint _routed        # whether some paths are treated otherwise
