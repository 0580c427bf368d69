"""EngineCore: hot-path calls over an immutable snapshot, and its swap. Long because snapshot and calls share fields."""

from os import urandom

cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from gobanfast._core.address cimport gbf_ascii, leaves_many
from gobanfast._core.ban_table cimport BanTable
from gobanfast._core.headers cimport FINGERPRINT, SHAPE, SLOTS
from gobanfast._core.decision cimport Decision, Live, Request, SignalDecision, decide_leaf, start_request, stored_ban
from gobanfast._core.made cimport bare, newfunc, only_whole
from gobanfast._core.compiled_rules cimport CompiledRules
from gobanfast._core.record_table cimport RecordTable, draw_id
from gobanfast._core.sampling cimport RateClasses
from gobanfast._core.scorer cimport Scorer
from gobanfast._core.session_reader cimport SessionReader
from gobanfast._core.client_hello cimport ClientHello
from gobanfast._core.crowd cimport Crowd
from gobanfast._core.limits cimport LimitState, LimitTable, Limits
from gobanfast._core.trackers cimport Exemption, Trackers, tracked_client
from gobanfast._core.native.address cimport gbf_addr, gbf_addr_client, gbf_addr_parse
from gobanfast._core.native.base cimport (
    GBF_NONE, GBF_ADMIT, GBF_BAN, GBF_CAUSE_BAN, GBF_CAUSE_OUTAGE, GBF_CAUSE_RULE, GBF_RECORD, GBF_SHARE,
    GBF_RECORDED_NONE, GBF_RECORDED_RATE, GBF_SHARED_NONE, GBF_TRACE_NOTHING, GBF_ACTIONS, GBF_ALLOW,
    GBF_TRIP_UNSURE, GBF_UNPARSABLE_NONE,
    GBF_BY_RULE, GBF_BY_TRACKER, GBF_CAUSE_NONE, GBF_CAUSE_TRACKER,
)
from gobanfast._core.native.hash cimport gbf_xxh3_64
from gobanfast._core.native.http cimport GBF_HEADER_NO_SLOT, gbf_header_slot
from gobanfast._core.native.name cimport gbf_name, gbf_name_fold_scalar, gbf_name_read
from gobanfast._core.native.rules cimport gbf_rules, gbf_rules_next
from gobanfast._core.native.state cimport (
    GBF_BANS_FINGERPRINT, GBF_BANS_FINGERPRINT_AT4, GBF_BAN_EPOCH, GBF_BAN_EVERYONE, GBF_BAN_REFUSED, gbf_ban,
    gbf_ban_client, gbf_ban_fingerprint,
    gbf_ban_fingerprint_at, gbf_ban_key,
    gbf_ban_who, gbf_bans_find, gbf_crowd_note, gbf_exempt_covers, gbf_decide_answer, gbf_decide_apply, gbf_decide_idle,
    gbf_decide_request,
    gbf_decide_uses_fingerprint, gbf_decide_vouch, gbf_labels_present, gbf_rates_threshold,
    gbf_record_decide, gbf_record_needs_id,
)
from gobanfast._core.native.tls cimport GBF_HELLO_OK

from gobanfast._core import enums
from gobanfast._core.shared_file import shared_limits
from gobanfast._errors import GobanError
from gobanfast._values import read_secret

cdef extern from *:
    """
    #include <time.h>
    #ifdef __APPLE__
    #define CLOCK_MONOTONIC_COARSE CLOCK_UPTIME_RAW /* stands still while the machine sleeps, as time.monotonic() */
    #elif !defined(CLOCK_MONOTONIC_COARSE)
    #define CLOCK_MONOTONIC_COARSE CLOCK_MONOTONIC
    #endif
    /* Milliseconds of the clock that time.monotonic() reads; up to 4 of them late, for a fifth of the cost. */
    static inline uint64_t gbf_now_ms(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
    }
    /* Adds one. Without the GIL two threads may be here at a time. */
    #ifdef Py_GIL_DISABLED
    #define gbf_count(p) __atomic_fetch_add((p), 1, __ATOMIC_RELAXED)
    #else
    #define gbf_count(p) (++*(p))
    #endif
    """
    uint64_t gbf_now_ms() noexcept
    void gbf_count(uint64_t *counter) noexcept

SHARED_BY = {"grant": "granted", "withhold": "withheld", "refuse": "refused"}
KEYS = ("client", "fingerprint", "client_fingerprint")
"""What a rule with `for:` bans."""
cdef double TEACH_SECONDS = 300  # as long as a solved challenge may be shown again
cdef Py_ssize_t MAX_LEARNED_CLIENTS = 10_000


@cython.final
cdef class EngineState:
    """Immutable snapshot: compiled rules, their ruleset, and references to the bans, trackers and scorer they use.

    One reference to it is read a decision, so that a swap changes all of it or nothing. Trackers and scores whose
    settings a swap leaves as they were go on; bans always do. Making one changes nothing that is in force.
    """

    @staticmethod
    def _make(CompiledRules compiled not None, settings not None, BanTable bans not None, EngineState before=None,
              bytes seed=None, ruleset=None):
        cdef EngineState made = EngineState.__new__(EngineState)  # whose fields nobody reads but an engine, later
        made.compiled, made.settings, made.bans, made.ruleset = compiled, settings, bans, ruleset
        if settings.bans.ipv6_client not in (48, 56, 64):
            raise ValueError(f"ipv6_client={settings.bans.ipv6_client!r} is not one of 64, 56, 48")
        kept = None if before is None else before.settings
        client = settings.bans.ipv6_client
        if settings.trackers is not None:
            if kept is not None and (kept.trackers, kept.bans.ipv6_client) == (settings.trackers, client):
                made.trackers = before.trackers
            else:
                made.trackers = Trackers(settings.trackers, ipv6_client=client, key=seed)
        if settings.score is not None:
            same = kept is not None and kept.score == settings.score
            made.scorer = before.scorer if same else Scorer(settings.score, key=seed)
        made.exemption = (Exemption() if settings.trackers is None else
                          Exemption(settings.trackers.exempt_asn, settings.trackers.exempt_prefix))
        if any([rule.limit is not None for rule in compiled.rules]):
            made.counts = limit_table(settings.limit_table, ruleset, before, seed)
            made.limits = Limits(compiled.rules, made.counts)
        elif before is not None:
            made.counts = before.counts  # rules with limits may come back
        edge = settings.edge_headers
        if edge is not None:
            made.edge = EdgeHeaders(edge.keep, len(edge.append) != 0, edge.strip)
        made.trusted = None if ruleset is None else ruleset._trusted
        made.rates = None if before is None else before.rates
        if compiled.records is not None and compiled.records.thresholds:
            if made.rates is None:
                made.rates = RateClasses()
            made.number_classes()
        made.name_labels(before)
        made.stores = bytes([stored_key(rule) for rule in compiled.rules])
        made.any_stored = any(made.stores)
        made.hits = <uint64_t *>calloc(2 * len(compiled.rules) + 1, sizeof(uint64_t))
        if made.hits == NULL:
            raise MemoryError()
        if made.scorer is not None and any([rule.weigh for rule in compiled.rules]):
            made.weighs = <double *>calloc(len(compiled.rules), sizeof(double))
            if made.weighs == NULL:
                raise MemoryError()
            for i, rule in enumerate(compiled.rules):
                made.weighs[<size_t>i] = rule.weigh or 0
        memset(&made.state, 0, sizeof(made.state))
        made.state.bans = bans._bans
        made.state.exempt = &made.exemption.exempt
        made.state.ipv6_bits = <uint32_t>client
        made.state.print_bans = any([kind > 1 for kind in made.stores])
        if settings.bans.ladder is not None:
            made.crowd = before.crowd if before is not None and before.crowd is not None else Crowd(seed=seed)
        made.timed = (settings.trackers is not None or settings.score is not None or made.limits is not None or
                      made.crowd is not None)
        if made.trackers is not None:
            made.state.tracker = &made.trackers.tracker
            for trip, name in enumerate(enums.LIMITS):
                limit = getattr(settings.trackers, name)
                if limit is not None:
                    made.state.trip_action[trip] = <uint8_t>enums.ACTIONS.index(limit.action)
            made.state.trip_action[GBF_TRIP_UNSURE] = <uint8_t>enums.ACTIONS.index(settings.trackers.on_saturated)
        if made.scorer is not None:
            made.state.score = made.scorer.score
            made.state.score_enforced = settings.score.mode == "enforce"
        return made

    def keep_spared(self, spared, /):
        """Has `spared(address, rule)` asked before a decision bans a client: True spares it."""
        self.spared = spared

    def keep_trust(self, trust not None, /):
        """The trust of this snapshot: `trust`, unless another thread was first with one; see `trust_from_rules`."""
        if self.trust is None:
            self.trust = trust
        return self.trust

    cdef int number_classes(self) except -1:
        """Gives the rate classes of the record rules their places. What is fixed by the rules is what they say."""
        cdef RecordTable records = self.compiled.records
        cdef dict numbers = self.rates.place(records.thresholds)
        self.classes = <uint32_t *>calloc(len(records.classes) + 1, sizeof(uint32_t))
        if self.classes == NULL:
            raise MemoryError()
        for i, name in enumerate(records.classes):
            if name is not None:
                self.classes[<size_t>i] = numbers[name]
        return 0

    cdef int name_labels(self, EngineState before) except -1:
        """Holds the numbers of the words that rules name, and finds out where a session is."""
        cdef const char *name
        cdef bytes header
        self.uid_slot = GBF_HEADER_NO_SLOT
        self.names.count = 0
        session = self.settings.session
        if self.compiled.live is not None:
            for word in self.compiled.live.labels:
                number = self.bans.pin(word)
                if not number:
                    raise ValueError(f"label {word!r} has no room: 65,535 other texts are in use")
                self.names.number[self.names.count] = number
                self.names.count += 1
        if session is not None and session.uid is not None:
            header = session.uid.encode()
            name = header
            self.uid_slot = gbf_header_slot(&self.compiled.plan._plan, <const uint8_t *>name, <uint32_t>len(header))
        if session is not None and session.sources:
            if session.keys:
                self.secrets = tuple([read_secret(place) for place in session.keys])
            else:
                kept = before is not None and before.secrets is not None and not before.settings.session.keys
                self.secrets = before.secrets if kept else (urandom(32),)
            self.reader = SessionReader(session.sources, self.secrets, self.compiled.plan)
        self.asks_who = self.compiled.live is not None or session is not None
        return 0

    def session_key(self, value, /):
        """The key of the session with this value; see `Engine.session_key`."""
        if self.reader is None:
            raise ValueError("the rules do not say where a session is; write session: {cookie: sid, keys: [...]}")
        return self.reader.keys(value)[0]

    cdef int take_fixed(self) except -1:
        """Puts thresholds that the rules alone say in force."""
        if self.classes != NULL:
            for name in self.compiled.records.fixed:
                self.rates.set_threshold(name, self.compiled.records.thresholds[name])
        return 0

    def __dealloc__(self):
        free(self.hits)
        free(self.weighs)
        free(self.classes)

    cdef int wanted(self, bint headers_known) noexcept:
        """What rules and live state want of a scan (Wanted)."""
        cdef int wanted = SLOTS
        if headers_known and (gbf_decide_uses_fingerprint(&self.state) or
                              (self.limits is not None and self.limits.by_fingerprint)):
            wanted = FINGERPRINT if self.state.score == NULL else SHAPE
        elif headers_known and self.names.count != 0 and (
                gbf_labels_present(self.bans._labels) & (GBF_BANS_FINGERPRINT | 15 * GBF_BANS_FINGERPRINT_AT4)):
            wanted = FINGERPRINT
        if self.compiled.requests is not None and self.compiled.requests.asks > wanted:
            wanted = self.compiled.requests.asks
        return wanted

    cdef int judge(self, SignalDecision d, int outcome) noexcept:
        """Decides whether the trace of a request with this outcome is kept."""
        cdef CompiledRules compiled = self.compiled
        cdef RecordTable records = compiled.records
        cdef uint32_t rule = d.record_rule_index(outcome), kind = GBF_RECORDED_NONE
        cdef uint64_t threshold = 0
        d._record.outcome = <uint8_t>outcome
        if rule != GBF_NONE:
            kind = (<const uint8_t *><const char *>records._kinds)[rule - compiled._rules.ends[GBF_SHARE]]
            if kind == GBF_RECORDED_RATE:
                threshold = gbf_rates_threshold(self.rates.classes,
                                                self.classes[rule - compiled._rules.ends[GBF_SHARE]])
                if gbf_record_needs_id(&d._record, kind):
                    draw_id(&d._record)
        gbf_record_decide(&d._record, rule, kind, threshold)
        return 0

    cdef double added(self, Decision d) noexcept:
        """What the `log` rules that match add to the score."""
        cdef const gbf_rules *rules = &self.compiled._rules
        cdef uint32_t rule = gbf_rules_next(rules, d._vector, rules.logged, 0)
        cdef double total = 0
        while rule != GBF_NONE:
            total += self.weighs[rule]
            rule = gbf_rules_next(rules, d._vector, rules.logged, rule + 1)
        return total


cdef LimitTable limit_table(settings, ruleset, EngineState before, bytes seed):
    """Where the limits of a snapshot count: on where those of the snapshot before it did, as far as that fits."""
    if before is not None and before.counts is not None and before.counts.capacity == settings.capacity:
        return before.counts
    path = None if seed is not None or not settings.share else shared_limits(getattr(ruleset, "source", None))
    if path is not None:
        try:
            return LimitTable(path, capacity=settings.capacity)
        except (OSError, GobanError) as error:
            from logging import getLogger

            getLogger("gobanfast.rules").warning("limits count in this process alone: %s", error)
    return LimitTable(None, capacity=settings.capacity, seed=seed)


def stored_key(rule):
    """0 when a match of this rule stores no ban, else one more than the index in KEYS of what it bans.

    A rule about the address alone stays in force by itself; one that asks for more, and says for how long, is stored.
    """
    if rule.action != "ban" or rule.duration is None or rule.mode != "enforce" or not rule.when.on_signals:
        return 0
    return 1 + KEYS.index(rule.key)


cdef str address_text(address):
    """The text of an address that is no str; TypeError for what is no address object either."""
    from ipaddress import IPv4Address, IPv6Address

    if isinstance(address, (str, IPv4Address, IPv6Address)):
        return "" + str(address)
    raise TypeError(f"address is {address!r:.60}, {type(address).__name__} and not str; "
                    "packed ones go to decide_packed")


cdef int observe(object candidate, str address, str sni, ClientHello hello, str ja4, object headers, str method,
                 str path, str http, str mount, str scheme, str host) except -1:
    if candidate is not None:  # another thread may have ended the trial since the caller looked
        candidate.observe(address, sni=sni, hello=hello, ja4=ja4, headers=headers, method=method, path=path, http=http,
                          mount=mount, scheme=scheme, host=host)
    return 0


cdef inline int take(Request *request, str sni, ClientHello hello, str ja4, object headers, str method, str path,
                     str http, str mount, str scheme, str host) noexcept:
    """Borrows the arguments of a call."""
    request.sni, request.headers, request.method = <PyObject *>sni, <PyObject *>headers, <PyObject *>method
    request.tls = <PyObject *>ja4 if hello is None else <PyObject *>hello
    request.path, request.http, request.mount = <PyObject *>path, <PyObject *>http, <PyObject *>mount
    request.scheme, request.host = <PyObject *>scheme, <PyObject *>host
    request.scanned, request.trace, request.trust, request.inside = NULL, NULL, NULL, False
    request.peer = <PyObject *>None
    request.live = NULL
    return 0


cdef int start_live(Live *live, EngineState snapshot, object session, str uid) noexcept:
    """Borrows what says who is behind a request."""
    live.labels, live.words, live.address, live.now = NULL, &snapshot.names, NULL, 0
    live.reader, live.session, live.uid = <PyObject *>snapshot.reader, <PyObject *>session, <PyObject *>uid
    live.query, live.uid_slot = <PyObject *>None, GBF_HEADER_NO_SLOT
    return 0


cdef class EngineCore:
    """The hot half of `gobanfast.Engine`: one reference to a snapshot, and the calls that read it.

    Args:
        compiled: the rules.
        settings: what they say about bans, trackers and score.
        clock: seconds that do not go backwards, for decisions without `now=`; None: time.monotonic.
        seed: stands for what is drawn at random in live state, so that a replay repeats; None draws it.
        ruleset: what the rules came from, for whoever asks `snapshot` for it.
    """

    @classmethod
    def _make(cls, CompiledRules compiled not None, settings not None, clock=None, bytes seed=None, ruleset=None):
        cdef BanTable bans = BanTable(capacity=settings.bans.capacity, clock=clock,
                                      seed=None if seed is None else int.from_bytes(seed, "little"),
                                      labels=settings.labels.capacity)
        cdef EngineState snapshot = EngineState(compiled, settings, bans, None, seed, ruleset)
        cdef EngineCore engine
        on_swap, hits_before, learned_clients = [], {}, {}
        bans.configure(escalate=settings.bans.escalate, on_full=settings.bans.on_full)
        snapshot.generation = 1
        engine = bare(allocate, cls)
        engine._clock, engine._seed, engine.ban_table, engine.snapshot = clock, seed, bans, snapshot
        engine.on_swap, engine._hits_before, engine._learned_clients = on_swap, hits_before, learned_clients
        return engine

    @property
    def compiled(self):
        """The rules in force."""
        return self.snapshot.compiled

    @property
    def ruleset(self):
        """The ruleset in force, from the one reference that a swap replaces; None for a core made without one."""
        return self.snapshot.ruleset

    @property
    def generation(self):
        """Number of the snapshot in force: 1, and one more with each swap."""
        return self.snapshot.generation

    def _swap(self, CompiledRules compiled not None, settings not None, ruleset=None):
        """Puts rules in force; (snapshot before, snapshot now). What raises does so before anything has changed."""
        cdef EngineState before = self.snapshot
        cdef EngineState made = EngineState(compiled, settings, self.ban_table, before, self._seed,
                                            before.ruleset if ruleset is None else ruleset)
        self.ban_table.configure(escalate=settings.bans.escalate, on_full=settings.bans.on_full)
        before = self.snapshot  # another thread may have swapped meanwhile; from here to the next line none can
        made.generation = before.generation + 1
        self.snapshot = made
        made.take_fixed()
        self.keep_hits(before)
        return before, made

    cdef int keep_hits(self, EngineState snapshot) except -1:
        """Adds what its rules decided to the figures that outlive it."""
        for rule, count in hits_of(snapshot).items():
            self._hits_before[rule] = self._hits_before.get(rule, 0) + count
        return 0

    def decided(self):
        """Dict of decisions since the engine was made: {(cause, action): count}; `peek` and columns are not counted."""
        return {
            (cause, action): self.counts[GBF_ACTIONS * i + j]
            for i, cause in enumerate(enums.CAUSES) for j, action in enumerate(enums.DECISIONS)
            if self.counts[GBF_ACTIONS * i + j] != 0
        }

    def hits(self):
        """Dict of decisions since the engine was made by the id of the rule that decided. Of decisions that other
        threads make in the instant of a swap a few may not be counted."""
        return {key: count for key, count in self.all_hits().items() if type(key) is str}

    def recorded(self):
        """Dict of what record rules decided since the engine was made: {(action, id of the rule): count}."""
        return {key: count for key, count in self.all_hits().items() if type(key) is tuple and key[0] in enums.RECORDED}

    def shared(self):
        """Dict of what was shared since the engine was made: {(share, id of the rule): count}; without a rule, because
        no rule grants what others own, the id is None."""
        found = {key: count for key, count in self.all_hits().items() if type(key) is tuple and key[0] in enums.SHARED}
        if self.withheld != 0:
            found["withheld", None] = self.withheld
        return found

    cdef dict all_hits(self):
        found = dict(self._hits_before)
        for key, count in hits_of(self.snapshot).items():
            found[key] = found.get(key, 0) + count
        return found

    def decide(self, address, /, *, str sni=None, ClientHello hello=None, headers=None, str method=None,
               str path=None, str http=None, str ja4=None, now=None, str mount="", str scheme=None, str host=None,
               session=None, str uid=None):
        """Decision about a client address (text, or an object of the module ipaddress); None: it is not known.

        Args:
            sni: the server name the client asked for; None means absent, unless `hello` has one.
            hello: the ClientHello, from `parse_client_hello`; gives the name, JA4, protocols, version and ECH.
            headers: list of (name, value) bytes as ASGI has them, or a WSGI environ; None: not known, and no rule that
                asks for a header decides, not even for an absent one.
            method, path: of the request; without them pseudo headers or the environ say. The path is as it was sent,
                percent-encoded (one that a server has decoded is another: `%` in it is %25); its query is ignored.
                Rules ask all its readings (docs/rules.md).
            http: the version, "1.0", "1.1", "2" or "3", when headers are as they were on the wire.
            ja4: the JA4 as a proxy that ends TLS tells it. It stands in for that of a hello and for nothing else in
                one: protocols, version and ECH stay absent. Where there is a hello it is not looked at.
            now: engine seconds, for replay; None reads the engine's clock.
            mount: prefix under which clients reach the application (root_path, SCRIPT_NAME), "" for none. The path may
                begin with it or not: rules see it with the mount and without.
            scheme: "http" or "https" ("ws", "wss"), which says the port of a host that names none; None: `:scheme`, or
                what the environ says.
            host: in place of the header, as a trusted proxy tells it.
            session: the value of the session, in place of what `session:` of the rules finds; "" for none.
            uid: who is logged in: labels and bans of `uid:<name>` are asked for.
        The first that decides: an `allow` rule, a stored ban or the closed flag of `ban_table`, another rule,
        a tracker, policy `unparsable`, the score.
        What cannot be read is no error. When nothing before it decides and a signal that some rule asks for cannot be
        read (an address text that is none counts whatever rules ask), the ruleset's `unparsable` policy does: reason
        "malformed-address", else "malformed-hello" (any status but "ok"), "malformed-ja4", "malformed-sni",
        "malformed-headers", "malformed-method" or "malformed-path".
        Cost: two to five cache lines and one small object, a line or two for each pattern that covers the name, and
        what `hello.ja4` costs if a rule asks for it; a line for each kind of key that is banned, four for trackers,
        about as many for the score. `re:` patterns run in RE2. Any number of threads.
        Source: csrc/DESIGN.md, "What decides".
        """
        cdef Request request
        cdef Live live
        cdef EngineState snapshot = self.snapshot
        if type(address) is not str and address is not None:
            return EngineCore.decide(self, address_text(address), sni=sni, hello=hello, headers=headers, method=method,
                                     path=path, http=http, ja4=ja4, now=now, mount=mount, scheme=scheme, host=host,
                                     session=session, uid=uid)
        if self.candidate is not None:
            observe(self.candidate, <str>address, sni, hello, ja4, headers, method, path, http, mount, scheme, host)
        take(&request, sni, hello, ja4, headers, method, path, http, mount, scheme, host)
        start_live(&live, snapshot, session, uid)
        return self.decide_request(snapshot, <str>address, &request, &live, now, False)

    def peek(self, address, /, *, str sni=None, ClientHello hello=None, headers=None, str method=None,
             str path=None, str http=None, str ja4=None, now=None, str mount="", str scheme=None, str host=None,
             session=None, str uid=None):
        """What `decide` would answer, changing nothing: no ban is made, and neither trackers nor score take note."""
        cdef Request request
        cdef Live live
        cdef EngineState snapshot = self.snapshot
        if type(address) is not str and address is not None:
            return EngineCore.peek(self, address_text(address), sni=sni, hello=hello, headers=headers, method=method,
                                   path=path, http=http, ja4=ja4, now=now, mount=mount, scheme=scheme, host=host,
                                   session=session, uid=uid)
        take(&request, sni, hello, ja4, headers, method, path, http, mount, scheme, host)
        start_live(&live, snapshot, session, uid)
        return self.decide_request(snapshot, <str>address, &request, &live, now, True)

    def vouch(self, Decision decision not None, /, *, now=None):
        """Tells the score that the client of a challenged request has passed its challenge.

        The score then learns the request's name, fingerprint and score as of one that it would have let in, so that
        what is only new becomes usual. True when it did: for a decision whose score reached the threshold, once, and
        once for a client in five minutes, because a solution may be shown again. False and no effect otherwise,
        whatever rules are in force by now. Call it for a challenge that was solved, not for every request that shows
        the pass: whoever solves challenges teaches at the rate he solves them.

        Args:
            now: engine seconds, for replay; None reads the engine's clock.
        Cost: that of a score, and a dict of at most 10,000 clients; while that is full, nobody is learned from.
        Source: csrc/DESIGN.md, "Score".
        """
        cdef EngineState snapshot = self.snapshot
        cdef gbf_decide_request request
        cdef gbf_addr parsed, client
        cdef const char *text
        cdef size_t n
        cdef uint32_t bits
        cdef double seconds
        if snapshot.scorer is None or decision._vouched or not decision._score >= decision._threshold:
            return False
        if now is None and self._clock is None:
            seconds = gbf_now_ms() / 1000.0
        else:
            seconds = self._clock() if now is None else now
        memset(&request, 0, sizeof(request))
        memset(&client, 0, sizeof(client))  # those without an address are one
        if decision._leaf != GBF_NONE and gbf_ascii(decision.address, &text, &n) and gbf_addr_parse(text, n, &parsed):
            client = gbf_addr_client(parsed, snapshot.state.ipv6_bits, &bits)
            request.address = &parsed
            request.asn = decision._compiled._rules.leaves[decision._leaf].asn
        who = (client.high, client.low)
        if not self.may_learn(who, seconds):
            return False
        if type(decision) is SignalDecision:
            name_hash(&request, (<SignalDecision>decision)._sni, (<SignalDecision>decision)._tls)
            hashes_of(&request, <SignalDecision>decision)
        if not gbf_decide_vouch(&snapshot.state, &request):
            return False
        decision._vouched = 1
        self._learned_clients[who] = seconds
        return True

    def seconds(self, now=None, /):
        """Engine seconds: `now`, or those of its clock."""
        return self.time_of(now) / 1000.0

    def pardon(self, Decision decision not None, /, *, now=None):
        """Forgets what the tracker counted that challenged this request: its client has solved a fresh challenge.

        Args:
            now: engine seconds, for replay; None reads the engine's clock.
        """
        cdef EngineState snapshot = self.snapshot
        if decision._cause != GBF_CAUSE_TRACKER:
            return
        if decision._limit is not None and (<LimitState>decision._limit).over:
            (<LimitState>decision._limit).limits.pardon(decision, self.time_of(now) / 1000.0)
        elif snapshot.trackers is not None and decision._leaf != GBF_NONE:
            snapshot.trackers.forget(decision.address)

    cdef bint may_learn(self, tuple who, double seconds) except -1:
        last = self._learned_clients.get(who)
        if last is not None and seconds < last + TEACH_SECONDS:
            return False
        if last is None and len(self._learned_clients) >= MAX_LEARNED_CLIENTS:
            self._learned_clients = {client: at for client, at in list(self._learned_clients.items())
                                     if seconds < at + TEACH_SECONDS}
        return last is not None or len(self._learned_clients) < MAX_LEARNED_CLIENTS

    cdef Decision decide_request(self, EngineState snapshot, str address, Request *request, Live *live, object now,
                                 bint peek):
        """Decision by one snapshot; the candidate was told."""
        cdef CompiledRules compiled = snapshot.compiled
        cdef const char *text
        cdef size_t n
        cdef uint32_t leaf = GBF_NONE
        cdef gbf_addr parsed
        cdef Decision d
        if address is not None and gbf_ascii(address, &text, &n):
            leaf = compiled._rules.kernel.find_text(&compiled._rules.lpm, text, n, &parsed)
        if request.scanned == NULL:
            request.wanted = snapshot.wanted(request.headers != <PyObject *>None)
        if snapshot.asks_who or live.uid != <PyObject *>None:
            live.address = &parsed if leaf != GBF_NONE else NULL
            if snapshot.names.count != 0 and gbf_labels_present(snapshot.bans._labels) != 0:
                live.labels, live.now = snapshot.bans._labels, GBF_BAN_EPOCH + self.time_of(now)
            request.live = live
        d = decide_leaf(compiled, leaf, address, request)
        if not gbf_decide_idle(&snapshot.state) or snapshot.timed or (
                snapshot.any_stored and d._rule != GBF_NONE and snapshot.stores[d._rule]):
            self.apply_state(snapshot, d, &parsed if leaf != GBF_NONE else NULL, <str>request.sni,
                             <object>request.tls, now, peek)
        if compiled.records is not None:
            record_first(snapshot, <SignalDecision>d, request)
            if not peek and (<SignalDecision>d)._record.rule != GBF_NONE:
                gbf_count(&snapshot.hits[(<SignalDecision>d)._record.rule])
        if not peek:
            gbf_count(&self.counts[GBF_ACTIONS * d._cause + d._action])
            if d._cause == GBF_CAUSE_RULE:
                gbf_count(&snapshot.hits[d._rule])
            if compiled._rules.ends[GBF_SHARE] != compiled._rules.ends[GBF_ADMIT]:
                self.count_share(snapshot, <SignalDecision>d)
        return d

    cdef int record_again(self, EngineState snapshot, SignalDecision d, int outcome) noexcept:
        """Decides anew, now that it is known what became of the request."""
        cdef uint32_t rule = d._record.rule
        snapshot.judge(d, outcome)
        if d._record.rule != rule:
            d._trace = None  # made anew, with the same ids
            if rule != GBF_NONE:
                snapshot.hits[rule] -= 1
            if d._record.rule != GBF_NONE:
                gbf_count(&snapshot.hits[d._record.rule])
        return 0

    cdef int count_share(self, EngineState snapshot, SignalDecision d) noexcept:
        cdef uint32_t rule
        if d.shared() != GBF_SHARED_NONE:
            rule = d.share_rule_index()
            if rule != GBF_NONE and type(d._answer) is str:  # a grant that does not cover what a preflight announces
                rule += <uint32_t>snapshot.compiled._rules.ends[GBF_RECORD]
            gbf_count(&snapshot.hits[rule] if rule != GBF_NONE else &self.withheld)
        return 0

    cdef int apply_state(self, EngineState snapshot, Decision d, const gbf_addr *address, str sni, object tls,
                         object now, bint peek) except -1:
        """Holds what the rules said against bans, trackers and score."""
        cdef CompiledRules compiled = snapshot.compiled
        cdef gbf_decide_request request
        cdef gbf_decide_answer said
        cdef gbf_ban_who who
        request.address, request.fingerprint, request.shape = address, NULL, NULL
        request.uid = NULL
        if type(d) is SignalDecision and (<SignalDecision>d)._uid is not None:
            request.uid = &(<SignalDecision>d)._user
        if type(d) is SignalDecision and not (<SignalDecision>d)._preflight:
            hashes_of(&request, <SignalDecision>d)
        request.name = request.host = 0
        request.added = 0
        request.has_name = False
        request.asn = 0 if d._leaf == GBF_NONE else compiled._rules.leaves[d._leaf].asn
        request.decided = d._rule != GBF_NONE
        if type(d) is SignalDecision and (<SignalDecision>d)._preflight:
            who = gbf_ban_who(address, NULL, request.uid, request.asn)
            if not request.decided and gbf_bans_find(snapshot.state.bans, &who, GBF_BAN_EPOCH + self.time_of(now),
                                                     &said.ban):
                d._cause = GBF_CAUSE_OUTAGE if said.ban.key.kind == GBF_BAN_EVERYONE else GBF_CAUSE_BAN
                d._action = GBF_BAN
                d._ban = stored_ban(snapshot.bans, &said.ban) if d._cause == GBF_CAUSE_BAN else None
            return 0
        if not snapshot.timed and not (request.decided and snapshot.stores[d._rule]):
            who = gbf_ban_who(address, request.fingerprint, request.uid, request.asn)
            if not gbf_bans_find(snapshot.state.bans, &who, 0, &said.ban):
                return 0  # no key of it is stored, whatever the time
        request.now_ms = self.time_of(now)
        request.rule_action = compiled._rules.actions[d._rule] if d._rule != GBF_NONE else GBF_ALLOW
        request.unparsable = d._unparsable != GBF_UNPARSABLE_NONE
        request.policy = <uint8_t>compiled.unparsable
        request.peek = peek
        if snapshot.state.score != NULL:
            name_hash(&request, sni, tls)
            if snapshot.weighs != NULL:
                request.added = snapshot.added(d)
        gbf_decide_apply(&snapshot.state, &request, &said)
        d._cause, d._action, d._trip = said.cause, said.action, said.trip
        d._score, d._threshold, d._coverage = said.score, said.threshold, said.coverage
        if snapshot.limits is not None and d._action != GBF_BAN and not (
                d._cause == GBF_CAUSE_RULE and d._action == GBF_ALLOW):
            self.hold_limits(snapshot, d, &request, peek)
        if said.cause == GBF_CAUSE_BAN:
            d._ban = stored_ban(snapshot.bans, &said.ban)
        elif not peek:
            if snapshot.crowd is not None and d._cause == GBF_CAUSE_NONE and address != NULL:
                gbf_crowd_note(snapshot.crowd.crowd, tracked_client(address[0], snapshot.state.ipv6_bits),
                               request.now_ms)
            if said.trip_ban:
                self.ban_tripped(snapshot, d, &request)
            elif said.cause == GBF_CAUSE_RULE and snapshot.stores[d._rule]:
                self.ban_matched(snapshot, d, &request)
        return 0

    cdef int hold_limits(self, EngineState snapshot, Decision d, const gbf_decide_request *request,
                         bint peek) except -1:
        """Holds the request against the limits; whoever is over one that is harder than what was decided gets that."""
        cdef gbf_addr client
        cdef gbf_ban_key key
        cdef uint32_t bits
        cdef int action
        if request.address != NULL:
            if gbf_exempt_covers(snapshot.state.exempt, request.address[0], request.asn):
                return 0
            client = gbf_addr_client(request.address[0], snapshot.state.ipv6_bits, &bits)
        headers = (<SignalDecision>d)._headers if type(d) is SignalDecision else None
        action = snapshot.limits.hold(d, &client if request.address != NULL else NULL, request.fingerprint, request.asn,
                                      headers, request.now_ms, peek)
        if action <= d._action:
            if d._limit is not None:
                (<LimitState>d._limit).over = False  # what decided is as hard
            return 0
        d._cause, d._action = GBF_CAUSE_TRACKER, <uint8_t>action
        if action == GBF_BAN and not peek and request.address != NULL:
            rule = (<LimitState>d._limit).rule_of(snapshot.compiled.rules)
            key = gbf_ban_client(request.address[0], snapshot.state.ipv6_bits)
            if rule.limit.key == "fingerprint" and request.fingerprint != NULL:
                key = gbf_ban_fingerprint(request.fingerprint)
            self.store(snapshot, d, &key, rule.duration, rule.reason or rule.id, rule.id, GBF_BY_TRACKER,
                       request.now_ms)
        return 0

    cdef uint64_t time_of(self, object now) except? 0:
        """Engine milliseconds."""
        cdef double seconds
        if now is None and self._clock is None:
            return gbf_now_ms()
        seconds = self._clock() if now is None else now
        return <uint64_t>(seconds * 1000 + 0.5) if seconds > 0 else 0

    cdef int ban_tripped(self, EngineState snapshot, Decision d, const gbf_decide_request *request) except -1:
        """Bans the client whose tracker tripped."""
        cdef gbf_ban_key key = gbf_ban_client(request.address[0], snapshot.state.ipv6_bits)
        name = enums.LIMITS[d._trip]
        limit = getattr(snapshot.settings.trackers, name)
        return self.store(snapshot, d, &key, limit.duration, name, name, GBF_BY_TRACKER, request.now_ms)

    cdef int ban_matched(self, EngineState snapshot, Decision d, const gbf_decide_request *request) except -1:
        """Bans what the rule that decided says it bans; nothing when that is not known of this request."""
        cdef gbf_ban_key key
        cdef int what = snapshot.stores[d._rule]
        rule = snapshot.compiled.rules[d._rule]
        if what == 1 and request.address != NULL:
            key = gbf_ban_client(request.address[0], snapshot.state.ipv6_bits)
        elif what == 2 and request.fingerprint != NULL:
            key = gbf_ban_fingerprint(request.fingerprint)
        elif what == 3 and request.address != NULL and request.fingerprint != NULL:
            key = gbf_ban_fingerprint_at(request.fingerprint, request.address[0], snapshot.state.ipv6_bits)
        else:
            return 0
        return self.store(snapshot, d, &key, rule.duration, rule.reason, rule.id, GBF_BY_RULE, request.now_ms)

    cdef int store(self, EngineState snapshot, Decision d, const gbf_ban_key *key, object duration, str reason,
                   str rule, uint8_t by, uint64_t now_ms) except -1:
        cdef gbf_ban made
        if snapshot.spared is not None and d.address is not None and snapshot.spared(d.address, rule):
            return 0
        if snapshot.bans.make(key, duration, reason, rule, by, GBF_BAN_EPOCH + now_ms, &made) == GBF_BAN_REFUSED:
            return 0
        d._ban = stored_ban(snapshot.bans, &made)
        if snapshot.crowd is not None:
            self._climb(now_ms / 1000.0)
        return 0

    def _climb(self, double now):
        """What an Engine does after a ban, where bans of addresses may grow into those of networks."""

    def leaves(self, addresses, out, /, *, bint others_absent=False):
        """Leaf index of each address into `out`; `decision(index)` says what a leaf means.

        Args:
            others_absent: True takes every signal besides the address as absent, for data that holds no other.
            addresses: uint32 buffer (IPv4, host order), n x 16 bytes (network order), or a list of str.
            out: writable buffer of n uint32; 0xFFFFFFFF where a text is not an address.
        Raises:
            ValueError: buffers that do not fit; or rules that ask for other signals, which the message names.
        Cost: 2 to 20 ns an address; rows with one leaf share one decision, so count leaves, then ask.
        """
        cdef CompiledRules compiled = self.snapshot.compiled
        if (compiled.signals is not None or compiled.requests is not None) and not others_absent:
            raise ValueError(f"rules {', '.join(compiled.beyond_address)} ask for more than the address; "
                             "others_absent=True takes other signals as absent")
        leaves_many(&compiled._rules.lpm, compiled._rules.kernel, addresses, out)

    def decision(self, uint32_t leaf, /):
        """The decision that rules alone give every address of this leaf (0xFFFFFFFF: a text that is not an address),
        other signals absent."""
        cdef EngineState snapshot = self.snapshot
        cdef CompiledRules compiled = snapshot.compiled
        cdef Request request
        cdef Decision made
        if leaf != GBF_NONE and leaf >= compiled._rules.leaf_count:
            raise ValueError(f"leaf {leaf} does not exist; there are {compiled._rules.leaf_count}")
        start_request(&request)
        made = decide_leaf(compiled, leaf, None if leaf != GBF_NONE else "", &request)
        if compiled.records is not None:
            record_first(snapshot, <SignalDecision>made, &request)
        return made


cdef int record_first(EngineState snapshot, SignalDecision d, const Request *request) except -1:
    """Whether the trace is kept, as far as is known before anything became of the request."""
    if d._record.source != GBF_TRACE_NOTHING or d._baggage is not None:
        records = d._compiled.records
        trusted = snapshot.trusted if request.trust == NULL else (<object>request.trust).peers
        peer = <object>request.peer
        d.trust_trace(trusted, request.inside or (records.edge is not None and peer is not None and
                                                  peer in records.edge))
    return snapshot.judge(d, d.outcome_now())


cdef dict hits_of(EngineState snapshot):
    """What the rules of a snapshot decided: by id, and by (share, id) what rules about sharing did."""
    cdef Py_ssize_t i, count = len(snapshot.compiled.rules)
    found = {}
    for i in range(count):
        if snapshot.hits[count + i] != 0:
            found["withheld", snapshot.compiled.rules[i].id] = snapshot.hits[count + i]
        if snapshot.hits[i] != 0:
            rule = snapshot.compiled.rules[i]
            key = rule.id if rule.effect == "admit" else (SHARED_BY.get(rule.action, rule.action), rule.id)
            found[key] = snapshot.hits[i]
    return found


cdef inline int hashes_of(gbf_decide_request *request, SignalDecision d) noexcept:
    """Fills in fingerprint and shape, as far as the decision has them."""
    if d._has >= FINGERPRINT:
        request.fingerprint = d._fingerprint
    if d._has == SHAPE:
        request.shape = d._shape
    return 0


only_whole(EngineState)
cdef newfunc allocate = only_whole(EngineCore)


cdef int name_hash(gbf_decide_request *request, str sni, object tls) except -1:
    """Fills in the hash of the server name, if there is one; all malformed names are one."""
    cdef gbf_name name
    cdef const char *text = NULL
    cdef size_t nbytes = 0
    if sni is not None:
        gbf_ascii(sni, &text, &nbytes)
    elif type(tls) is ClientHello and (<ClientHello>tls)._frame.status == GBF_HELLO_OK:
        if (<ClientHello>tls)._hello.name.at == 0:
            return 0
        text = <const char *>(<ClientHello>tls)._hello.message + (<ClientHello>tls)._hello.name.at
        nbytes = (<ClientHello>tls)._hello.name.nbytes
    else:
        return 0
    request.has_name = True
    if text != NULL and gbf_name_read(&name, text, nbytes, gbf_name_fold_scalar):
        request.name = gbf_xxh3_64(name.text, name.nbytes, 0)
    request.host = request.name
    return 0
