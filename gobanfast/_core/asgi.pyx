"""Compiled request path of the ASGI middleware: scope in, exchange, `send` wrapped; returns the awaitable to run."""

cimport cython
from cpython.dict cimport PyDict_Copy, PyDict_GetItemWithError
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_1BYTE_KIND, PyUnicode_KIND
from libc.stdint cimport uint8_t

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gobanfast._core.exchange cimport Exchange, GuardCore, new_exchange, same
from gobanfast._core.made cimport only_whole
from gobanfast.wire.target import asgi_target, mounts


@cython.final
@cython.freelist(64)
cdef class SendWrapper:
    """An ASGI `send` that puts what an exchange adds on the application's response, and notes its end."""

    @staticmethod
    def _make(send, Exchange exchange not None, *, open_lease):
        return wrap_send(send, exchange, open_lease)

    def __call__(self, message, /):
        cdef dict dressed
        kind = message["type"]
        if self._lease is not None and (self._lease.ended or not self._exchange.holds_on()):
            return self._lease.end()
        if same(kind, "http.response.body"):
            self._exchange.events += 1
            if self._lease is not None:
                self.note_part(message)
            if self._watched and not message.get("more_body", False):
                return _finish_after(self._send(message), self._exchange)
        elif same(kind, "http.response.start") or kind == "websocket.accept" or kind == "websocket.http.response.start":
            dressed = PyDict_Copy(message) if type(message) is dict else dict(message)  # it may be sent again
            headers = dict_get(dressed, "headers")
            headers = self._exchange.headers_for(() if headers is None else headers)  # theirs may be there only once
            dressed["headers"] = headers
            self._exchange._sent = 101 if kind == "websocket.accept" else message["status"]
            if self._exchange.lease(self._exchange._sent, headers):
                self._lease = self._open_lease(self._send, self._exchange)
            if self._exchange._timed:
                self._exchange.note_start(self._exchange._sent, headers)
            if self._exchange._counts:
                self._exchange.count_answer(self._exchange._sent)
            message = dressed
        elif same(kind, "websocket.send"):
            self._exchange.events += 1
        elif kind == "websocket.close":
            if self._exchange._sent == 0:  # not accepted: servers answer 403
                self._exchange._sent = 403
                if self._exchange._counts:
                    self._exchange.count_answer(403)
            if self._lease is not None:
                self.let_go()
        return self._send(message)

    cdef int note_part(self, object message) except -1:
        """Notes whether a part of a stream is its last, or else where it leaves the client."""
        if not message.get("more_body", False):
            return self.let_go()
        body = message.get("body")
        if type(body) is bytes and PyBytes_GET_SIZE(body) != 0:
            self._lease.between = ends_event(<bytes>body)
        return 0

    cdef int let_go(self) except -1:
        """The application ends its stream itself."""
        self._lease.ended = True
        self._lease = None
        return 0


cdef bint ends_event(bytes body) noexcept:
    """Whether an empty line is the last of a part, so that no event is cut in two behind it."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(body)
    cdef const char *text = PyBytes_AS_STRING(body)
    if n < 2 or (text[n - 1] != c"\n" and text[n - 1] != c"\r"):
        return False
    if text[n - 2] == c"\r" and text[n - 1] == c"\n":
        return n > 3 and (text[n - 3] == c"\n" or text[n - 3] == c"\r")
    return text[n - 2] == c"\n" or text[n - 2] == c"\r"


cdef SendWrapper wrap_send(object send, Exchange exchange, object open_lease):
    cdef SendWrapper made = SendWrapper.__new__(SendWrapper)
    made._open_lease = open_lease
    made._send, made._exchange, made._watched = send, exchange, len(exchange._guard.finishers) != 0
    return made


async def _finish_after(sending, exchange):
    await sending
    exchange.finish()


@cython.final
cdef class AsgiMiddleware:
    """The way of a request through the ASGI middleware, up to the awaitable that answers it.

    Args:
        app: the application.
        guard: the options, a `frontends.http.HttpGuard`.
        handshake: returns the TLS handshake of the connection at hand, or None.
        mount: the mount, where the option or the application says one.
        head_app: what runs in its place for HEAD.
        open_lease: makes the Lease of a stream that starts, of (send, exchange).
        send_response: makes the awaitable that answers for the application, of (scope, receive, send, response).
    """

    @staticmethod
    def _make(app, GuardCore guard not None, *, handshake, head_app, send_response, open_lease, str mount not None=""):
        cdef AsgiMiddleware made = AsgiMiddleware.__new__(AsgiMiddleware)
        made._open_lease = open_lease
        made._app, made._guard, made._handshake, made._send_response = app, guard, handshake, send_response
        made._head_app = head_app
        made._mount, made._routed = mount, bool(guard.routes)
        return made

    def handle(self, scope, receive, send, /):
        """(the exchange, where somebody wants to know of its end, else None; the awaitable that answers)."""
        cdef Exchange exchange
        cdef GuardCore guard = self._guard
        cdef str mount = ""
        kind = scope["type"]
        if not same(kind, "http") and not same(kind, "websocket"):
            return None, self._app(scope, receive, send)
        path, raw, root = scope["path"], scope_get(scope, "raw_path"), scope_get(scope, "root_path")
        if len(self._mount) != 0 or (type(root) is str and len(<str>root) != 0):
            mount = mounts(self._mount, root or "")
        if len(mount) != 0 or is_sent_otherwise(path, raw):
            path = asgi_target(path, raw, mount)
        mode = (<object>guard).mode(path, mount) if self._routed else "enforce"
        if same(mode, "off"):
            return None, self._app(scope, receive, send)
        client, scheme, method = scope_get(scope, "client"), scope_get(scope, "scheme"), scope_get(scope, "method")
        peer = None if client is None or len(client) == 0 else client[0]
        exchange = new_exchange(
            guard, scope["headers"], peer, method, path, mount, scope_get(scope, "http_version"),
            scheme,
            self._handshake() if same(scheme, "https") or same(scheme, "wss") else None, mode,
        )
        exchange._query = scope_get(scope, "query_string")
        response = exchange.start()
        scope["gobanfast.request_id"] = exchange.request_id
        if exchange.client is not None:
            scope["gobanfast.client"] = scope["gobanfast.origin"] = exchange.client
        if exchange.decision is not None:
            scope["gobanfast"] = exchange.decision
            scope["gobanfast.exchange"] = exchange
        watched = exchange if guard.finishers or exchange._owned or exchange._state is not None else None
        if response is not None:
            return watched, self._send_response(scope, receive, send, response)
        if exchange._edge is not None:
            headers = exchange.handed(exchange._headers)
            if headers is not None:  # others have the scope that came
                scope = dict(scope)
                scope["headers"] = headers
        app = self._head_app if same(method, "HEAD") else self._app
        if exchange._state is None:
            return watched, app(scope, receive, wrap_send(send, exchange, self._open_lease))
        exchange.enter_trace()
        try:
            return watched, app(scope, receive, wrap_send(send, exchange, self._open_lease))
        except BaseException:  # it is no coroutine function: nobody else puts back what was current
            exchange.leave()
            raise


cdef object scope_get(object scope, str key):
    """A value of a scope that may be missing: None."""
    return dict_get(<dict>scope, key) if type(scope) is dict else scope.get(key)


cdef bint is_sent_otherwise(object path, object raw) except -1:
    """Whether the path of a scope may be another text than what was sent: a decoding makes it shorter."""
    cdef const uint8_t *text
    cdef Py_ssize_t i, length
    if type(path) is not str or len(<str>path) == 0 or (<str>path)[0] != u"/":
        return True
    length = len(<str>path)
    if type(raw) is bytes:
        return PyBytes_GET_SIZE(raw) != length
    if PyUnicode_KIND(path) != PyUnicode_1BYTE_KIND:
        return True
    text = PyUnicode_1BYTE_DATA(path)
    for i in range(length):
        if text[i] == c"%" or text[i] == c"?" or text[i] == c"#":
            return True
    return False


cdef object dict_get(dict items, str key):
    cdef PyObject *value = PyDict_GetItemWithError(items, key)
    return None if value == NULL else <object>value


only_whole(SendWrapper)
only_whole(AsgiMiddleware)
