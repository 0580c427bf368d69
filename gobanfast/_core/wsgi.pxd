from gobanfast._core.exchange cimport Exchange, GuardCore


cdef class StartResponse:
    cdef object _start_response
    cdef Exchange _exchange


cdef class WsgiMiddleware:
    cdef object _app, _handshake_of, _head_app, _send_response, _watch
    cdef GuardCore _guard
    cdef str _mount          # the option, "" for none
    cdef bint _routed        # whether some paths are treated otherwise
