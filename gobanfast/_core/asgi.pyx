"""Compiled request path of the ASGI middleware: scope in, exchange, `send` wrapped; returns the awaitable to run."""

cimport cython
from cpython.dict cimport PyDict_Copy, PyDict_GetItemWithError, PyDict_Next
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_1BYTE_KIND, PyUnicode_KIND
from libc.stdint cimport uint8_t

from cpython.bytes cimport PyBytes_GET_SIZE

from gobanfast._core.exchange cimport Exchange, GuardCore, new_exchange, same
from gobanfast._core.made cimport only_whole
from gobanfast.wire.target import asgi_target, mounts


cdef extern from *:
    """
    #define gbf_items(tuple) (&PyTuple_GET_ITEM(tuple, 0))
    """
    PyObject **gbf_items(object tuple) noexcept

cdef enum:  # of FIELD_NAMES
    PATH
    HEADERS
    METHOD
    CLIENT
    SCHEME
    RAW
    ROOT
    HTTP
    FIELDS

cdef tuple FIELD_NAMES = ("path", "headers", "method", "client", "scheme", "raw_path", "root_path", "http_version")


@cython.final
@cython.freelist(64)
cdef class SendWrapper:
    """An ASGI `send` that puts what an exchange adds on the application's response, and notes its end."""

    @staticmethod
    def _make(send, Exchange exchange not None):
        return wrap_send(send, exchange)

    def __call__(self, message, /):
        cdef dict dressed
        kind = message["type"]
        if same(kind, "http.response.body"):
            if self._watched and not message.get("more_body", False):
                return _finish_after(self._send(message), self._exchange)
        elif same(kind, "http.response.start") or kind == "websocket.accept" or kind == "websocket.http.response.start":
            dressed = PyDict_Copy(message) if type(message) is dict else dict(message)  # it may be sent again
            headers = dict_get(dressed, "headers")
            dressed["headers"] = self._exchange.headers_for(() if headers is None else headers)
            if self._watched or self._exchange._owned:
                self._exchange._sent = 101 if kind == "websocket.accept" else message["status"]
            message = dressed
        return self._send(message)


cdef SendWrapper wrap_send(object send, Exchange exchange):
    cdef SendWrapper made = SendWrapper.__new__(SendWrapper)
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
        send_response: makes the awaitable that answers for the application, of (scope, receive, send, response).
    """

    @staticmethod
    def _make(app, GuardCore guard not None, *, handshake, send_response, str mount not None=""):
        cdef AsgiMiddleware made = AsgiMiddleware.__new__(AsgiMiddleware)
        made._app, made._guard, made._handshake, made._send_response = app, guard, handshake, send_response
        made._mount, made._routed = mount, bool(guard.routes)
        return made

    def handle(self, scope, receive, send, /):
        """(the exchange, where somebody wants to know of its end, else None; the awaitable that answers)."""
        cdef Exchange exchange
        cdef GuardCore guard = self._guard
        cdef str mount = ""
        cdef PyObject *found[FIELDS]
        kind = scope["type"]
        if not same(kind, "http") and not same(kind, "websocket"):
            return None, self._app(scope, receive, send)
        read_scope(scope, found)
        path, raw, root = scope_get(scope, found, PATH), scope_get(scope, found, RAW), scope_get(scope, found, ROOT)
        if len(self._mount) != 0 or (type(root) is str and len(<str>root) != 0):
            mount = mounts(self._mount, root or "")
        if len(mount) != 0 or is_sent_otherwise(path, raw):
            path = asgi_target(path, raw, mount)
        mode = (<object>guard).mode(path, mount) if self._routed else "enforce"
        if same(mode, "off"):
            return None, self._app(scope, receive, send)
        client, scheme = scope_get(scope, found, CLIENT), scope_get(scope, found, SCHEME)
        peer = None if client is None or len(client) == 0 else client[0]
        exchange = new_exchange(
            guard, scope_get(scope, found, HEADERS), peer, scope_get(scope, found, METHOD), path, mount,
            scope_get(scope, found, HTTP), scheme,
            self._handshake() if same(scheme, "https") or same(scheme, "wss") else None, mode,
        )
        response = exchange.start()
        scope["gobanfast.request_id"] = exchange.request_id
        if exchange.client is not None:
            scope["gobanfast.client"] = scope["gobanfast.origin"] = exchange.client
        if exchange.decision is not None:
            scope["gobanfast"] = exchange.decision
        watched = exchange if guard.finishers or exchange._owned else None
        if response is not None:
            return watched, self._send_response(scope, receive, send, response)
        return watched, self._app(scope, receive, wrap_send(send, exchange))


cdef int read_scope(object scope, PyObject **found) except -1:
    """Finds values in a scope by one walk over it: servers write its keys as literals, which are the objects that we
    have, so that a pointer says which key it is. NULL for what is not found so."""
    cdef PyObject **names = gbf_items(FIELD_NAMES)
    cdef PyObject *key
    cdef PyObject *value
    cdef Py_ssize_t at = 0
    cdef int i
    for i in range(FIELDS):
        found[i] = NULL
    if type(scope) is dict:
        while PyDict_Next(scope, &at, &key, &value):
            for i in range(FIELDS):
                if names[i] == key:
                    found[i] = value
                    break
    return 0


cdef object scope_get(object scope, PyObject **found, int which):
    """A value of a scope. Some have a default and may be missing: None."""
    if found[which] != NULL:
        return <object>found[which]
    if which == PATH or which == HEADERS:
        return scope[FIELD_NAMES[which]]
    return scope.get(FIELD_NAMES[which])


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
