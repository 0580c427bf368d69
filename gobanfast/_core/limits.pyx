"""Limits: counts of requests and answers per key in a table that workers of a host share, and what rules say of it."""

import os

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport getpid

from gobanfast._core.decision cimport Decision, SignalDecision
from gobanfast._core.made cimport only_whole
from gobanfast._core.native.address cimport gbf_addr
from gobanfast._core.native.base cimport (
    GBF_ALLOW, GBF_CHALLENGE, GBF_OK, GBF_SHARED_CONTENT, GBF_SHARED_HEADER, gbf_fault, gbf_shared_start,
)
from gobanfast._core.native.hash cimport gbf_hash128, gbf_siphash128, gbf_xxh3_64
from gobanfast._core.native.state cimport (
    GBF_LIMIT_CLEAR, GBF_LIMIT_COUNT, GBF_LIMIT_GIVE, GBF_LIMIT_LOOK, GBF_LIMIT_TAKE, gbf_limit, gbf_limit_answer,
    gbf_limit_do, gbf_limit_key, gbf_limit_set, gbf_limit_step, gbf_limits_nbytes, gbf_limits_open,
)

from gobanfast._core import enums
from gobanfast._core.shared_file import join_file, leave_file

cdef enum:
    MOST = 64  # limits of a ruleset, a bit each
    NO_PLACE = 0xFFFFFFFF
    MAX_KEY = 4096  # bytes of a header that a limit counts by

cdef tuple ELSEWHERE = (301, 307, 308)  # statuses that send a request to another spelling of its path: no success

cdef dict STEPS = {"look": GBF_LIMIT_LOOK, "take": GBF_LIMIT_TAKE, "count": GBF_LIMIT_COUNT, "give": GBF_LIMIT_GIVE,
                   "clear": GBF_LIMIT_CLEAR}
cdef dict KINDS = {"client": BY_CLIENT, "fingerprint": BY_FINGERPRINT, "asn": BY_ASN, "header": BY_HEADER,
                   "cookie": BY_COOKIE, "given": BY_GIVEN, "session": BY_SESSION, "uid": BY_UID}


@cython.final
cdef class LimitTable:
    """The counts of all limits of an engine, in memory of a fixed size.

    Args:
        path: file by which workers share them, made where there is none; None: memory of this process. Whoever opens it
            while nobody else does finds it empty.
        capacity: keys that have a count at a time; one that is over may be given away.
        seed: of the keyed hash, for replay; None draws it.
    Raises:
        FormatError: the file is something else. GobanError: others may write to it.
    Threads: any number, of any number of processes; nobody waits. A forked child shares it with its parent.
    Source: csrc/DESIGN.md, "Limits".
    """

    @staticmethod
    def _make(path=None, *, uint32_t capacity=65_536, bytes seed=None):
        cdef LimitTable made
        cdef uint64_t nbytes, drawn
        cdef uint8_t header[GBF_SHARED_HEADER]
        cdef bytes content = b"limits 1".ljust(GBF_SHARED_CONTENT, b"\0")
        cdef Py_buffer view
        cdef void *memory = NULL
        cdef int file = -1
        if not 8 <= capacity <= 100_000_000:
            raise ValueError(f"capacity={capacity} is out of range; give 8 to 100,000,000")
        nbytes = gbf_limits_nbytes(capacity)
        drawn = int.from_bytes(os.urandom(8) if seed is None else seed[:8]) | 1
        mapped = name = None
        if path is not None:
            name = os.path.abspath(os.fsdecode(path))
            gbf_shared_start(header, capacity, 128, <const uint8_t *>PyBytes_AS_STRING(content))
            mapped, file = join_file(name, header[:GBF_SHARED_HEADER], GBF_SHARED_HEADER + nbytes)
            PyObject_GetBuffer(mapped, &view, PyBUF_WRITABLE)
        else:
            memory = calloc(1, nbytes + 63)
            if memory == NULL:
                raise MemoryError()
        made = LimitTable.__new__(LimitTable)
        made.path, made.capacity, made._map, made._file, made._pid = name, capacity, mapped, file, getpid()
        made._memory = memory
        if mapped is not None:
            made._view = view
            gbf_limits_open(&made.table, <uint8_t *>view.buf + GBF_SHARED_HEADER, capacity, drawn)
        else:
            gbf_limits_open(&made.table, <void *>((<size_t>memory + 63) & ~<size_t>63), capacity, drawn)
        return made

    def __dealloc__(self):
        free(self._memory)
        if self._map is None:
            return
        PyBuffer_Release(&self._view)
        if self._pid == getpid():
            leave_file(self.path, self._file)
        os.close(self._file)

    @property
    def nbytes(self):
        """Bytes, fixed at creation."""
        return gbf_limits_nbytes(self.capacity)

    def stats(self):
        """Counters of all workers: keys that were forgotten for others (evicted), requests of keys for which there was
        no room (untracked)."""
        return {"evicted": self.table.header.evicted, "untracked": self.table.header.untracked}

    def step(self, str what not None, bytes key not None, uint32_t limit, double window, *, uint32_t burst=0,
             uint32_t cost=1, str name="", double now):
        """(admitted, tracked, left, seconds to wait, seconds until all of it is there again) after one step of a key.

        Args:
            what: "look", "take", "count", "give" or "clear"; see csrc/state/gbf_limit.h.
            key: any bytes.
            limit, window: so many in so many seconds, from the first on; with `burst` a token bucket of that size.
        """
        cdef gbf_limit rules = limit_of(name, limit, window, burst)
        cdef gbf_limit_answer answer
        gbf_limit_do(&self.table, &rules, hashed(self, key), STEPS[what], cost, milliseconds(now), &answer)
        return (bool(answer.admitted), bool(answer.tracked), answer.left, answer.wait_ms / 1000.0,
                answer.reset_ms / 1000.0)

    def __repr__(self):
        return f"<LimitTable of {self.capacity} keys, {'shared' if self.path else 'of this process'}>"


@cython.final
cdef class Limits:
    """The limits among the rules of a snapshot, over the counts of a LimitTable.

    Args:
        rules: of a ruleset, in decision order; those with a `limit` are limits.
    """

    @staticmethod
    def _make(rules not None, LimitTable table not None):
        cdef Limits made
        cdef LimitPlace place
        cdef list names = [], settings = [], fields = [], about = []
        cdef uint32_t i
        found = [(bit, rule) for bit, rule in enumerate(rules) if rule.limit is not None and rule.mode != "off"]
        if len(found) > MOST:
            raise ValueError(f"{len(found)} limits; there may be {MOST}")
        made = Limits.__new__(Limits)
        made._places = <LimitPlace *>calloc(len(found) + 1, sizeof(LimitPlace))
        if made._places == NULL:
            raise MemoryError()
        made.table, made._count = table, <uint32_t>len(found)
        for i, (bit, rule) in enumerate(found):
            said = rule.limit
            kind, _, field = said.key.partition(":")
            place.limit = limit_of(rule.id, said.limit, said.window, said.burst)
            place.rule, place.cost, place.by = bit, said.cost, KINDS[kind]
            place.action = <uint8_t>enums.ACTIONS.index(said.action)
            place.shadow, place.on_answer = rule.mode == "shadow", len(said.on_status) != 0
            made._places[i] = place
            made.by_fingerprint |= place.by == BY_FINGERPRINT
            names.append(rule.id)
            settings.append(said)
            fields.append(field or None)
            about.append(rule)
        made.names, made._settings, made._fields = tuple(names), tuple(settings), tuple(fields)
        made._rules = tuple(about)
        return made

    def __dealloc__(self):
        free(self._places)

    def __len__(self):
        return self._count

    cdef gbf_limit_key key_of(self, uint32_t place, Decision d, const gbf_addr *client, const uint64_t *fingerprint,
                              uint32_t asn, object headers) except *:
        """What a limit counts a request by; a key that is not there is the client."""
        cdef gbf_limit_key key
        cdef uint8_t by = self._places[place].by
        cdef object value
        if by == BY_FINGERPRINT and fingerprint != NULL:
            key.first, key.second = fingerprint[0], fingerprint[1]
            return key
        if by == BY_ASN and asn != 0:
            key.first, key.second = asn, 0x41534E
            return key
        if by == BY_HEADER or by == BY_COOKIE:
            value = value_of(headers, <str>self._fields[place], by == BY_COOKIE)
            if value is not None:
                return hashed(self.table, value)
        if by == BY_SESSION and type(d) is SignalDecision and (<SignalDecision>d)._alone:
            key.first, key.second = (<SignalDecision>d)._session_key.word[0], (<SignalDecision>d)._session_key.word[1]
            return key
        if by == BY_UID and type(d) is SignalDecision and (<SignalDecision>d)._uid is not None:
            return hashed(self.table, (<SignalDecision>d)._uid.encode("utf-8", "surrogatepass"))
        key.first = key.second = 0  # who has no address is one client
        if client != NULL:
            key.first, key.second = client.high, client.low
        return key

    cdef int hold(self, Decision d, const gbf_addr *client, const uint64_t *fingerprint, uint32_t asn, object headers,
                  uint64_t now_ms, bint peek) except -1:
        cdef uint32_t i, over = NO_PLACE, least = NO_PLACE
        cdef LimitPlace *place
        cdef LimitState state = None
        cdef gbf_limit_answer answer, tight, ignored
        cdef gbf_limit_key keys[MOST]
        cdef uint64_t taken = 0
        for i in range(self._count):
            place = &self._places[i]
            if not d._vector[place.rule >> 6] >> (place.rule & 63) & 1 or place.by == BY_GIVEN:
                continue
            if state is None:
                state = LimitState.__new__(LimitState)
                state.limits = self
            state.matched_bits |= <uint64_t>1 << i
            keys[i] = self.key_of(i, d, client, fingerprint, asn, headers)
            gbf_limit_do(&self.table.table, &place.limit, keys[i],
                         GBF_LIMIT_LOOK if peek or place.on_answer else GBF_LIMIT_TAKE, place.cost, now_ms, &answer)
            if not peek and not place.on_answer and answer.admitted and answer.tracked:
                taken |= <uint64_t>1 << i
            if (place.on_answer or place.action == GBF_CHALLENGE) and not peek:
                state.keep(i, keys[i])
            if not answer.admitted and place.shadow:
                state.shadow_bits |= <uint64_t>1 << i
            if place.shadow:
                continue
            if not answer.admitted:
                if over == NO_PLACE or place.action > self._places[over].action or (
                        place.action == self._places[over].action and answer.wait_ms > tight.wait_ms):
                    over, tight = i, answer
            elif over == NO_PLACE and (least == NO_PLACE or answer.left < tight.left):
                least, tight = i, answer
        if state is None:
            return GBF_ALLOW
        d._limit = state
        state.place = least if over == NO_PLACE else over
        if state.place != NO_PLACE:
            state.answer = tight
        if over == NO_PLACE:
            return GBF_ALLOW
        state.over = True
        for i in range(self._count):  # who is not let in uses nothing up
            if taken >> i & 1 and not self._places[i].shadow:
                gbf_limit_do(&self.table.table, &self._places[i].limit, keys[i], GBF_LIMIT_GIVE, self._places[i].cost,
                             now_ms, &ignored)
        return self._places[over].action

    def place(self, str name not None):
        """Index of the limit with this id; ValueError when there is none."""
        if name not in self.names:
            given = ", ".join(self.names) or "none"
            raise ValueError(f"limit {name!r} is not in the rules, which have {given}")
        return self.names.index(name)

    def key(self, uint32_t place):
        """What a limit counts by."""
        return self._settings[place].key

    def answered(self, Decision decision not None, int status, double now):
        """Counts the answer to a request that `hold` saw against the limits `on_status`, or clears them."""
        cdef LimitState state = decision._limit
        cdef gbf_limit_answer answer
        cdef gbf_limit_step step
        cdef uint32_t i
        if state is None or state.over or state.keys == NULL:  # what was not let in has no answer of the application
            return
        for i in range(self._count):
            if not state.matched_bits >> i & 1 or not self._places[i].on_answer:
                continue
            said = self._settings[i]
            if any([low <= status <= high for low, high in said.on_status]):
                step = GBF_LIMIT_COUNT
            elif any([low <= status <= high for low, high in said.clear_on]) and self.clears(i, decision, status):
                step = GBF_LIMIT_CLEAR
            else:
                continue
            gbf_limit_do(&self.table.table, &self._places[i].limit, state.keys[i], step, self._places[i].cost,
                         milliseconds(now), &answer)

    cdef bint clears(self, uint32_t place, Decision decision, int status) except -1:
        """Whether an answer may clear a limit: one to a path that the limit is about whatever a server makes of it, or
        `/x/..%2flogin`, which the application may serve as another page, would forget failed logins."""
        if status in ELSEWHERE:
            return False
        always_holds = decision._compiled.always_holds  # seldom asked: who has failed before may succeed
        if type(decision) is not SignalDecision or decision.path is None or always_holds is None:
            return True
        return always_holds(self._rules[place], decision.path.encode("utf-8", "replace"),
                            decision.mount.encode("utf-8", "replace"))

    def pardon(self, Decision decision not None, double now):
        """Forgets what the limit counted that challenged this request, whose client has passed."""
        cdef LimitState state = decision._limit
        cdef gbf_limit_answer answer
        if state is not None and state.over and state.keys != NULL:
            gbf_limit_do(&self.table.table, &self._places[state.place].limit, state.keys[state.place], GBF_LIMIT_CLEAR,
                         1, milliseconds(now), &answer)

    def given(self, uint32_t place, bytes key not None, str step not None, uint32_t cost, double now):
        """As LimitTable.step, for a limit of the rules by a key that the application gives."""
        cdef gbf_limit_answer answer
        gbf_limit_do(&self.table.table, &self._places[place].limit, hashed(self.table, key), STEPS[step], cost,
                     milliseconds(now), &answer)
        return (bool(answer.admitted), bool(answer.tracked), answer.left, answer.wait_ms / 1000.0,
                answer.reset_ms / 1000.0)


@cython.final
@cython.freelist(32)
@cython.no_gc
cdef class LimitState:
    """What the limits of the rules said of one request: of the one that decided, or of the one with least left."""

    _make = "a LimitState comes from Decision.limit"

    def __dealloc__(self):
        free(self.keys)

    cdef int keep(self, uint32_t place, gbf_limit_key key) except -1:
        """Notes by what a limit counts, for when the answer goes out."""
        if self.keys == NULL:
            self.keys = <gbf_limit_key *>calloc(self.limits._count, sizeof(gbf_limit_key))
            if self.keys == NULL:
                raise MemoryError()
        self.keys[place] = key
        return 0

    @property
    def id(self):
        """Id of the limit; None when the request is over shadow limits alone."""
        return None if self.place == NO_PLACE else self.limits.names[self.place]

    @property
    def limit(self):
        """Requests that it lets in: in a window, or a full bucket at once."""
        return 0 if self.place == NO_PLACE else self.limits._places[self.place].limit.limit

    @property
    def window(self):
        """Its window in seconds."""
        return 0.0 if self.place == NO_PLACE else self.limits._places[self.place].limit.window_ms / 1000.0

    @property
    def left(self):
        """How many more requests it would let in now."""
        return self.answer.left

    @property
    def wait(self):
        """Seconds until it would let this request in; 0 when it did."""
        return self.answer.wait_ms / 1000.0

    @property
    def reset(self):
        """Seconds until all of it is there again."""
        return self.answer.reset_ms / 1000.0

    @property
    def on_answer(self):
        """Whether it counts answers, not requests."""
        return self.place != NO_PLACE and bool(self.limits._places[self.place].on_answer)

    @property
    def matched(self):
        """Ids of the limits that are about this request."""
        return self.ids(self.matched_bits)

    @property
    def shadow(self):
        """Ids of the shadow limits that would not have let it in."""
        return self.ids(self.shadow_bits)

    cdef object rule_of(self, tuple rules):
        """The rule of the limit that decided."""
        return rules[self.limits._places[self.place].rule]

    cdef tuple ids(self, uint64_t bits):
        return tuple([name for i, name in enumerate(self.limits.names) if bits >> <int>i & 1])


cdef bytes value_of(object headers, str name, bint cookie):
    """The text of a header, or of a cookie, of a list of pairs or an environ; None where it is not there or empty.
    Several of one name are one value."""
    cdef bytes wanted, value = None
    header = "cookie" if cookie else name
    if isinstance(headers, dict):
        text = headers.get("HTTP_" + header.upper().replace("-", "_"))
        value = text.encode("latin-1", "replace") if isinstance(text, str) else None
    else:
        wanted = header.encode()
        for pair in headers if headers is not None else ():
            if len(pair) != 2 or type(pair[0]) is not bytes or len(<bytes>pair[0]) != len(wanted):
                continue
            if pair[0] == wanted or (<bytes>pair[0]).lower() == wanted:
                value = bytes(pair[1]) if value is None else value + (b"; " if cookie else b", ") + bytes(pair[1])
    if not value:
        return None
    return cookie_of(value, name.encode()) if cookie else value.strip()[:MAX_KEY] or None


cdef bytes cookie_of(bytes text, bytes name):
    """The value of a cookie, the first of this name."""
    for part in text.split(b";"):
        key, _, value = part.partition(b"=")
        if key.strip() == name:
            return value.strip()[:MAX_KEY] or None
    return None


cdef gbf_limit limit_of(str name, uint32_t limit, double window, uint32_t burst) except *:
    cdef gbf_limit made
    cdef gbf_fault fault
    cdef bytes text = name.encode()
    cdef uint64_t number = gbf_xxh3_64(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), 0)
    if not 0.001 <= window <= 86400:
        raise ValueError(f"window {window} is out of range; give 0.001 to 86400 seconds")
    if gbf_limit_set(&made, number, limit, <uint32_t>(window * 1000 + 0.5), burst, &fault) != GBF_OK:
        raise ValueError(f"{fault.what.decode()}: limit {limit}, window {window}, burst {burst}")
    return made


cdef gbf_limit_key hashed(LimitTable table, bytes key) noexcept:
    cdef gbf_limit_key made
    cdef gbf_hash128 found = gbf_siphash128(<const uint8_t *>table.table.key, PyBytes_AS_STRING(key),
                                            <uint64_t>PyBytes_GET_SIZE(key))
    made.first, made.second = found.low, found.high
    return made


cdef inline uint64_t milliseconds(double now) noexcept nogil:
    return <uint64_t>(now * 1000 + 0.5) if now > 0 else 0


only_whole(LimitTable)
only_whole(Limits)
only_whole(LimitState)
