"""Compiled request path of the WSGI middleware: environ in, exchange, `start_response` wrapped; the body out."""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_1BYTE_KIND, PyUnicode_KIND
from libc.stdint cimport uint8_t
from libc.string cimport memchr

from gobanfast._core.exchange cimport Exchange, GuardCore, new_exchange, same
from gobanfast._core.made cimport only_whole
from gobanfast.wire.target import environ_target


@cython.final
@cython.freelist(64)
cdef class StartResponse:
    """A WSGI `start_response` that puts what an exchange adds on the application's response."""

    @staticmethod
    def _make(start_response, Exchange exchange not None):
        return wrap_start(start_response, exchange)

    def __call__(self, status, headers, exc_info=None):
        headers = self._exchange.texts_for(headers)
        self._exchange._sent = int(status[:3])
        self._exchange.lease(self._exchange._sent, headers)
        if self._exchange._timed:
            self._exchange.note_start(self._exchange._sent, headers)
        if self._exchange._counts:
            self._exchange.count_answer(self._exchange._sent)
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)


cdef StartResponse wrap_start(object start_response, Exchange exchange):
    cdef StartResponse made = StartResponse.__new__(StartResponse)
    made._start_response, made._exchange = start_response, exchange
    return made


@cython.final
cdef class WsgiMiddleware:
    """The way of a request through the WSGI middleware.

    Args:
        app: the application.
        guard: the options, a `frontends.http.HttpGuard`.
        head_app: what is called in its place for HEAD.
        handshake_of: returns the TLS handshake of the connection of an environ, or None.
        send_response: answers for the application, of (environ, start_response, exchange, response).
        watch: runs the application for an exchange whose end somebody wants to know of, of (app, environ, exchange,
            start_response).
    """

    @staticmethod
    def _make(app, GuardCore guard not None, *, head_app, handshake_of, send_response, watch):
        cdef WsgiMiddleware made = WsgiMiddleware.__new__(WsgiMiddleware)
        made._app, made._guard, made._handshake_of = app, guard, handshake_of
        made._head_app, made._send_response, made._watch = head_app, send_response, watch
        made._mount, made._routed = guard.mount, bool(guard.routes)
        return made

    def handle(self, environ, start_response, /):
        """The body."""
        cdef Exchange exchange
        cdef GuardCore guard = self._guard
        cdef bint streams
        path, mount, mode = environ_get(environ, "PATH_INFO"), "", "enforce"
        if len(self._mount) != 0 or not is_plain(path) or environ_get(environ, "SCRIPT_NAME"):
            path, mount = environ_target(environ, self._mount)
            path, mount = path or "/", mount or ""
        if self._routed:
            mode = (<object>guard).mode(path, mount)
            if mode == "off":
                return self._app(environ, start_response)
        scheme, protocol = environ["wsgi.url_scheme"], environ_get(environ, "SERVER_PROTOCOL")
        method = environ["REQUEST_METHOD"]
        exchange = new_exchange(
            guard, environ, environ_get(environ, "REMOTE_ADDR"), method, path, mount,
            "1.1" if protocol is None or same(protocol, "HTTP/1.1") else protocol[5:], scheme,
            self._handshake_of(environ) if same(scheme, "https") else None, mode,
        )
        response = exchange.start()
        environ["gobanfast.request_id"] = exchange.request_id
        if exchange.client is not None:
            environ["gobanfast.client"] = environ["gobanfast.origin"] = exchange.client
        if exchange.decision is not None:
            environ["gobanfast.decision"] = exchange.decision
            environ["gobanfast.exchange"] = exchange
        if response is not None:
            return self._send_response(environ, start_response, exchange, response)
        if exchange._edge is not None:
            handed = exchange.handed(environ)
            if handed is not None:  # others have the environ that came
                environ = handed
        app = self._head_app if same(method, "HEAD") else self._app
        if exchange._state is not None:
            exchange.enter_trace()
        streams = asks_for_events(environ)
        if streams and type(environ) is dict and exchange._headers is environ:
            exchange._headers = dict(environ)  # applications write into theirs, and a stream is decided by it again
        if guard.finishers or exchange._owned or exchange._state is not None or streams:
            return self._watch(app, environ, exchange, wrap_start(start_response, exchange))
        return app(environ, wrap_start(start_response, exchange))


cdef bint asks_for_events(object environ) except -1:
    """Whether an EventSource asks: what it gets has a lease."""
    accept = environ_get(environ, "HTTP_ACCEPT")
    return type(accept) is str and u"text/event-stream" in <str>accept


cdef object environ_get(object environ, str key):
    """`environ.get(key)`."""
    cdef PyObject *value
    if type(environ) is not dict:
        return environ.get(key)
    value = PyDict_GetItemWithError(environ, key)
    return None if value == NULL else <object>value


cdef bint is_plain(object path) except -1:
    """Whether a decoded path has one reading and is as it was sent: nothing in it means more than itself."""
    cdef const uint8_t *text
    cdef Py_ssize_t i, length
    if type(path) is not str or len(<str>path) == 0 or PyUnicode_KIND(path) != PyUnicode_1BYTE_KIND:
        return False
    text, length = PyUnicode_1BYTE_DATA(path), len(<str>path)
    if text[0] != c"/":
        return False
    for i in range(length):
        if text[i] >= 0x80 or memchr(b"%\\;#?", text[i], 5) != NULL:
            return False
        if text[i] == c"/" and i + 1 < length and (text[i + 1] == c"/" or text[i + 1] == c"."):
            return False
    return True


only_whole(StartResponse)
only_whole(WsgiMiddleware)
