"""HTTP exchange, the same for every server: header scan, client address, decision, response headers.

Over 500 lines, because the path of a request is one: parted, each half would need the fields of the other.
"""

cimport cython
from cpython.contextvars cimport PyContextVar_Reset, PyContextVar_Set, get_value
from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport newfunc
from cpython.ref cimport Py_DECREF, Py_XDECREF, PyObject
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_New
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from gobanfast._core.compiled_rules cimport BY_SESSION, OWNED, CompiledRules
from gobanfast._core.grant cimport CompiledGrant
from gobanfast._core.decision cimport Decision, Live, Request, SignalDecision, complete_hashes, is_plain_allow
from gobanfast._core.edge_headers cimport EdgeHeaders
from gobanfast._core.engine_core cimport EngineCore, EngineState, observe, start_live
from gobanfast._core.headers cimport (
    FINGERPRINT, KEPT, SHAPE, SLOTS, HeaderPlan, HeaderWalk, pick_from, scan_headers, set_authority, set_target,
    settle_picked,
)
from gobanfast._core.made cimport bare, only_whole
from gobanfast._core.client_hello cimport ClientHello
from gobanfast._core.limits cimport LimitState
from gobanfast._core.native.base cimport (
    GBF_ADMIT, GBF_BAN, GBF_CAUSE_TRACKER, GBF_OUTCOME_PASSED, GBF_OUTCOME_REFUSED, GBF_RECORDED_RATE, GBF_SHARE,
    GBF_SHARED_GRANTED, GBF_SHARED_REFUSED, GBF_SHARED_WITHHELD,
)
from gobanfast._core.native.http cimport (
    GBF_HEADERS_FINE, GBF_HEADERS_MOST, gbf_headers, gbf_headers_free, gbf_trace_headers,
    gbf_trace_start,
)
from gobanfast._core.native.state cimport gbf_bans_follow, gbf_bans_head, gbf_latency_note
from gobanfast._core.record_table cimport RecordTable
from gobanfast._core.response_headers cimport (
    in_place_of_theirs, texts_in_place_of_theirs, texts_with_ours, with_ours,
)

from gobanfast._core.trace_context cimport TraceContext

from gobanfast._core.trace_context import CURRENT

cdef extern from *:
    """
    #include <time.h>
    static inline uint64_t gbf_now_ns(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
    }
    """
    uint64_t gbf_now_ns() noexcept

cdef enum:
    PREFIX = 12
    ID = PREFIX + 1 + 16  # characters of an id
    PAIR = 144            # bytes of memory of a header besides its text: a tuple, two objects, a place in a list

cdef enum:  # of Exchange._kept
    HOST
    COOKIE
    USER_AGENT
    ACCEPT
    ORIGIN

VARY = ((), (b"Origin",), (b"Sec-Fetch-Site",), (b"Origin", b"Sec-Fetch-Site"))
"""What varies by the flags of a resource, above OWNED."""

RESTRICTIVE = ("ban", "challenge", "refuse", "withhold")
"""Actions of rules whose labels end a stream."""

REVOKED = "revoked"
"""The label that `Engine.revoke_session` puts on a session: it ends streams whatever rules say."""

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


cdef class GuardCore:
    """What every exchange reads of an HTTP frontend's options; `frontends.http.HttpGuard` is the rest of them.

    Args:
        engine: decides.
        ids: makes request ids.
        own_trust: a Trust; None: that of the rules in force.
        names: DNS names of the certificate; None: any host.
        has_observers: whether `notify` has somebody to tell.
        finishers: called with an exchange whose response is over.
        logs: which decisions a log makes lines of: "none", "some" (no plain allows) or "all".
        binds: whether a challenge is bound to the client's fingerprint.
        tells_limits: whether responses that are let in say what is left of limits.
        skips: whether nobody is to be told of plain allows.
    """

    @classmethod
    def _make(cls, engine not None, *, RequestIds ids not None, own_trust, tuple names, bint has_observers,
              tuple finishers not None, str logs not None, bint binds, bint tells_limits=False, bint skips=False):
        cdef GuardCore guard
        decide = engine.decide
        own = isinstance(engine, EngineCore) and type(engine).decide is EngineCore.decide
        guard = bare(allocate_guard, cls)
        guard.engine, guard._decide, guard._core = engine, decide, engine if own else None
        guard._ids, guard.own_trust, guard.names = ids, own_trust, names
        guard.has_observers, guard.finishers, guard._binds = has_observers, finishers, binds
        guard._tells_limits = tells_limits
        guard._logs, guard._logs_allows, guard._skips = logs != "none", logs == "all", skips
        return guard


_plan = HeaderPlan()  # of walks that no rules want


@cython.freelist(64)
cdef class Exchange:
    """One HTTP request and its response; an adapter makes one, calls `begin`, then sends a response and calls `finish`.

    The headers are walked once: what the rules ask for, the forwarded client, and what log, challenge and pages need
    come from that pass. An exchange knows no server: `frontends.asgi`, `.wsgi`, `.django`, `.aiohttp` and `.authz` are
    adapters of 20 to 40 lines, and models for others.

    Args:
        guard: the options, an HttpGuard.
        headers: pairs of bytes (name, value) in the order received, or a WSGI environ.
        peer: address of the other end of the connection; None, or text that is none, for a UNIX socket.
        method: None for a WebSocket.
        path: as it was sent: percent-encoded, without the query (`gobanfast.frontends.http.read_target`).
        mount: prefix under which clients reach the application, "" for none.
        http: "1.0", "1.1", "2" or "3"; None: not known.
        scheme: of the connection: "http", "https", "ws" or "wss".
        handshake: Handshake of the connection where TLS ends here; not used where a trusted proxy speaks.
        mode: what `guard.mode` says of the path: "enforce", or "observe": decide, and refuse nobody.
        query: as it was sent, str or bytes, where rules look for a session in it; an environ has its own.
        about: where a trusted peer asks about another request, as `frontends.authz.Asked` reads it.
    Attributes:
        decision: the Decision; None before `begin`, and where deciding failed.
        client: ClientInfo on the word of a trusted peer; None: the peer is the client.
        request_id: of the client's trusted proxy, or new; None before `begin`.
        status: of the response once it is over, 0 before.
        failed: whether deciding, or an observer, raised.
    """

    @staticmethod
    def _make(GuardCore guard not None, headers, *, peer, method, path, str mount not None="", http=None,
              scheme="http", handshake=None, mode="enforce", about=None, query=None):
        cdef Exchange made
        if not same(mode, "enforce") and not same(mode, "observe") and not same(mode, "off"):
            raise ValueError(f"mode={mode!r} is not one of enforce, observe, off")
        made = new_exchange(guard, headers, peer, method, path, mount, http, scheme, handshake, mode)
        made._about, made._query = about, query
        return made

    def __dealloc__(self):
        cdef int i
        for i in range(KEPT):
            Py_XDECREF(self._kept[i])

    def begin(self):
        """The HttpResponse to send in place of the application's, its headers complete; None: let it answer.

        Never raises but RuntimeError, for a second call: what goes wrong is logged and answered by `on_error`.
        Cost: that of a decision, and 0.1 us; tens of microseconds for a response.
        """
        return self.start()

    def response_headers(self, headers, /, *, bint text=False, int status=0):
        """A new list of the pairs of the application's response, and of those that this exchange adds.

        Args:
            text: whether pairs are str, as WSGI has them, or bytes.
            status: of the response, which starts now: how long it took is noted for the rate class. 0: not known.
        """
        made = self.texts_for(headers) if text else self.headers_for(headers)
        if status != 0 and self._timed:
            self.note_start(status, made)
        return made

    def request_headers(self, headers, /):
        """New headers for the application in place of these, the ones that the exchange was made of: without those that
        this peer may not say, with the peer in the chain (`edge_headers` of the rules). None: as they are.
        """
        return self.handed(headers)

    def failure(self):
        """The HttpResponse for an exception of the application before it answered: a bare 500, its headers complete, so
        that a page which may read answers can read this one. None for a WebSocket."""
        if self._method is None:
            return None
        self._sent = 500
        response = (<object>self._guard).failure()
        (<list?>response.headers)[:] = self.headers_for(response.headers)
        return response

    def answer(self, int status, /):
        """Says that the application's response begins, with this status: limits on answers count it. Adapters call it;
        `finish` does for those that do not."""
        if self._counts:
            self.count_answer(status)

    def count(self, str name not None, *, key, ok=None, int cost=1):
        """Where a key stands with the limit `name` of the rules, whose key is `given`: see Engine.count."""
        return self._guard.engine.count(name, key=key, ok=ok, cost=cost)

    cdef int count_answer(self, int status) except -1:
        cdef LimitState state = (<Decision>self.decision)._limit
        cdef EngineCore core = self._guard._core
        self._counts = False
        if core is None and isinstance(self._guard.engine, EngineCore):
            core = self._guard.engine
        if core is not None:
            state.limits.answered(self.decision, status, core.time_of(None) / 1000.0)
        return 0

    def finish(self, int status=0, /, *, bint aborted=False):
        """Notes that the response is over; later calls do nothing.

        Args:
            status: of the response, 500 for an exception, 101 for a WebSocket; 0: of the response that `begin` gave.
            aborted: the client went, or the server stops: what it was on says nothing of the application.
        """
        if self.status == 0:
            self.status = status or self._sent or 500
            if self._timed and status >= 500 and not aborted:  # it ended before it began
                self.note_start(self.status, ())
            if self._counts:
                self.count_answer(self.status)
            for finish in self._guard.finishers:
                try:
                    finish(self)
                except Exception as error:  # the response is over: nothing is left to refuse
                    (<object>self._guard).unfinished(self, error)

    def enter(self):
        """Makes the trace of this exchange the current one, until `leave`: what the application runs in. Nothing where
        the rules say nothing of traces."""
        self.enter_trace()

    def leave(self):
        """Puts back what was current before, unless that is over. Exchanges of one thread may end in any order: servers
        may ask several WSGI bodies for parts in turn."""
        token, self._token = self._token, None
        if token is None:
            return
        if type(self.decision) is SignalDecision:
            (<SignalDecision>self.decision)._left = True
        current = get_value(CURRENT)
        if type(current) is SignalDecision and not (<SignalDecision>current)._left:
            return  # of one that began later, which finds ours to be over
        try:
            PyContextVar_Reset(CURRENT, token)
        except ValueError:  # another context, which ends by itself
            return
        before = get_value(CURRENT)
        if type(before) is SignalDecision and (<SignalDecision>before)._left:
            PyContextVar_Set(CURRENT, None)

    def judged(self, str outcome not None, /):
        """Says what became of the request where the decision does not: "passed" or "refused". Record rules decide anew.

        Raises:
            ValueError: another outcome.
        """
        if outcome not in ("passed", "refused"):
            raise ValueError(f"outcome {outcome!r} is not one of passed, refused")
        self.judged_as(GBF_OUTCOME_PASSED if outcome == "passed" else GBF_OUTCOME_REFUSED)

    @property
    def guard(self):
        """The HttpGuard whose options these are."""
        return self._guard

    @property
    def method(self):
        """The method; GET for a WebSocket."""
        return "GET" if self._method is None else self._method

    @property
    def is_websocket(self):
        """Whether a WebSocket is to be opened."""
        return self.opens_socket()

    @property
    def is_secure(self):
        """Whether the client came over TLS: a trusted peer knows better than the connection."""
        scheme = self._scheme
        if self.client is not None and self.client.scheme is not None:
            scheme = self.client.scheme
        return scheme == "https" or scheme == "wss"

    @property
    def handshake(self):
        """The Handshake of the client's own connection, or None."""
        return self._handshake

    @property
    def host(self):
        """Text of Host; several are joined by commas, "" for none."""
        return self.text_of(HOST, "HTTP_HOST")

    @property
    def accept(self):
        """Text of Accept; several are joined by commas, "" for none."""
        return self.text_of(ACCEPT, "HTTP_ACCEPT")

    @property
    def cookies(self):
        """Text of Cookie; several are joined by semicolons, "" for none."""
        return self.text_of(COOKIE, "HTTP_COOKIE")

    @property
    def user_agent(self):
        """Text of User-Agent; "" for none."""
        return self.text_of(USER_AGENT, "HTTP_USER_AGENT")

    def retarget(self, str method, str path not None, query=None, /):
        """Says what is asked for, where only the headers do: for `about`. A method None: a WebSocket."""
        if query is not None:
            self._query = query
        self._method, self.path, self.mode = method, path, (<object>self._guard).mode(path, self.mount)

    @property
    def origin(self):
        """Text of Origin; several are joined by commas, "" for none."""
        return self.text_of(ORIGIN, "HTTP_ORIGIN")

    @property
    def answered(self):
        """Whether a response has begun, as far as an adapter says so (`begin` gave one, or a wrapped server call)."""
        return self._sent != 0

    @property
    def is_owned(self):
        """Whether share rules say who may read the answer, so that its access-control-* headers are theirs."""
        return self._owned

    def set_cookies(self, list cookies, /):
        """Set-Cookie pairs to put on the response; None: none."""
        self._cookies = cookies

    cdef object text_of(self, int which, str key):
        cdef object value
        if isinstance(self._headers, dict):
            value = (<dict>self._headers).get(key, "")
            return value if type(value) is str else str(value)
        self.look()
        if self._kept[which] == NULL:
            return ""
        value = <object>self._kept[which]
        return value.decode("latin-1")

    cdef int look(self) except -1:
        """The one walk over pairs, where nothing needed it before."""
        cdef gbf_headers scanned
        cdef HeaderWalk walk
        if self._walked:
            return 0
        memset(&walk, 0, sizeof(walk))
        try:
            self.scan(<HeaderPlan>_plan, SLOTS, &scanned, &walk)
        finally:
            if walk.kept != NULL:
                gbf_headers_free(&scanned)
        return 0

    cdef int look_again(self) except -1:
        """The same after an error; headers that cannot be walked are none from now on."""
        try:
            self.look()
        except Exception:
            self._walked = True
        return 0

    cdef object hold(self):
        """Our own tuple of the pairs, so that they stay what they are; or an environ."""
        if self._pairs is None and not isinstance(self._headers, dict):
            self._pairs = held_pairs(self._headers)
            if not isinstance(self._headers, (list, tuple)):
                self._headers = self._pairs  # an iterator is used up
        return self._headers if self._pairs is None else self._pairs

    cdef object handed(self, object headers):
        if self._edge is None:
            return None
        if self._pairs is not None and not isinstance(headers, dict):
            headers = self._pairs
        strip = self._strips and (self._edged or self.failed)
        return self._edge.handed(headers, strip, self._peer) if strip or self._edge.append else None

    cdef object start(self):
        cdef GuardCore guard = self._guard
        response = None
        if self._began:
            raise RuntimeError("an exchange begins once")
        self._began = True
        try:
            response = self.decide()
        except Exception as error:
            self.failed = True
            if self.request_id is None:
                self.request_id = guard._ids.make()
            self.look_again()
            response = (<object>guard).failed(self, error)
        if response is None or not same(self.mode, "enforce"):
            return None
        self._timed = False  # how fast we refuse is no news
        self._sent = response.status
        (<list?>response.headers)[:] = self.headers_for(response.headers)
        return response

    cdef object decide(self):
        """Decides; the response to refuse with, or None."""
        cdef GuardCore guard = self._guard
        cdef bint allowed = False
        decision = self.ask(&allowed)
        response = None
        if decision is None:
            return self._refusal
        if self._shared == GBF_SHARED_REFUSED or self._foreign_socket or (self._owned and decision.preflight):
            response = (<object>guard).share(self)
        elif not allowed:
            response = (<object>guard).respond(self)
        elif guard.has_observers and not (guard._skips and guard._core is not None and
                                          is_plain_allow(<Decision>decision)):
            (<object>guard).notify(self)
        if response is None and self._owned and self._shared == GBF_SHARED_WITHHELD and not decision.own_page:
            response = (<object>guard).withheld(self)
        if response is None and self._handshake is not None and guard.names is not None:
            response = (<object>guard).misdirected(self)
        if self._state is not None:
            self.settle()
        if isinstance(decision, Decision) and (<Decision>decision)._limit is not None:
            self.say_limits(<Decision>decision, response)
        return response

    cdef object ask(self, bint *allowed):
        """The decision, and whether it is an allow; None: there is nothing to decide."""
        cdef GuardCore guard = self._guard
        cdef EngineCore core = guard._core
        cdef EngineState state = None
        cdef bint trusted
        trust = guard.own_trust
        if core is not None:
            state = core.snapshot
            if trust is None:
                trust = state.trust
        if trust is None:
            trust = (<object>guard).trust_of(guard.engine.snapshot if state is None else state)
        if self._peer is not None and type(self._peer) is not str:
            raise TypeError(f"peer is {type(self._peer).__name__}, not an address as text")
        if not isinstance(self._headers, (list, tuple, dict)):
            self.hold()  # several read them: the engine, the decision, pages
        if begins_address(self._peer):
            trusted = self._peer in trust.peers
        else:
            self._peer = None
            trusted = trust.unix
        if trusted:
            self._handshake = None  # it would be the proxy's
        if self._about is None:
            self._edge = edge_of(state, guard)
            self._strips = self._edge is not None and self._edge.strips and not trusted
        if state is None:
            decision = self.decide_elsewhere(trust, trusted)
            allowed[0] = decision is not None and decision.action == "allow"
        else:
            decision = self.decide_here(state, trust, trusted)
            allowed[0] = decision is not None and (<Decision>decision)._action == 0
        return decision

    cdef int say_limits(self, Decision d, object response) except -1:
        """Notes what the response says of limits, and whether they wait for its status."""
        cdef LimitState state = d._limit
        cdef bint goes_on = response is None or same(self.mode, "observe")
        self._counts = state.keys != NULL and not state.over and self._about is None and goes_on
        told = self._guard._tells_limits and not state.over and state.place != 0xFFFFFFFF
        if told:
            self._cookies = (self._cookies or []) + (<object>self._guard).limit_fields(d)
        if (told or state.over) and self._fields is not None:
            self._fields = (<object>self._guard).expose_limits(self._fields)
        return 0

    cdef bint open(self, object trust, bint trusted, HeaderPlan plan, bint needed, int wanted, gbf_headers *scanned,
                   HeaderWalk *walk) except -1:
        """Walks the headers where they are `needed` before the decision, finds the client, and what it asks for.
        False: there is nothing to decide. `walk.kept` NULL afterwards: they were not walked."""
        cdef bint listed = type(self._headers) is not dict
        cdef dict picked = None
        cdef list rest = None
        cdef object names = None, hop = None
        if self._about is not None:
            if not trusted:
                self._refusal = self._about.stranger(self._peer)
                self.request_id = self._guard._ids.make()
                return False
            rest, hop, names = [], self._about.hop, self._about.names(trust)
            walk.hop, walk.rest = <PyObject *>hop, <PyObject *>rest
        if trusted:
            self.hold()  # Python code runs before the last that reads what was scanned
        if trusted and listed:
            if names is None:
                names = trust.fields
            picked = {}
            pick_from(walk, names, picked)
        elif trusted:
            self.client = trust.resolve_environ(self._peer, self._headers)
        if self._strips:
            walk.edge = <PyObject *>self._edge
        if needed or picked is not None or self._strips:
            self.scan(plan, wanted, scanned, walk)
            self._edged = walk.edged
        walk.edge = walk.names = walk.picked = walk.hop = walk.rest = NULL
        if picked is not None:
            if hop is not None:
                self._headers, self._pairs = rest, held_pairs(rest)
                self._refusal = self._about(self, picked)
            settle_picked(picked)
            self.client = trust.client_from(self._peer, picked)
        self.request_id = None if self.client is None else self.client.request_id
        if self.request_id is None:
            self.request_id = self._guard._ids.make()
        return self._refusal is None and not same(self.mode, "off")

    cdef int scan(self, HeaderPlan plan, int wanted, gbf_headers *scanned, HeaderWalk *walk) except -1:
        cdef str http = self.http
        cdef object headers = self._headers if self._pairs is None else self._pairs
        cdef int i
        if type(headers) is not list and type(headers) is not tuple and type(headers) is not dict:
            headers = self.hold()
        for i in range(KEPT if self._walked else 0):  # somebody asked before `begin`
            Py_XDECREF(self._kept[i])
            self._kept[i] = NULL
        self._walked = True
        walk.kept = self._kept
        scan_headers(headers, http, &plan._plan, scanned, wanted, walk)
        return 0

    cdef object decide_elsewhere(self, object trust, bint trusted):
        """The decision of an engine of another make, or None."""
        cdef EngineState snapshot
        cdef gbf_headers scanned
        cdef HeaderWalk walk
        memset(&walk, 0, sizeof(walk))
        try:
            if not self.open(trust, trusted, <HeaderPlan>_plan, False, SLOTS, &scanned, &walk):
                return None
        finally:
            if walk.kept != NULL:
                gbf_headers_free(&scanned)
        sni = hello = ja4 = None
        address = self._peer
        if self.client is not None:
            address, sni, ja4 = self.client.address, self.client.signals.get("sni"), self.client.signals.get("ja4")
        elif self._handshake is not None:
            hello = self._handshake.hello
            sni = self._handshake.sni if hello is None else None
        more = {"mount": self.mount} if self.mount else {}
        if isinstance(self._guard.engine, EngineCore) and has_shares((<EngineCore>self._guard.engine).snapshot):
            more["scheme"], more["host"] = self._scheme, None  # it is ours, behind a `decide` that adds to it
            if self.client is not None:
                more["scheme"], more["host"] = self.client.scheme or self._scheme, self.client.host
        decision = self.decision = self._guard._decide(
            address, sni=sni, hello=hello, ja4=ja4, headers=self._headers, method=self.method, path=self.path,
            http=self.http, **more,
        )
        if type(decision) is SignalDecision and same(self.mode, "enforce"):
            self.share_out(<SignalDecision>decision)
        if type(decision) is SignalDecision and isinstance(self._guard.engine, EngineCore):
            snapshot = (<EngineCore>self._guard.engine).snapshot
            if (<SignalDecision>decision)._compiled is snapshot.compiled and snapshot.compiled.records is not None:
                self._state = snapshot
        return decision

    cdef Decision decide_here(self, EngineState state, object trust, bint trusted):
        """The decision of our engine, or None."""
        cdef GuardCore guard = self._guard
        cdef EngineCore core = guard._core
        cdef HeaderPlan plan = state.compiled.plan
        cdef gbf_headers scanned
        cdef HeaderWalk walk
        cdef PyObject *held[2 * GBF_HEADERS_MOST]
        cdef Request request
        cdef Live live
        cdef Decision d
        cdef ClientHello hello = None
        cdef str address, sni = None, ja4 = None, method, path, mount, http = self.http, scheme = self._scheme
        cdef str host = None
        cdef bint needed, shares = has_shares(state)
        cdef RecordTable records = state.compiled.records
        cdef gbf_trace_headers trace
        cdef Py_ssize_t i
        memset(&walk, 0, sizeof(walk))
        request.trace, request.trust, request.inside = NULL, <PyObject *>trust, False
        if records is not None:
            gbf_trace_start(&trace)
            walk.trace = &trace
            if state.classes != NULL:
                self._began_at = gbf_now_ns()
        walk.shaped = guard._logs
        if guard._logs or guard._binds or core.candidate is not None:
            walk.held = held
        start_live(&live, state, None, None)
        if trusted:
            live.uid_slot = state.uid_slot
        request.live = NULL
        request.wanted = state.wanted(True)
        if guard._logs and request.wanted == FINGERPRINT:
            request.wanted = SHAPE  # a line has both
        if walk.held != NULL and (request.wanted == SLOTS or core.candidate is not None):
            self.hold()
        try:
            needed = (request.wanted != SLOTS or state.asks_who or state.compiled.requests is not None or
                      (records is not None and (guard._logs or guard._binds)))  # they read all headers, later
            if not self.open(trust, trusted, plan, needed, request.wanted, &scanned, &walk):
                return None
            live.query = <PyObject *>self._query
            address, path, mount = self._peer, self.path, self.mount
            method = "GET" if self._method is None else self._method
            if len(path) == 0:
                path = mount
            if self.client is not None:
                address = self.client.address
                signals = self.client.signals
                host = self.client.host
                if self.client.scheme is not None:
                    scheme = self.client.scheme
                if signals:
                    sni, ja4 = signals.get("sni"), signals.get("ja4")
            elif self._handshake is not None:
                hello = self._handshake.hello
                if hello is None:
                    sni = self._handshake.sni
            request.sni, request.tls = <PyObject *>sni, <PyObject *>ja4 if hello is None else <PyObject *>hello
            request.headers, request.method = <PyObject *>self._headers, <PyObject *>method
            request.path, request.http, request.mount = <PyObject *>path, <PyObject *>http, <PyObject *>mount
            request.scheme, request.host = <PyObject *>scheme, <PyObject *>host
            request.scanned = NULL
            if walk.kept != NULL:
                set_authority(scheme, host, &scanned)
                set_target(method, path, mount, &scanned)
                request.scanned = &scanned
                request.trace = walk.trace
            if core.candidate is not None and not self._peeks:
                observe(core.candidate, address, sni, hello, ja4, self._headers, method, path, http, mount, scheme,
                        host)
            request.peer = <PyObject *>self._peer
            request.inside = self.client is not None and self.client.status == "trusted"
            d = core.decide_request(state, address, &request, &live, None, self._peeks)
            self.decision = d
            if records is not None:
                self._state = state
            if shares and same(self.mode, "enforce"):
                self.share_out(<SignalDecision>d)
            if (guard._logs or (guard._binds and d._action != 0)) and not self._peeks:
                self.outlive(<SignalDecision>d, &scanned, &walk)
            return d
        finally:
            if walk.kept != NULL:
                gbf_headers_free(&scanned)
            for i in range(walk.held_count):
                Py_DECREF(<object>held[i])

    cdef int outlive(self, SignalDecision d, gbf_headers *scanned, HeaderWalk *walk) except -1:
        """Works out and keeps what log and challenge will ask for, while what was scanned is there."""
        cdef bint line = self._guard._logs and (self._guard._logs_allows or not is_plain_allow(d))
        cdef Py_ssize_t i, count
        cdef dict kept
        if not line and (d._action == 0 or not self._guard._binds):
            return 0
        if walk.kept == NULL:
            self.scan(d._compiled.plan, SLOTS, scanned, walk)
        complete_hashes(d, scanned)
        if not line:
            return 0
        self.hold()
        if self._pairs is not None:
            d._kept, count = self._pairs, len(<tuple>self._pairs)
        else:
            kept, count = {}, walk.held_count // 2
            for i in range(count):
                value = <object>walk.held[2 * i + 1]
                kept[<object>walk.held[2 * i]] = value if type(value) is str else str(value)
            d._kept = kept
        if scanned.problem == GBF_HEADERS_FINE:
            d._kept_bytes = scanned.tally.nbytes + PAIR * count
        return 0

    cdef list headers_for(self, object headers):
        """A list of these pairs of bytes and of ours."""
        cdef Py_ssize_t foreign = 0
        if self.request_id is None:
            raise RuntimeError("an exchange that has not begun has no response headers")
        if not self._owned:
            return with_ours(headers, self.request_id, self._cookies)
        made = in_place_of_theirs(headers, self.request_id, self._cookies, self._varies, self._fields, &foreign)
        if foreign:
            self.count_foreign(foreign)
        return made

    cdef list texts_for(self, object headers):
        """The same for pairs of str."""
        cdef Py_ssize_t foreign = 0
        if self.request_id is None:
            raise RuntimeError("an exchange that has not begun has no response headers")
        if not self._owned:
            return texts_with_ours(headers, self.request_id, self._cookies)
        made = texts_in_place_of_theirs(headers, self.request_id, self._cookies, self._varies, self._fields, &foreign)
        if foreign:
            self.count_foreign(foreign)
        return made

    cdef bint lease(self, int status, object headers) except -1:
        """Takes a lease on a response that starts now, where it is a stream or a WebSocket. True: it has one."""
        cdef GuardCore guard = self._guard
        cdef EngineState state
        cdef bint stream = status == 101
        if guard._core is None or self._about is not None or self.decision is None or not same(self.mode, "enforce"):
            return False
        for pair in headers if not stream else ():
            name = pair[0]
            if len(name) == 12 and is_event_stream(name, pair[1]):
                stream = True
        if not stream:
            return False
        state = guard._core.snapshot
        self._seen = gbf_bans_follow(state.bans._bans)
        self._seen_state = None  # what changed since the decision is asked for with the first event
        self.hold()
        self._leased = True
        return True

    cdef bint holds_on(self) except -1:
        """Whether the lease holds. One comparison, while nothing has changed."""
        cdef EngineCore core = self._guard._core
        cdef EngineState state = core.snapshot
        cdef uint64_t head = gbf_bans_head(state.bans._bans)
        cdef bint allowed
        cdef Exchange again
        if not self._leased or (head == self._seen and state is self._seen_state):
            return self.lost is None
        if self.lost is not None:
            return False
        self._seen, self._seen_state = head, state
        again = new_exchange(self._guard, self._headers if self._pairs is None else self._pairs, self._peer,
                             self._method, self.path, self.mount, self.http, self._scheme, self._handshake, self.mode)
        again._peeks, again._query = True, self._query
        try:
            again.ask(&allowed)
            self.lost = self.loses_to(again)
        except Exception as error:
            self.lost = (<object>self._guard).undecided(self, error)
        if self.lost is not None:
            (<object>self._guard).lease_lost(self)
        return self.lost is None

    cdef str loses_to(self, Exchange again):
        """Why a stream ends by what its request would be told now. Trackers, limits, score and challenges end none."""
        cdef Decision d = again.decision
        if d is None:
            return None
        if d._action == GBF_BAN and d._cause != GBF_CAUSE_TRACKER:
            return "banned"
        if again._shared == GBF_SHARED_REFUSED or again._foreign_socket:
            return "refused"
        if self._shared == GBF_SHARED_GRANTED and again._shared != GBF_SHARED_GRANTED:
            return "withheld"
        carried = (<Decision>self.decision).labels
        for word in d.labels:
            if word not in carried and (word == REVOKED or is_restrictive(d._compiled, word)):
                return "labelled"
        return None

    @property
    def leased(self):
        """Whether the response is a stream or a WebSocket that ends when it would not be let in any more."""
        return self._leased

    def holds(self):
        """Whether the lease holds; False from the event on that would not be sent any more. True without one.

        Cost: one comparison while bans, labels and rules are what they were; else that of a decision.
        """
        return self.holds_on()

    cdef int judged_as(self, int outcome) except -1:
        cdef SignalDecision d
        if self._state is not None:
            d = <SignalDecision>self.decision
            if d._record.outcome != outcome:
                (<EngineCore>self._guard.engine).record_again(self._state, d, outcome)
        return 0

    cdef int settle(self) except -1:
        """What follows from the record rule that decided, once it is known what became of the request."""
        cdef SignalDecision d = <SignalDecision>self.decision
        cdef RecordTable records = self._state.compiled.records
        cdef TraceContext context
        if d._record.kind == GBF_RECORDED_RATE and not self._guard._controls:
            self._guard._controls = True
            (<object>self._guard).control_rates()
        if d._record.kind == GBF_RECORDED_RATE and self._method is not None:
            self._timed, self._class = True, self._state.classes[d._record.rule - d._compiled._rules.ends[GBF_SHARE]]
        if records.traceresponse or records.server_timing:
            context = d.trace
            if context is not None:
                text = context.traceparent.encode()
                pairs = [] if self._cookies is None else self._cookies
                if records.traceresponse:
                    pairs = [*pairs, (b"traceresponse", text)]
                if records.server_timing:
                    pairs = [*pairs, (b"server-timing", b'traceparent;desc="' + text + b'"')]
                self._cookies = pairs
        return 0

    cdef int enter_trace(self) except -1:
        if self._state is not None and self._token is None:
            current = self.decision if self._guard.tracer is None else self._guard.tracer(self.decision)
            self._token = PyContextVar_Set(CURRENT, current)
        return 0

    cdef int note_start(self, int status, object headers) except -1:
        """Notes that the response starts, for the rate class; streams are not timed."""
        cdef SignalDecision d = <SignalDecision>self.decision
        self._timed = False
        for pair in headers:
            name = pair[0]
            if len(name) == 12 and is_event_stream(name, pair[1]):
                return 0
        gbf_latency_note(self._state.rates.classes, self._class, gbf_now_ns() - self._began_at, status >= 500,
                         d._record.root)
        return 0

    cdef int count_foreign(self, Py_ssize_t foreign) except -1:
        """Counts header lines of the application that were replaced; the guard tells the log of the first."""
        cdef bint first = self._guard.foreign_headers == 0
        self._guard.foreign_headers += foreign
        if first:
            (<object>self._guard).tell_foreign(self.path)
        return 0

    cdef int share_out(self, SignalDecision d) except -1:
        """Takes what the decision shares, to put it on the response."""
        cdef CompiledRules compiled = d._compiled
        cdef int flags = d.resource_flags()
        cdef uint32_t rule
        cdef CompiledGrant grant
        cdef bint credentials = False
        self._shared = d.shared()
        self._owned = flags & OWNED
        self._varies = VARY[flags >> 1 & 3]
        if flags & BY_SESSION and flags & OWNED:
            self._varies = self._varies + compiled.live._varies
        if d._preflight:
            self._fields = <tuple>d._answer if self._shared == GBF_SHARED_GRANTED and d._action == 0 else None
            return 0
        if self._shared == GBF_SHARED_GRANTED:
            rule = d.share_rule_index() - compiled._rules.ends[GBF_ADMIT]
            grant = <CompiledGrant>(<tuple>compiled.grants)[rule]
            credentials = grant.credentials
            self._fields = grant.response(None if grant.any_origin else self.origin_bytes())
        if self._owned and not credentials and not d._own_page and self.opens_socket():
            # A handshake always carries cookies, and the browser checks nothing. Of headers that cannot be read the
            # decision knows no Origin: whether there is one is all that counts here.
            self._foreign_socket = d._from_page or len(self.text_of(ORIGIN, "HTTP_ORIGIN")) != 0
        return 0

    cdef bint opens_socket(self) except -1:
        """Whether it is a handshake; WSGI shows one as a GET with Upgrade."""
        if self._method is None:
            return True
        if type(self._headers) is not dict or not same(self._method, "GET"):
            return False
        upgrade = (<dict>self._headers).get("HTTP_UPGRADE")
        return type(upgrade) is str and names_websocket(<str>upgrade)

    cdef bytes origin_bytes(self):
        """The Origin as it came."""
        if isinstance(self._headers, dict):
            return self._headers.get("HTTP_ORIGIN", "").encode("latin-1").strip(b" \t")
        self.look()
        return b"" if self._kept[ORIGIN] == NULL else bytes(<object>self._kept[ORIGIN]).strip(b" \t")


cdef bint is_restrictive(CompiledRules compiled, str word) except -1:
    """Whether a rule that keeps somebody out, or an answer back, asks for a label."""
    for rule in compiled.rules:
        if rule.mode == "enforce" and rule.action in RESTRICTIVE and rule.when.label and word in rule.when.label:
            return True
    return False


cdef Exchange new_exchange(GuardCore guard, object headers, object peer, object method, object path, object mount,
                           object http, object scheme, object handshake, object mode):
    cdef Exchange made = Exchange.__new__(Exchange)
    if isinstance(headers, dict) and type(headers) is not dict:
        headers = dict(headers)
    made._guard, made._headers, made._peer, made._method = guard, headers, peer, method
    made.path, made.mount, made.http, made._scheme = path, mount, http, scheme
    if type(peer) is not str and isinstance(peer, str):
        made._peer = str.__str__(peer)  # as text it is an address like any other
    made._handshake, made.mode = handshake, mode
    return made


def names_websocket(str upgrade not None, /):
    """Whether a header Upgrade names the protocol."""
    return "websocket" in [name.strip(" \t").lower() for name in upgrade.split(",")]


cdef EdgeHeaders edge_of(EngineState state, GuardCore guard):
    """What the rules in force say of edge headers; None: nothing."""
    if state is None:
        snapshot = getattr(guard.engine, "snapshot", None)
        return (<EngineState>snapshot).edge if isinstance(snapshot, EngineState) else None
    return state.edge


cdef bint has_shares(EngineState state) noexcept:
    """Whether rules say who may read answers."""
    return state.compiled._rules.ends[GBF_SHARE] != state.compiled._rules.ends[GBF_ADMIT]


cdef tuple held_pairs(object headers):
    """The pairs as tuples in a tuple."""
    cdef tuple made = tuple(headers)
    for pair in made:
        if type(pair) is not tuple:
            return tuple([tuple(pair) if type(pair) is list else pair for pair in made])
    return made


cdef bint same(object text, str known) except -1:
    return text is known or (type(text) is str and len(<str>text) == len(known) and <str>text == known)


cdef bint is_event_stream(object name, object value) except -1:
    """Whether a header of a response, a pair of str or of bytes, says that it is an event stream."""
    cdef const uint8_t *text
    if len(value) < 17:
        return False
    if type(value) is bytes:  # most other types differ at their first or sixth letter
        text = <const uint8_t *><const char *><bytes>value
        if text[0] != c" " and text[0] != c"\t" and (text[0] | 0x20 != c"t" or text[5] | 0x20 != c"e"):
            return False
    if isinstance(name, str):
        return name.lower() == "content-type" and value.partition(";")[0].strip(" \t").lower() == "text/event-stream"
    return (bytes(name).lower() == b"content-type" and
            bytes(value).partition(b";")[0].strip(b" \t").lower() == b"text/event-stream")


cdef bint begins_address(object peer) noexcept:
    """Whether a peer is an address, by its first character: servers put names of sockets and test clients there."""
    return type(peer) is str and len(<str>peer) != 0 and (<str>peer)[0] in u"0123456789abcdefABCDEF:"


def select_headers(headers, dict names not None, /):
    """name -> text of those headers that `names` (bytes -> name) lists; repeated ones joined by commas, in order."""
    cdef dict found = {}
    cdef PyObject *name
    for raw, value in headers:
        name = PyDict_GetItemWithError(names, raw)
        if name == NULL:
            continue
        text = (<bytes?>value).decode("latin-1")
        if <object>name not in found:
            found[<object>name] = text
        elif type(found[<object>name]) is list:
            (<list>found[<object>name]).append(text)
        else:
            found[<object>name] = [found[<object>name], text]
    settle_picked(found)
    return found


only_whole(RequestIds)
only_whole(Exchange)
cdef newfunc allocate_guard = only_whole(GuardCore)
