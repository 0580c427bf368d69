"""What every HTTP request pays for: its way through the ASGI middleware, its id, and a look for some headers."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_GetItemWithError
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_1BYTE_KIND, PyUnicode_KIND, PyUnicode_New
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

from gobanfast._core.decision cimport Decision, SignalDecision
from gobanfast._core.made cimport only_whole
from gobanfast._core.client_hello cimport ClientHello
from gobanfast.wire.target import asgi_target, mounts

cdef extern from *:
    """
    /* Adds; the value before. */
    #define gbf_size_add(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
    """
    size_t gbf_size_add(size_t *used, size_t n) noexcept

cdef enum:
    PREFIX = 12
    ID = PREFIX + 1 + 16  # characters of an id

cdef const char *HEX = "0123456789abcdef"
cdef uint64_t STEP = 0x9E3779B97F4A7C15  # odd, so that all 2^64 numbers come before one comes again


@cython.final
cdef class RequestIds:
    """Request ids of one process: `seed` (14 bytes) makes them differ from those of others."""

    @staticmethod
    def _make(bytes seed not None):
        cdef RequestIds ids = RequestIds.__new__(RequestIds)
        ids.renew(seed)
        return ids

    def renew(self, bytes seed not None, /):
        """Starts anew, in a child of fork."""
        if len(seed) != 14:
            raise ValueError(f"a seed has 14 bytes, not {len(seed)}")
        text = seed[:6].hex().encode()
        memcpy(self._prefix, <const char *>text, PREFIX)
        memcpy(&self._next, <const char *>seed + 6, 8)

    def mint(self):
        """An id that no other request has."""
        return self.make()

    cdef str make(self):
        cdef uint64_t number = self._next
        cdef str made = PyUnicode_New(ID, 127)
        cdef uint8_t *out = <uint8_t *>PyUnicode_1BYTE_DATA(made)
        cdef int i
        self._next = number + STEP
        memcpy(out, self._prefix, PREFIX)
        out[PREFIX] = c"-"
        for i in range(ID - 1, PREFIX, -1):
            out[i] = HEX[number & 15]
            number >>= 4
        return made


@cython.final
@cython.freelist(64)
cdef class MarkedSend:
    """An ASGI `send` that puts `x-request-id`, and the pairs of `extra`, on the response of the application."""

    @staticmethod
    def _make(send, str request_id not None, list extra=None):
        return marked_send(send, request_id, extra)

    def __call__(self, message, /):
        kind = message["type"]
        if not same(kind, "http.response.body") and (
            same(kind, "http.response.start") or kind == "websocket.accept" or kind == "websocket.http.response.start"
        ):
            marked = PyDict_Copy(message) if type(message) is dict else dict(message)  # it may be sent again
            marked["headers"] = self.mark(list(message.get("headers", ())))
            message = marked
        return self._send(message)

    cdef list mark(self, list headers):
        for pair in headers:
            if is_request_id(pair[0]):  # the application has said one
                break
        else:
            headers.append((b"x-request-id", self._request_id.encode()))
        if self._extra:
            headers += self._extra
        return headers


cdef MarkedSend marked_send(object send, str request_id, list extra):
    cdef MarkedSend made = MarkedSend.__new__(MarkedSend)
    made._send, made._request_id, made._extra = send, request_id, extra
    return made


cdef bint same(object text, str known) except -1:
    """Whether a text equals a known one; servers and applications write those as literals, and then they are the same
    object."""
    return text is known or (type(text) is str and len(<str>text) == len(known) and <str>text == known)


cdef bint is_request_id(object name) noexcept:
    return (type(name) is bytes and PyBytes_GET_SIZE(name) == 12 and
            memcmp(PyBytes_AS_STRING(name), b"x-request-id", 12) == 0)


@cython.final
cdef class AsgiGate:
    """The way of a request through the ASGI middleware, up to the awaitable that answers it.

    Args:
        app: the application.
        gate: the options, a `frontends.gate.Gate`.
        ids: makes request ids.
        handshake: what tells the TLS handshake of the connection at hand, or None.
        mount: the mount, where the option or the application says one.
        refuse: makes the awaitable that answers for the application, of (scope, receive, send, answer).
    """

    @staticmethod
    def _make(app, gate, *, RequestIds ids not None, handshake, refuse, str mount not None=""):
        cdef AsgiGate made = AsgiGate.__new__(AsgiGate)
        made._app, made._gate, made._ids, made._handshake, made._refuse = app, gate, ids, handshake, refuse
        made._engine, made._decide, made._trust = gate.engine, gate.engine.decide, gate.own_trust
        made._mount = mount
        made._routed, made._told = bool(gate.routes), gate.told
        return made

    def enter(self, scope, receive, send, /):
        """The awaitable that answers for the application, or that of the application."""
        cdef str mount = ""
        kind = scope["type"]
        if not same(kind, "http") and not same(kind, "websocket"):
            return self._app(scope, receive, send)
        gate = self._gate
        path, raw, root = scope["path"], found(scope, "raw_path"), found(scope, "root_path")
        if len(self._mount) != 0 or (type(root) is str and len(<str>root) != 0):
            mount = mounts(self._mount, root or "")
        if len(mount) != 0 or is_sent_otherwise(path, raw):
            path = asgi_target(path, raw, mount)
        mode = gate.mode(path, mount) if self._routed else "enforce"
        if mode == "off":
            return self._app(scope, receive, send)
        trust = self._trust
        if trust is None:
            trust = self._engine.snapshot.trust
            if trust is None:
                trust = gate.trust
        client, headers, method = found(scope, "client"), scope["headers"], found(scope, "method")
        peer = client[0] if client else None
        if begins_address(peer):
            believed = peer in trust.peers
        else:
            peer, believed = None, trust.unix
        handshake = hello = sni = ja4 = request_id = origin = answer = extra = None
        address = peer
        if believed:
            origin = scope["gobanfast.origin"] = trust.resolve(peer, headers)
            address, request_id, signals = origin.address, origin.request_id, origin.signals
            sni, ja4 = signals.get("sni"), signals.get("ja4")
        elif is_secure(found(scope, "scheme")):
            handshake = self._handshake()  # of this connection: where a proxy believed spoke, it would be the proxy's
            if handshake is not None:
                hello = handshake.hello
                if hello is None:
                    sni = handshake.sni
        if request_id is None:
            request_id = self._ids.make()
        scope["gobanfast.request_id"] = request_id
        try:
            asked = "GET" if method is None else method
            if len(mount) != 0:
                decision = self._decide(
                    address, sni=sni, hello=hello, ja4=ja4, headers=headers, method=asked, path=path,
                    http=found(scope, "http_version"), mount=mount,
                )
            else:
                decision = self._decide(
                    address, sni=sni, hello=hello, ja4=ja4, headers=headers, method=asked, path=path,
                    http=found(scope, "http_version"),
                )
            scope["gobanfast"] = decision
            if same(decision.action, "allow"):
                if self._told:
                    gate.tell(decision, request_id)
            else:
                scheme = None if origin is None else origin.scheme
                answer, extra = gate.settle(
                    decision,
                    request_id=request_id,
                    method=method,
                    secure=is_secure(found(scope, "scheme") if scheme is None else scheme),
                    accept=joined(headers, b"accept", ","),
                    cookies=joined(headers, b"cookie", "; "),
                    mode=mode,
                )
            if answer is None and handshake is not None and gate.names is not None:
                answer = gate.misdirected(
                    handshake, joined(headers, b"host", ","), request_id, joined(headers, b"accept", ",")
                )
        except Exception as error:
            answer = gate.failed(error, request_id, joined(headers, b"accept", ","))
        if answer is not None and same(mode, "enforce"):
            return self._refuse(scope, receive, send, answer)
        return self._app(scope, receive, marked_send(send, request_id, extra))


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


cdef object found(object scope, str key):
    """`scope.get(key)`: servers may leave out what has a default."""
    cdef PyObject *value
    if type(scope) is not dict:
        return scope.get(key)
    value = PyDict_GetItemWithError(scope, key)
    return None if value == NULL else <object>value


cdef bint begins_address(object peer) noexcept:
    """Whether a peer is an address, by its first character: servers put names of sockets and test clients there."""
    return type(peer) is str and len(<str>peer) != 0 and (<str>peer)[0] in u"0123456789abcdefABCDEF:"


cdef bint is_secure(object scheme) except -1:
    return same(scheme, "https") or same(scheme, "wss")


cdef str joined(object headers, bytes wanted, str separator):
    """Values of one request header as one text."""
    return separator.join([value.decode("latin-1") for name, value in headers if name == wanted])


def pick(headers, dict names not None, /):
    """name -> text of those headers that `names` (bytes -> name) lists; repeated ones joined by commas, in order."""
    cdef dict found = {}
    cdef dict repeated = None
    cdef PyObject *name
    for raw, value in headers:
        name = PyDict_GetItemWithError(names, raw)
        if name == NULL:
            continue
        text = (<bytes?>value).decode("latin-1")
        if <object>name not in found:
            found[<object>name] = text
            continue
        if repeated is None:
            repeated = {}
        repeated.setdefault(<object>name, [found[<object>name]]).append(text)
    if repeated is not None:
        for key, values in repeated.items():
            found[key] = ",".join(values)
    return found


cdef enum:
    PAIR = 144   # bytes that a header takes besides its text: a tuple, two objects, a place in a list
    ENTRY = 768  # and a decision in the queue of the log


@cython.final
cdef class Budget:
    """Bytes that the entries of a queue may keep alive. Any number of threads take and give back."""

    @staticmethod
    def _make(size_t limit):
        cdef Budget made = Budget.__new__(Budget)
        made.limit, made._used = limit, 0
        return made

    @property
    def used(self):
        """Bytes taken and not given back."""
        return gbf_size_add(&self._used, 0)

    def take(self, size_t n, /):
        """True if `n` bytes are left, which are taken then."""
        if gbf_size_add(&self._used, n) + n <= self.limit:
            return True
        gbf_size_add(&self._used, <size_t>0 - n)
        return False

    def hold(self, Decision decision not None, str request_id, Py_ssize_t most, /):
        """Bytes that a queued decision keeps alive, which are taken then; 0 when they are not left. Over `most` nothing
        is taken."""
        cdef Py_ssize_t n = weigh_decision(decision, request_id, most)
        if n > most:
            return n
        if gbf_size_add(&self._used, n) + n <= self.limit:
            return n
        gbf_size_add(&self._used, <size_t>0 - n)
        return 0

    def give(self, size_t n, /):
        """Gives `n` taken bytes back."""
        gbf_size_add(&self._used, <size_t>0 - n)


def weigh(headers, texts, Py_ssize_t limit, /):
    """About how many bytes of memory a queued decision keeps alive; counted no further than to `limit`.

    Args:
        headers: (name, value) pairs of bytes, or None.
        texts: str or bytes besides them; None counts nothing.
    """
    cdef Py_ssize_t found = ENTRY
    for text in texts:
        found += length_of(text)
    return weigh_pairs(headers, found, limit)


cdef Py_ssize_t weigh_decision(Decision decision, str request_id, Py_ssize_t limit) except -1:
    """The same of a decision and the request that it keeps."""
    cdef Py_ssize_t found = ENTRY + length_of(decision.address) + length_of(request_id)
    cdef SignalDecision wide
    if type(decision) is not SignalDecision:
        return found
    wide = <SignalDecision>decision
    found += length_of(wide._sni) + length_of(wide._path) + length_of(wide._mount) + length_of(wide._method)
    if type(wide._tls) is ClientHello:
        found += length_of(wide._tls.message)
    return weigh_pairs(wide._headers, found, limit)


def numbered(str prefix not None, uint64_t number, /):
    """An ASCII prefix, and a number in hex digits."""
    cdef Py_ssize_t n = len(prefix), digits = 1
    cdef str made
    cdef uint8_t *out
    while digits < 16 and number >> 4 * digits:
        digits += 1
    made = PyUnicode_New(n + digits, 127)
    out = <uint8_t *>PyUnicode_1BYTE_DATA(made)
    memcpy(out, PyUnicode_1BYTE_DATA(prefix), n)
    while digits:
        digits -= 1
        out[n + digits] = HEX[number & 15]
        number >>= 4
    return made


cdef Py_ssize_t weigh_pairs(object headers, Py_ssize_t found, Py_ssize_t limit) except -1:
    """`found`, and what pairs or a dict of headers weigh; counted no further than to `limit`."""
    if headers is None:
        return found
    if type(headers) is dict:
        for name, value in (<dict>headers).items():
            found += PAIR + length_of(name) + length_of(value)
        return found
    for pair in headers:
        if found > limit:
            break
        if type(pair) is tuple and len(<tuple>pair) == 2:
            found += PAIR + length_of((<tuple>pair)[0]) + length_of((<tuple>pair)[1])
        else:
            found += PAIR + len(pair[0]) + len(pair[1])
    return found


cdef inline Py_ssize_t length_of(object text) except -1:
    """Length of a str or bytes; None has none."""
    if text is None:
        return 0
    if type(text) is bytes:
        return PyBytes_GET_SIZE(text)
    return len(<str>text) if type(text) is str else len(text)


only_whole(Budget)
only_whole(RequestIds)
only_whole(MarkedSend)
only_whole(AsgiGate)
