"""Decision: outcome of one request, lazily evaluated from compiled rules. Long, as one object answers all effects."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_1BYTE_KIND, PyUnicode_KIND
from cpython.ref cimport PyObject
from libc.math cimport NAN
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from gobanfast._core.ban_table cimport BanTable, key_text, uid_of
from gobanfast._core.headers cimport (
    FINGERPRINT, SHAPE, SLOTS, HeaderWalk, scan_headers, scan_traces, set_authority, set_target,
    slot_bytes,
)
from gobanfast._core.live_table cimport LiveTable
from gobanfast._core.made cimport only_whole
from gobanfast._core.request_table cimport RequestTable
from gobanfast._core.grant cimport CompiledGrant
from gobanfast._core.record_table cimport RecordTable, came_with, goes_on, read_baggage, read_record
from gobanfast._core.compiled_rules cimport ANYBODY, BY_SESSION, OWNED, CompiledRules
from gobanfast._core.session_reader cimport (
    SESSION_ABSENT, SESSION_MALFORMED, SESSION_PRESENT, SESSION_UNKNOWN, Session, SessionReader,
)
from gobanfast._core.connection_table cimport ConnectionTable
from gobanfast._core.client_hello cimport ClientHello
from gobanfast._core.native.base cimport (
    GBF_NONE, GBF_CAUSE_BAN, GBF_CAUSE_NONE, GBF_CAUSE_OUTAGE, GBF_CAUSE_RULE, GBF_CAUSE_SCORE, GBF_CAUSE_TRACKER,
    GBF_CAUSE_UNPARSABLE, GBF_ADMIT, GBF_ALLOW, GBF_BAN, GBF_LIMIT, GBF_OK, GBF_OUTCOME_ADMITTED, GBF_OUTCOME_BANNED,
    GBF_OUTCOME_CHALLENGED, GBF_OUTCOME_LIMITED, GBF_OUTCOME_REFUSED, GBF_OUTCOME_WITHHELD, GBF_RECORD, GBF_RESOURCE,
    GBF_SHARE, GBF_SHARED_GRANTED, GBF_SHARED_NONE, GBF_SHARED_REFUSED, GBF_SHARED_WITHHELD, GBF_STRANGER_CONTINUE,
    GBF_STRANGER_LINK, GBF_TRACE_NOTHING, GBF_UNPARSABLE_ADDRESS, GBF_UNPARSABLE_NONE, GBF_UNPARSABLE_SESSION,
)
from gobanfast._core.native.http cimport (
    GBF_HEADER_NO_SLOT,
    GBF_HEADERS_BAD_METHOD, GBF_HEADERS_FINE, GBF_HEADERS_SHAPED, GBF_HEADERS_UNKNOWN,
    GBF_HEADER_METHOD, GBF_HEADER_ORIGIN, GBF_HEADER_REQUEST_HEADERS, GBF_HEADER_REQUEST_METHOD, gbf_header_is_method,
    gbf_header_tally, gbf_header_own_page, gbf_header_text, gbf_headers, gbf_headers_free, gbf_headers_fingerprint,
    GBF_SESSION_VALUES, gbf_trace_headers, gbf_trace_start,
)
from gobanfast._core.native.rules cimport (
    GBF_CLASS_ABSENT, GBF_CLASS_MALFORMED, gbf_bits_and, gbf_rules, gbf_rules_first, gbf_rules_next, gbf_rules_vector,
)
from gobanfast._core.native.state cimport (
    GBF_BANS_SESSION, GBF_SAMPLING_UNKNOWN, gbf_ban, gbf_ban_who, gbf_labels_find, gbf_labels_of, gbf_labels_present,
    gbf_record_start, gbf_sampling_probability,
)

from gobanfast._core import enums
from gobanfast._core.session_reader import STATES as SESSION_STATES

cdef tuple ACTIONS = enums.ACTIONS, CAUSES = enums.CAUSES, TRIPS = enums.TRIPS
cdef tuple STATES = SESSION_STATES
cdef tuple SHARED = enums.SHARED, OUTCOMES = enums.OUTCOMES
cdef tuple VARIES = ((), ("Origin",), ("Sec-Fetch-Site",), ("Origin", "Sec-Fetch-Site"))  # by flags of a resource
cdef tuple REASONS = tuple([f"malformed-{signal}" if signal else None for signal in enums.UNPARSABLE])


@cython.final
@cython.freelist(32)
@cython.no_gc
cdef class StoredBan:
    """A ban as it stood when it decided, or was made; its key and times become Python objects when asked."""

    _make = "a StoredBan comes from a decision"

    cdef object whole(self):
        return self.table.ban_of(&self.ban)


cdef StoredBan stored_ban(BanTable table, const gbf_ban *ban):
    cdef StoredBan stored = StoredBan.__new__(StoredBan)
    stored.table, stored.ban = table, ban[0]
    stored.reason, stored.rule = table._texts[ban.reason], table._texts[ban.rule]  # now: the numbers may be given away
    return stored


cdef int start_request(Request *request) noexcept:
    cdef PyObject *none = <PyObject *>None
    request.sni = request.tls = request.headers = request.method = request.path = request.http = request.mount = none
    request.scheme = request.host = none
    request.scanned, request.trace, request.trust, request.peer, request.inside = NULL, NULL, NULL, none, False
    request.wanted, request.live = SLOTS, NULL
    return 0


cdef Decision decide_leaf(CompiledRules compiled, uint32_t leaf, str address, const Request *request):
    cdef PyObject *none = <PyObject *>None
    cdef bint given = request.headers != none or request.method != none or request.path != none
    cdef bint wide = (compiled.signals is not None or compiled.requests is not None or request.sni != none or
                      request.tls != none or given or compiled.records is not None or
                      compiled.live is not None or request.live != NULL)
    cdef Decision d = SignalDecision.__new__(SignalDecision) if wide else Decision.__new__(Decision)
    cdef uint32_t klass
    if address is None and leaf == GBF_NONE:
        klass = GBF_CLASS_ABSENT
    else:
        klass = GBF_CLASS_MALFORMED if leaf == GBF_NONE else compiled._rules.leaves[leaf].klass
    d._compiled = compiled
    d._score = d._threshold = <float>NAN
    d.address = address
    d._leaf = leaf
    d._unparsable = GBF_UNPARSABLE_ADDRESS if klass == GBF_CLASS_MALFORMED else GBF_UNPARSABLE_NONE
    d._vector = gbf_rules_vector(&compiled._rules, klass)
    if wide:
        if compiled.records is not None:
            gbf_record_start(&(<SignalDecision>d)._record)
        (<SignalDecision>d).and_connection(<str>request.sni, <object>request.tls)
        if compiled.requests is not None or given:
            (<SignalDecision>d).and_request(request, given)
        if not given and (compiled.live is not None or request.live != NULL):
            (<SignalDecision>d).and_live(request, NULL)
    d._rule = gbf_rules_first(&compiled._rules, d._vector, compiled._rules.enforced, 0, compiled._rules.ends[GBF_ADMIT])
    if wide and (<SignalDecision>d)._preflight:  # it is no visit: only who is banned, or may always come in, counts
        d._unparsable = GBF_UNPARSABLE_NONE
        if d._rule != GBF_NONE and compiled._rules.actions[d._rule] != GBF_ALLOW:
            d._rule = GBF_NONE
    if d._rule != GBF_NONE:
        d._cause, d._action = GBF_CAUSE_RULE, compiled._rules.actions[d._rule]
    elif d._unparsable:
        d._cause, d._action = GBF_CAUSE_UNPARSABLE, <uint8_t>compiled.unparsable
    else:
        d._cause, d._action = GBF_CAUSE_NONE, GBF_ALLOW
    return d


@cython.freelist(64)
@cython.no_gc
cdef class Decision:
    """The engine's answer about one request: a small frozen object that reads the rest from the ruleset."""

    _make = "a Decision comes from Engine.decide, .peek or .decision"

    def __reduce__(self):
        raise TypeError("a Decision is part of its engine, and not pickled or copied; keep the attributes that you "
                        "need")

    @property
    def action(self):
        """What to do: "allow", "challenge", "limit" (429: come again later) or "ban"."""
        return ACTIONS[self._action]

    @property
    def cause(self):
        """What decided: "rule", "ban" (a stored one), "tracker", "unparsable", "score", "outage" (the store does not
        answer and the policy then is "closed"), or "none": nothing spoke against the request."""
        return CAUSES[self._cause]

    @property
    def rule(self):
        """Id of the rule that decided, name of the tracker that did, or whichever made the ban that did; else None."""
        if self._cause == GBF_CAUSE_RULE:
            return self._compiled.rules[self._rule].id
        if self._cause == GBF_CAUSE_TRACKER:
            return self.tripped()
        return self._ban.rule or None if self._cause == GBF_CAUSE_BAN else None

    @property
    def reason(self):
        """The reason of the rule or ban that decided; "malformed-" and address, hello, ja4, sni, headers, method or
        path when policy `unparsable` did, because a signal that rules ask for could not be read; the name of the
        tracker; "score"; "store outage"; else None."""
        if self._cause == GBF_CAUSE_RULE:
            return self._compiled.rules[self._rule].reason
        if self._cause == GBF_CAUSE_BAN:
            return self._ban.reason
        if self._cause == GBF_CAUSE_TRACKER:
            return self.tripped()
        if self._cause == GBF_CAUSE_OUTAGE:
            return "store outage"
        return "score" if self._cause == GBF_CAUSE_SCORE else REASONS[self._unparsable]

    cdef object tripped(self):
        """Name of the tracker that decided."""
        return self._limit.id if self._limit is not None and self._limit.over else TRIPS[self._trip]

    @property
    def limit(self):
        """The LimitState of the limits that are about this request: of the one that decided, or else of the one with
        least left; None when none is."""
        return self._limit

    @property
    def ban(self):
        """Key of the stored ban that decided, or that this decision led to; None when there is none."""
        return None if self._ban is None else self._ban.whole().key

    @property
    def expires(self):
        """Unix seconds at which that ban ends; None: it is for good, or there is none."""
        return None if self._ban is None else self._ban.whole().expires

    @property
    def score(self):
        """How unusual the request is, 0 to 1; None when it was not scored."""
        return None if self._score != self._score else self._score

    @property
    def threshold(self):
        """The score from which on requests are challenged now; None when not scored, or not enough was seen yet."""
        return None if self._threshold != self._threshold else self._threshold

    @property
    def coverage(self):
        """Fraction of the weights of a score whose signals were present, 0 to 1."""
        return self._coverage

    @property
    def sni(self):
        """The server name as given, or as the hello has it (None there when it is not printable ASCII)."""
        return None

    @property
    def hello(self):
        """The ClientHello as given, or None."""
        return None

    @property
    def ja4(self):
        """The JA4 of the hello, or else as given; None when there is neither, or the hello cannot be read."""
        return None

    @property
    def headers(self):
        """The headers as given, or None."""
        return None

    @property
    def method(self):
        """The method as given, or None."""
        return None

    @property
    def path(self):
        """The path as given, or None."""
        return None

    @property
    def mount(self):
        """The mount as given, "" for none."""
        return ""

    @property
    def http(self):
        """The HTTP version as given, or None."""
        return None

    @property
    def scheme(self):
        """The scheme as given, or as a WSGI environ has it; else None."""
        return None

    @property
    def host(self):
        """The host as given, in place of the header; else None."""
        return None

    @property
    def origin(self):
        """The Origin of the page that asks, as it came; None without one, or where headers cannot be read."""
        return None

    @property
    def own_page(self):
        """Whether the page that asked has the host and port that it asked: it needs no grant."""
        return False

    @property
    def preflight(self):
        """Whether this is a browser's preflight of a resource that share rules are about."""
        return False

    @property
    def fingerprint(self):
        """The gh2 fingerprint of the client, by its headers; None without headers, or when they cannot be read."""
        return None

    @property
    def shape(self):
        """The gs1 shape of this request, by its headers; None without headers, or when they cannot be read."""
        return None

    @property
    def duration(self):
        """Seconds for which the deciding rule's action holds (its `for`), or None: for good, or no rule decided."""
        return self._compiled.rules[self._rule].duration if self._cause == GBF_CAUSE_RULE else None

    @property
    def asn(self):
        """Origin AS of the address, or None when the AS table does not know it."""
        if self._leaf == GBF_NONE:
            return None
        return self._compiled._rules.leaves[self._leaf].asn or None

    @property
    def shadow(self):
        """Ids of the shadow rules that would each have won, were they enforced; in decision order."""
        found = self.ids(self._compiled._rules.shadow, 0, min(self._rule, self._compiled._rules.ends[GBF_ADMIT]))
        return found if self._limit is None else found + self._limit.shadow

    @property
    def logged(self):
        """Ids of the `log` rules that matched, in decision order."""
        return self.ids(self._compiled._rules.logged, 0, self._compiled._rules.ends[GBF_ADMIT])

    @property
    def matched(self):
        """Ids of all enforced rules that matched, in decision order: the first decided, the second would without it."""
        return self.ids(self._compiled._rules.enforced, 0, self._compiled._rules.ends[GBF_ADMIT])

    cdef tuple ids(self, const uint64_t *mask, uint32_t first, uint32_t before):
        cdef uint32_t rule = gbf_rules_next(&self._compiled._rules, self._vector, mask, first)
        found = []
        while rule < before:
            found.append(self._compiled.rules[rule].id)
            rule = gbf_rules_next(&self._compiled._rules, self._vector, mask, rule + 1)
        return tuple(found)

    @property
    def share(self):
        """Whether the page that asked may read the answer: "granted", "withheld" or "refused" (the request is not let
        in); None: no share rule is about it."""
        return None

    @property
    def share_rule(self):
        """Id of the share rule that decided that; None: none did."""
        return None

    @property
    def share_shadow(self):
        """Ids of the shadow rules about sharing that would each have decided, were they enforced; in decision order."""
        return ()

    @property
    def share_matched(self):
        """Ids of all enforced rules about sharing that matched, in decision order: the first decided."""
        return ()

    @property
    def ungranted(self):
        """What of a preflight its grant does not cover: "method" or "headers"; None: nothing, or there is no grant."""
        return None

    @property
    def share_headers(self):
        """Header fields (name, value) of the response for the page that asked, in bytes; of a preflight those of the
        answer. () where nothing is granted."""
        return ()

    @property
    def varies(self):
        """The request headers that could have changed what is shared, as `Vary` lists them."""
        return ()

    @property
    def outcome(self):
        """What became of the request, as record rules ask for it: "admitted", "passed" (a challenge), "withheld" (from
        the page that asked), "challenged", "limited", "refused" (a page of another origin) or "banned"."""
        return OUTCOMES[GBF_OUTCOME_ADMITTED] if self._action == GBF_ALLOW else (
            OUTCOMES[GBF_OUTCOME_BANNED if self._action == GBF_BAN else
                     GBF_OUTCOME_LIMITED if self._action == GBF_LIMIT else GBF_OUTCOME_CHALLENGED])

    @property
    def record(self):
        """Whether the trace of the request is kept: sampled."""
        return False

    @property
    def record_rule(self):
        """Id of the record rule that decided that; None: none matches, and the context goes on as it came."""
        return None

    @property
    def record_shadow(self):
        """Ids of the shadow rules about records that would each have decided, were they enforced; in decision order."""
        return ()

    @property
    def record_matched(self):
        """Ids of all enforced rules about records that matched, in decision order: the first decided."""
        return ()

    @property
    def sampling_probability(self):
        """The probability with which traces like this one are kept, 0 to 1; None: the flag of a parent decided, or no
        rule."""
        return None

    @property
    def trace(self):
        """The TraceContext that goes on from here, with a span id of our own; None where no rules say anything of
        traces, or the system has no random bytes."""
        return None

    @property
    def trace_id(self):
        """That of `trace`, 32 hex digits; None without one."""
        return None if self.trace is None else self.trace.trace_id

    @property
    def span_id(self):
        """That of `trace`, 16 hex digits; None without one."""
        return None if self.trace is None else self.trace.span_id

    @property
    def trace_flags(self):
        """Those of `trace`, 2 hex digits; None without one."""
        return None if self.trace is None else self.trace.trace_flags

    @property
    def trace_link(self):
        """The TraceContext of a client that is not trusted, where `from_untrusted` is "link"; else None."""
        return None

    @property
    def labels(self):
        """The labels that rules name and that a key of the request carried when it was decided, as words."""
        return ()

    @property
    def session(self):
        """The key of the request's session, a keyed hash of its value; None without one, or where no rule asks."""
        return None

    @property
    def uid(self):
        """Who is logged in, as the application says, or a header of a trusted peer; else None."""
        return None

    @property
    def session_state(self):
        """"present", "absent", "malformed" (several values, or a long one), or "unknown": nobody asked."""
        return "unknown"

    @property
    def compiled(self):
        """The CompiledRules that decided: a later swap does not change what this decision says."""
        return self._compiled

    @property
    def rule_index(self):
        """Position of the deciding rule in decision order, or None."""
        return self._rule if self._cause == GBF_CAUSE_RULE else None

    def to_dict(self):
        """The decision as a dict of plain values, ready for JSON: names and forms of a line in the decision log.

        What was decided, `ruleset` (the hash of the rules) and `signals`; values of cookies and credentials are `***`.
        Cost: microseconds, most of it for headers.
        """
        from gobanfast._decision_dict import dict_of

        return dict_of(self)

    def __repr__(self):
        return (f"<Decision {self.action} address={self.address!r} cause={self.cause!r} rule={self.rule!r} "
                f"reason={self.reason!r} asn={self.asn}>")


@cython.final
cdef class SignalDecision(Decision):
    """A Decision that took other signals than the address in; it keeps them, and the vector they came to."""

    cdef int and_connection(self, str sni, object tls) except -1:
        """ANDs what server name and hello satisfy into the vector of the address."""
        cdef ConnectionTable signals = self._compiled.signals
        cdef uint32_t words = self._compiled._rules.words
        cdef uint64_t few[2 * INLINE_WORDS]
        cdef uint64_t *scratch = few
        cdef uint64_t *vector = self._words
        cdef int unparsable
        self._sni, self._tls = sni, tls
        if words > INLINE_WORDS:
            self._spill = PyBytes_FromStringAndSize(NULL, 3 * 8 * words)
            vector = <uint64_t *>PyBytes_AS_STRING(self._spill)
            scratch = vector + words
        memcpy(vector, self._vector, 8 * words)
        self._vector = vector
        if signals is None:
            return 0
        if sni is None and tls is None:
            gbf_bits_and(vector, signals._signals.absent, words)
            return 0
        unparsable = signals.and_rows(vector, scratch, sni, tls)
        if unparsable and not self._unparsable:
            self._unparsable = unparsable
        return 0

    cdef int and_request(self, const Request *request, bint given) except -1:
        """Takes in what the request says; after `and_connection`."""
        cdef RequestTable requests = self._compiled.requests
        cdef uint32_t words = self._compiled._rules.words
        cdef uint64_t few[2 * INLINE_WORDS]
        cdef uint64_t *scratch = few
        cdef uint64_t *vector = self._words
        cdef gbf_headers own
        cdef gbf_headers *scanned = request.scanned
        cdef gbf_trace_headers *trace = request.trace
        cdef gbf_trace_headers own_trace
        cdef HeaderWalk walk
        cdef str path, mount
        cdef int unparsable = GBF_UNPARSABLE_NONE
        if self._spill is not None:
            vector = <uint64_t *>PyBytes_AS_STRING(self._spill)
            scratch = vector + words
        mount = <str>request.mount
        if mount is not None and len(mount) == 0:
            mount = None
        walk.trace = NULL
        self._http, self._mount = <str>request.http, mount
        self._scheme, self._host = <str>request.scheme, <str>request.host
        if not given:
            unparsable = requests.and_rows(vector, scratch, NULL, self._sni, self._tls, False)
            if unparsable and not self._unparsable:
                self._unparsable = unparsable
            return 0
        path = <str>request.path
        if path is None and type(<object>request.headers) is dict:
            from gobanfast.wire.target import environ_target

            path, mount = environ_target(<object>request.headers, mount)
            self._mount = mount
            if self._scheme is None:
                scheme = (<dict><object>request.headers).get("wsgi.url_scheme")
                self._scheme = scheme if type(scheme) is str else None
        if mount is not None and path == "":
            path = mount
        self._headers, self._method, self._path = <object>request.headers, <str>request.method, path
        if (requests is None and request.wanted == SLOTS and self._compiled.records is None and
                self._compiled.live is None and request.live == NULL):
            return 0
        if (scanned == NULL and requests is None and request.wanted == SLOTS and self._compiled.live is None and
                request.live == NULL):  # record rules ask for nothing else
            gbf_trace_start(&own_trace)
            scan_traces(self._headers, &own_trace)
            self._state = read_record(self._compiled.records, &self._record, &own_trace)
            self._baggage = read_baggage(self._compiled.records, &own_trace)
            return 0
        try:
            if scanned == NULL:
                scanned = &own
                if self._compiled.records is not None:
                    trace = &own_trace
                    memset(&walk, 0, sizeof(walk))
                    gbf_trace_start(trace)
                    walk.trace = trace
                scan_headers(self._headers, self._http, &self._compiled.plan._plan, scanned, request.wanted,
                             NULL if walk.trace == NULL else &walk)
                set_authority(self._scheme, self._host, scanned)
                set_target(self._method, path, mount, scanned)
            if trace != NULL:
                self._state = read_record(self._compiled.records, &self._record, trace)
                self._baggage = read_baggage(self._compiled.records, trace)
            if self._headers is not None and is_readable(scanned):
                self._has = request.wanted
            self.note_hashes(scanned)
            if requests is not None:
                unparsable = self.and_rows(vector, scratch, scanned)
            if self._compiled.live is not None or request.live != NULL:
                self.and_live(request, scanned)
        finally:
            if scanned == &own:
                gbf_headers_free(&own)
        if unparsable and not self._unparsable:
            self._unparsable = unparsable
        return 0

    cdef int and_rows(self, uint64_t *vector, uint64_t *scratch, gbf_headers *scanned) except -1:
        """What the request says, or, where a browser asks before it makes one, what that one will say: share rules see
        the method that a preflight announces, and the preflight is none where no resource is owned."""
        cdef RequestTable requests = self._compiled.requests
        cdef const gbf_rules *rules = &self._compiled._rules
        cdef uint64_t few[INLINE_WORDS]
        cdef uint64_t *before = few
        cdef gbf_headers again
        cdef bytes room
        cdef int unparsable
        self._from_page = scanned.tally.seen >> GBF_HEADER_ORIGIN & 1
        self._own_page = self._from_page and gbf_header_own_page(scanned)
        if rules.ends[GBF_SHARE] == rules.ends[GBF_ADMIT] or not is_preflight(scanned):
            return requests.and_rows(vector, scratch, scanned, self._sni, self._tls, False)
        if rules.words > INLINE_WORDS:
            room = PyBytes_FromStringAndSize(NULL, 8 * rules.words)
            before = <uint64_t *>PyBytes_AS_STRING(room)
        memcpy(before, vector, 8 * rules.words)
        unparsable = self.and_announced(vector, scratch, scanned)
        if self._preflight:
            if not requests.admit_asks_method and rules.ends[GBF_RECORD] == rules.ends[GBF_SHARE]:
                return unparsable
            swap_words(vector, before, rules.words)
        else:
            memcpy(vector, before, 8 * rules.words)
        try:  # anew, because Python code may have run
            scan_headers(self._headers, self._http, &self._compiled.plan._plan, &again, requests.asks, NULL)
            set_authority(self._scheme, self._host, &again)
            set_target(self._method, self._path, self._mount, &again)
            unparsable = requests.and_rows(vector, scratch, &again, self._sni, self._tls, self._preflight)
        finally:
            gbf_headers_free(&again)
        if self._preflight:
            put_between(vector, before, rules.ends[GBF_ADMIT], rules.ends[GBF_SHARE])
            put_between(vector, before, rules.ends[GBF_RECORD], 64 * rules.words)
        return unparsable

    cdef int and_announced(self, uint64_t *vector, uint64_t *scratch, gbf_headers *scanned) except -1:
        """What the request after a preflight says, whether it is for a resource that is owned, and then the answer."""
        cdef gbf_header_tally tally = scanned.tally
        cdef gbf_header_text method = scanned.slots[GBF_HEADER_METHOD]
        cdef gbf_header_text wanted = scanned.slots[GBF_HEADER_REQUEST_METHOD]
        cdef bint good = gbf_header_is_method(wanted)
        cdef bytes origin = slot_bytes(scanned, GBF_HEADER_ORIGIN)
        cdef bytes announced = slot_bytes(scanned, GBF_HEADER_REQUEST_METHOD) if good else None
        cdef bytes names = slot_bytes(scanned, GBF_HEADER_REQUEST_HEADERS)
        cdef uint32_t rule
        cdef int unparsable
        scanned.slots[GBF_HEADER_METHOD] = wanted
        if not good:
            scanned.tally.seen &= ~(<uint64_t>1 << GBF_HEADER_METHOD)
            scanned.tally.flags |= GBF_HEADERS_BAD_METHOD
        unparsable = self._compiled.requests.and_rows(vector, scratch, scanned, self._sni, self._tls, True)
        scanned.tally = tally
        scanned.slots[GBF_HEADER_METHOD] = method
        if self._compiled.live is not None:
            self._compiled.live.and_favour(vector)
        self._preflight = self.resource_flags() & OWNED
        if self._preflight:
            rule = self.share_rule_index()
            grant = None if rule == GBF_NONE else self._compiled.grants[rule - self._compiled._rules.ends[GBF_ADMIT]]
            self._answer = None if grant is None else (<CompiledGrant>grant).answer(origin, announced, names)
        return unparsable

    cdef int note_user(self, const Live *live, const gbf_headers *scanned) except -1:
        """Who is logged in, as the application says, or a header of a peer that may."""
        cdef str uid = <str>live.uid
        if uid is None and scanned != NULL and live.uid_slot != GBF_HEADER_NO_SLOT and is_readable(scanned):
            text = slot_bytes(scanned, live.uid_slot)
            uid = None if text is None else text.decode("utf-8", "surrogateescape")
        if uid:
            uid_of(uid, &self._user)
            self._uid = uid
        return 0

    cdef int and_live(self, const Request *request, const gbf_headers *scanned) except -1:
        """Takes in what live state knows: labels on the keys of the request, and its session."""
        cdef LiveTable table = self._compiled.live
        cdef const Live *live = request.live
        cdef uint64_t *vector = self._words
        cdef uint64_t masks[2 * GBF_SESSION_VALUES]
        cdef uint64_t own, every
        cdef Session session
        cdef gbf_ban_who who
        cdef uint32_t i, count
        if self._spill is not None:
            vector = <uint64_t *>PyBytes_AS_STRING(self._spill)
        if live != NULL:
            self.note_user(live, scanned)
        if table is None:
            return 0
        if self._preflight:
            return table.and_favour(vector)
        if live == NULL:
            return table.and_unknown(vector)
        read_session(live, self._headers, scanned, &session)
        self._session, self._keyed = session.state, session.values != 0 and session.asked != 0
        self._alone = self._keyed and session.values == 1
        if self._keyed:
            self._session_key = session.key[0]
        if session.state == SESSION_MALFORMED and table.of_admit and not self._unparsable:
            self._unparsable = GBF_UNPARSABLE_SESSION
        table.and_session(vector, session.state)
        own = every = 0
        count = session.values if session.values else 1
        memset(masks, 0, sizeof(masks))
        if live.labels != NULL:
            who.address, who.uid = live.address, &self._user if self._uid is not None else NULL
            who.fingerprint = self._fingerprint if self._has >= FINGERPRINT else NULL
            who.asn = 0 if self._leaf == GBF_NONE else self._compiled._rules.leaves[self._leaf].asn
            every = gbf_labels_find(live.labels, &who, live.words, live.now, &own)
            if gbf_labels_present(live.labels) & GBF_BANS_SESSION:
                for i in range(session.values * session.asked):
                    masks[i // session.asked] |= gbf_labels_of(live.labels, &session.key[i], live.words, live.now)
        self._carried = every
        for i in range(count):
            self._carried |= masks[i]
            masks[count + i] = masks[i] | own
            masks[i] |= every
        return table.and_labels(vector, masks, count if every == own else 2 * count)

    cdef int resource_flags(self) noexcept:
        """What the conditions of share rules, but those on the page that asks, say of the resource."""
        cdef const gbf_rules *rules = &self._compiled._rules
        cdef uint32_t first = rules.ends[GBF_RECORD], end = rules.ends[GBF_RESOURCE]
        cdef uint32_t rule = gbf_rules_first(rules, self._vector, rules.enforced, first, end)
        cdef int flags = 0
        while rule != GBF_NONE:
            flags |= self._compiled._resource_flags[rule - first]
            rule = gbf_rules_first(rules, self._vector, rules.enforced, rule + 1, end)
        return flags

    cdef uint32_t share_rule_index(self) noexcept:
        """The share rule that decides, whether a page has asked or not, or GBF_NONE."""
        cdef const gbf_rules *rules = &self._compiled._rules
        return gbf_rules_first(rules, self._vector, rules.enforced, rules.ends[GBF_ADMIT], rules.ends[GBF_SHARE])

    cdef int shared(self) noexcept:
        """gbf_shared."""
        cdef const gbf_rules *rules = &self._compiled._rules
        cdef uint32_t rule
        cdef int action
        if rules.ends[GBF_SHARE] == rules.ends[GBF_ADMIT]:
            return GBF_SHARED_NONE
        rule = self.share_rule_index()
        if rule != GBF_NONE:
            action = self._compiled._share_actions[rule - rules.ends[GBF_ADMIT]]
            if self._preflight and type(self._answer) is str:
                return GBF_SHARED_WITHHELD
            if action == GBF_SHARED_REFUSED or self._from_page or action & ANYBODY:
                return action & ~ANYBODY
            return GBF_SHARED_NONE
        return GBF_SHARED_WITHHELD if self._from_page and self.resource_flags() & OWNED else GBF_SHARED_NONE

    @property
    def share(self):
        return SHARED[self.shared()] or None

    @property
    def share_rule(self):
        cdef uint32_t rule = self.share_rule_index()
        if rule == GBF_NONE or self.shared() == GBF_SHARED_NONE:
            return None
        return self._compiled.rules[rule].id

    @property
    def share_shadow(self):
        cdef uint32_t *ends = self._compiled._rules.ends
        return self.ids(self._compiled._rules.shadow, ends[GBF_ADMIT], min(self.share_rule_index(), ends[GBF_SHARE]))

    @property
    def share_matched(self):
        cdef uint32_t *ends = self._compiled._rules.ends
        return self.ids(self._compiled._rules.enforced, ends[GBF_ADMIT], ends[GBF_SHARE])

    @property
    def ungranted(self):
        return self._answer if self._preflight and type(self._answer) is str else None

    @property
    def share_headers(self):
        cdef gbf_headers scanned
        cdef uint32_t rule = self.share_rule_index()
        if self.shared() != GBF_SHARED_GRANTED:
            return ()
        if self._preflight:
            return self._answer
        headers = self._headers if self._kept is None else self._kept
        grant = self._compiled.grants[rule - self._compiled._rules.ends[GBF_ADMIT]]
        try:
            scan_headers(headers, self._http, &self._compiled.plan._plan, &scanned, SLOTS, NULL)
            return (<CompiledGrant>grant).response(slot_bytes(&scanned, GBF_HEADER_ORIGIN) or b"")
        finally:
            gbf_headers_free(&scanned)

    @property
    def origin(self):
        cdef gbf_headers scanned
        headers = self._headers if self._kept is None else self._kept
        if not self._from_page or headers is None:
            return None
        try:
            scan_headers(headers, self._http, &self._compiled.plan._plan, &scanned, SLOTS, NULL)
            text = slot_bytes(&scanned, GBF_HEADER_ORIGIN)
        finally:
            gbf_headers_free(&scanned)
        return None if text is None else text.decode("latin-1")

    @property
    def varies(self):
        cdef int flags = self.resource_flags()
        cdef tuple names = VARIES[flags >> 1 & 3] if flags & OWNED else ()
        return (*names, *self._compiled.live.varies) if flags & BY_SESSION and flags & OWNED else names

    @property
    def preflight(self):
        return self._preflight

    @property
    def labels(self):
        cdef LiveTable table = self._compiled.live
        if table is None:
            return ()
        return tuple([word for i, word in enumerate(table.labels) if self._carried >> <uint32_t>i & 1])

    @property
    def session(self):
        return key_text(&self._session_key) if self._keyed else None

    @property
    def uid(self):
        return self._uid

    @property
    def session_state(self):
        return STATES[self._session]

    @property
    def own_page(self):
        return self._own_page

    @property
    def scheme(self):
        return self._scheme

    @property
    def host(self):
        return self._host

    cdef int outcome_now(self) noexcept:
        """gbf_outcome, as far as the decision itself says it."""
        cdef int shared
        if self._action != GBF_ALLOW:
            return (GBF_OUTCOME_BANNED if self._action == GBF_BAN else
                    GBF_OUTCOME_LIMITED if self._action == GBF_LIMIT else GBF_OUTCOME_CHALLENGED)
        shared = self.shared()
        if shared == GBF_SHARED_REFUSED:
            return GBF_OUTCOME_REFUSED
        return GBF_OUTCOME_WITHHELD if shared == GBF_SHARED_WITHHELD and not self._own_page else GBF_OUTCOME_ADMITTED

    cdef uint32_t record_rule_index(self, int outcome) noexcept:
        """The record rule that decides on a request of this outcome, or GBF_NONE."""
        cdef const gbf_rules *rules = &self._compiled._rules
        return gbf_rules_first(rules, self._vector, self._compiled.records.row(outcome), rules.ends[GBF_SHARE],
                               rules.ends[GBF_RECORD])

    cdef int trust_trace(self, object trusted, bint edge) except -1:
        """Takes the trace context that came away from a client who is not in `trusted`, unless the peer makes its own.
        Only of a decision that has one."""
        cdef RecordTable records = self._compiled.records
        if records.stranger == GBF_STRANGER_CONTINUE or edge or (
                self._leaf != GBF_NONE and trusted is not None and self.address in trusted):
            return 0
        if records.stranger == GBF_STRANGER_LINK and self._record.source != GBF_TRACE_NOTHING:
            self._link = came_with(&self._record, None, None)
        gbf_record_start(&self._record)
        self._state = self._baggage = None
        return 0

    @property
    def outcome(self):
        if self._compiled.records is not None:
            return OUTCOMES[self._record.outcome]
        return OUTCOMES[self.outcome_now()]

    @property
    def record(self):
        return self._compiled.records is not None and self._record.sampled != 0

    @property
    def record_rule(self):
        if self._compiled.records is None or self._record.rule == GBF_NONE:
            return None
        return self._compiled.rules[self._record.rule].id

    @property
    def record_shadow(self):
        cdef uint32_t *ends = self._compiled._rules.ends
        if self._compiled.records is None:
            return ()
        found = self.ids(self._compiled._rules.shadow, ends[GBF_SHARE], min(self._record.rule, ends[GBF_RECORD]))
        return self.of_outcome(found)

    @property
    def record_matched(self):
        cdef uint32_t *ends = self._compiled._rules.ends
        if self._compiled.records is None:
            return ()
        return self.of_outcome(self.ids(self._compiled._rules.enforced, ends[GBF_SHARE], ends[GBF_RECORD]))

    cdef tuple of_outcome(self, tuple ids):
        """Those of record rules that do not ask for another outcome."""
        cdef tuple rules = self._compiled.rules[self._compiled._rules.ends[GBF_SHARE]:]
        asked = {rule.id: rule.when.outcome for rule in rules}
        return tuple([name for name in ids if asked[name] is None or self.outcome in asked[name]])

    @property
    def sampling_probability(self):
        if self._compiled.records is None or self._record.decided == GBF_SAMPLING_UNKNOWN:
            return None
        return gbf_sampling_probability(self._record.decided)

    @property
    def trace(self):
        if self._trace is None and self._compiled.records is not None:
            self._trace = goes_on(self._compiled.records, &self._record, self._state, self._baggage)
        return self._trace

    @property
    def trace_link(self):
        return self._link

    cdef int note_hashes(self, const gbf_headers *scanned) noexcept:
        self._fingerprint[0], self._fingerprint[1] = scanned.fingerprint.high, scanned.fingerprint.low
        self._shape[0], self._shape[1] = scanned.shape.high, scanned.shape.low
        return 0

    @property
    def headers(self):
        return self._headers

    @property
    def method(self):
        return self._method

    @property
    def path(self):
        return self._path

    @property
    def mount(self):
        return self._mount or ""

    @property
    def http(self):
        return self._http

    @property
    def fingerprint(self):
        self.know_hashes(FINGERPRINT)
        return f"gh2:{self._fingerprint[0]:016x}{self._fingerprint[1]:016x}" if self._has >= FINGERPRINT else None

    @property
    def shape(self):
        self.know_hashes(SHAPE)
        return f"gs1:{self._shape[0]:016x}{self._shape[1]:016x}" if self._has == SHAPE else None

    cdef int know_hashes(self, int wanted) except -1:
        """Works out what was not wanted of the scan, once; nothing where the headers cannot be read."""
        cdef gbf_headers scanned
        headers = self._headers if self._kept is None else self._kept
        if self._has >= wanted or headers is None:
            return 0
        try:
            scan_headers(headers, self._http, &self._compiled.plan._plan, &scanned, SHAPE, NULL)
            if is_readable(&scanned):
                self.note_hashes(&scanned)
                self._has = SHAPE
        finally:
            gbf_headers_free(&scanned)
        return 0

    @property
    def sni(self):
        return (<ClientHello>self._tls).sni if self._sni is None and type(self._tls) is ClientHello else self._sni

    @property
    def hello(self):
        return self._tls if type(self._tls) is ClientHello else None

    @property
    def ja4(self):
        return (<ClientHello>self._tls).ja4 if type(self._tls) is ClientHello else self._tls


cdef int read_session(const Live *live, object headers, const gbf_headers *scanned, Session *out) except -1:
    """What is known of the session; keys only where the rules say how to make them."""
    cdef SessionReader reader = <SessionReader><object>live.reader
    cdef object said = <object>live.session, query = <object>live.query
    out.state, out.values, out.asked = SESSION_UNKNOWN, 0, 0
    if said is not None:
        out.state = SESSION_PRESENT if said else SESSION_ABSENT
        return 0 if reader is None or not said else reader.hash_value(said, out)
    if reader is None or scanned == NULL:
        return 0
    if query is None and type(headers) is dict:
        query = (<dict>headers).get("QUERY_STRING")
        if type(query) is not str:
            query = None
    return reader.read(scanned, query, out)


cdef inline int swap_words(uint64_t *a, uint64_t *b, uint32_t words) noexcept:
    cdef uint32_t w
    cdef uint64_t kept
    for w in range(words):
        kept = a[w]
        a[w] = b[w]
        b[w] = kept
    return 0


cdef inline int put_between(uint64_t *to, const uint64_t *bits, uint32_t first, uint32_t end) noexcept:
    """Puts the bits from `first` on, up to `end`, in place of those there."""
    cdef uint32_t w
    cdef uint64_t mask
    for w in range(first // 64, (end + 63) // 64):
        mask = ~<uint64_t>0
        if w == first // 64:
            mask <<= first % 64
        if w == end // 64:
            mask &= (<uint64_t>1 << end % 64) - 1
        to[w] = (to[w] & ~mask) | (bits[w] & mask)
    return 0


cdef inline bint is_preflight(const gbf_headers *scanned) noexcept:
    """Whether a browser asks before it makes the request: OPTIONS with an Origin, and a method announced."""
    cdef uint64_t needed = (<uint64_t>1 << GBF_HEADER_METHOD | <uint64_t>1 << GBF_HEADER_ORIGIN |
                            <uint64_t>1 << GBF_HEADER_REQUEST_METHOD)
    return (scanned.tally.seen & needed == needed and scanned.slots[GBF_HEADER_METHOD].nbytes == 7 and
            memcmp(scanned.slots[GBF_HEADER_METHOD].at, b"OPTIONS", 7) == 0)


cdef inline bint is_readable(const gbf_headers *scanned) noexcept:
    return scanned.problem == GBF_HEADERS_FINE and not scanned.tally.flags & GBF_HEADERS_UNKNOWN


cdef int complete_hashes(SignalDecision decision, gbf_headers *scanned) except -1:
    if decision._has != SLOTS or decision._headers is None or not is_readable(scanned):
        return 0
    if gbf_headers_fingerprint(&decision._compiled.plan._plan, scanned) != GBF_OK:
        raise MemoryError()
    decision.note_hashes(scanned)
    decision._has = SHAPE if scanned.tally.flags & GBF_HEADERS_SHAPED else FINGERPRINT
    return 0


cdef bint is_plain_allow(Decision decision) noexcept:
    cdef const gbf_rules *rules = &decision._compiled._rules
    return (decision._action == GBF_ALLOW and gbf_rules_next(rules, decision._vector, rules.logged, 0) == GBF_NONE and
            gbf_rules_next(rules, decision._vector, rules.shadow, 0) >= min(decision._rule, rules.ends[GBF_ADMIT]) and
            (rules.ends[GBF_SHARE] == rules.ends[GBF_ADMIT] or is_plain_share(<SignalDecision>decision)) and
            (decision._limit is None or not decision._limit.shadow))


cdef bint is_plain_share(SignalDecision decision) noexcept:
    """Whether nothing is refused, or withheld from the page of another service, and no shadow rule has anything to say.
    A service's own pages send an Origin, too, and need no grant."""
    cdef const gbf_rules *rules = &decision._compiled._rules
    cdef uint32_t rule = decision.share_rule_index()
    cdef int shared = decision.shared()
    if shared == GBF_SHARED_REFUSED or (shared == GBF_SHARED_WITHHELD and not decision._own_page):
        return False
    return (gbf_rules_next(rules, decision._vector, rules.shadow, rules.ends[GBF_ADMIT]) >=
            min(rule, rules.ends[GBF_SHARE]))


def resources_of(Decision decision not None, /):
    """Which conditions on resources hold: positions in `rules.compile.share.resources`."""
    cdef const gbf_rules *rules = &decision._compiled._rules
    cdef uint32_t first = rules.ends[GBF_RECORD], end = rules.ends[GBF_RESOURCE]
    cdef uint32_t rule = gbf_rules_first(rules, decision._vector, rules.enforced, first, end)
    found = []
    while rule != GBF_NONE:
        found.append(rule - first)
        rule = gbf_rules_first(rules, decision._vector, rules.enforced, rule + 1, end)
    return tuple(found)


def record_rule_for(Decision decision not None, str outcome not None, /):
    """The Rule that would decide whether the trace is kept, had this become of the request; None: none would.

    Raises:
        ValueError: no outcome.
    """
    if outcome not in OUTCOMES:
        raise ValueError(f"outcome {outcome!r} is not one of {', '.join(OUTCOMES)}")
    if decision._compiled.records is None:
        return None
    rule = (<SignalDecision>decision).record_rule_index(OUTCOMES.index(outcome))
    return None if rule == GBF_NONE else decision._compiled.rules[rule]


def is_plain(Decision decision not None, /):
    """Whether a decision is an allow to which no `log` or shadow rule has anything to say."""
    return is_plain_allow(decision)


def detached(Decision decision not None, /):
    """(the decision, its headers) as they may be kept: in place of a WSGI environ, which holds the body and the socket
    of the request, and goes on changing, the decision has headers of its own."""
    cdef SignalDecision given, made
    cdef dict headers
    if type(decision) is not SignalDecision:
        return decision, None
    given = <SignalDecision>decision
    if type(given._headers) is not dict:
        return given, given._headers if given._kept is None else given._kept
    headers = given._kept
    if headers is None:
        headers = {}
        for name, value in (<dict>given._headers).items():
            if type(name) is str and is_cgi_header(name):
                headers[name] = value if type(value) is str else str(value)
    made = SignalDecision.__new__(SignalDecision)
    made._compiled, made.address, made._ban = given._compiled, given.address, given._ban
    made._leaf, made._rule, made._unparsable = given._leaf, given._rule, given._unparsable
    made._action, made._cause, made._trip, made._vouched = given._action, given._cause, given._trip, given._vouched
    made._score, made._threshold, made._coverage = given._score, given._threshold, given._coverage
    made._sni, made._tls, made._headers = given._sni, given._tls, headers
    made._kept, made._kept_bytes = given._kept, given._kept_bytes
    made._method, made._path = given._method, given._path
    made._http, made._mount, made._scheme, made._host = given._http, given._mount, given._scheme, given._host
    made._preflight, made._from_page, made._own_page = given._preflight, given._from_page, given._own_page
    made._answer = given._answer
    made._uid, made._user, made._session, made._session_key = (given._uid, given._user, given._session,
                                                               given._session_key)
    made._keyed, made._alone, made._carried = given._keyed, given._alone, given._carried
    made._record, made._state, made._baggage = given._record, given._state, given._baggage
    made._trace, made._link = given.trace, given._link  # ids once, whichever is asked
    made._has, made._spill = given._has, given._spill
    memcpy(made._fingerprint, given._fingerprint, sizeof(made._fingerprint))
    memcpy(made._shape, given._shape, sizeof(made._shape))
    memcpy(made._words, given._words, sizeof(made._words))
    made._vector = given._vector
    if made._spill is None:
        made._vector = made._words
    return made, headers


cdef bint is_cgi_header(str name) noexcept:
    """Whether a WSGI environ has a header under this name; the method, too, by which an environ is known."""
    cdef Py_ssize_t n = len(name)
    cdef const char *text
    if PyUnicode_KIND(name) != PyUnicode_1BYTE_KIND:
        return False
    text = <const char *>PyUnicode_1BYTE_DATA(name)
    if n > 5 and memcmp(text, b"HTTP_", 5) == 0:
        return True
    return ((n == 12 and memcmp(text, b"CONTENT_TYPE", 12) == 0) or
            (n == 14 and (memcmp(text, b"CONTENT_LENGTH", 14) == 0 or memcmp(text, b"REQUEST_METHOD", 14) == 0)))


only_whole(StoredBan)
only_whole(Decision)
only_whole(SignalDecision)
