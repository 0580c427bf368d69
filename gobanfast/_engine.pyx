"""CompiledRules, the Decision they give, and the swap of one ruleset for another."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from gobanfast._address cimport gbf_ascii, leaves_many, pick_kernel
from gobanfast._block cimport Block, raise_for
from gobanfast._signals cimport SignalTable
from gobanfast._tls cimport ClientHello
from gobanfast.native cimport (
    GBF_CLASS_ABSENT, GBF_CLASS_MALFORMED, GBF_NONE, gbf_addr, gbf_addr_load, gbf_bits_and, gbf_fault, gbf_range,
    gbf_record, gbf_rules_build, gbf_rules_next, gbf_rules_open, gbf_rules_record, gbf_rules_source, gbf_rules_vector,
)

cdef tuple ACTIONS = ("allow", "challenge", "ban", "log")
cdef tuple REASONS = (None, "malformed-address", "malformed-hello", "malformed-sni")


@cython.final
cdef class CompiledRules:
    """Rules as arrays: ranges of addresses -> records (AS, class) -> bit vectors. Frozen; any number of threads.

    Args:
        rules: objects with id, reason, duration (seconds or None), in decision order; bit i of a vector is rules[i].
        unparsable: action for a signal that cannot be read (an address text that is none) when no rule decides.
        signals: SignalTable of the rules that ask for more than the address; None when no rule does.
        starts4, records4: uint32 each, one item a range: ranges cover IPv4 from 0 on; the record of each.
        starts6, records6: 16 bytes (network order) and uint32 a range; the same for IPv6.
        record_asn, record_class: uint32 each, one item a record; AS 0 means none is known.
        vectors: uint64, len(rules) // 64 + 1 words a class; class 0 is "no address", class 1 "not an address".
        enforced, shadow, logged: uint64 masks of as many words: rules that may win, would win, are only noted.
        actions: uint8 a rule: 0 allow, 1 challenge, 2 ban, 3 log.
    Raises:
        ValueError: arrays that do not fit each other.
    Cost: one sweep over the ranges, about 0.1 us each.
    """

    def __init__(self, rules, *, str unparsable not None, starts4, records4, starts6, records6, record_asn,
                 record_class, vectors, enforced, shadow, logged, actions, SignalTable signals=None, kernel=None):
        cdef gbf_rules_source source
        cdef gbf_fault fault
        cdef void *data = NULL
        cdef gbf_range *ranges4 = NULL
        cdef gbf_range *ranges6 = NULL
        cdef gbf_record *records = NULL
        cdef bytes first4 = bytes(starts4), leaf4 = bytes(records4), first6 = bytes(starts6), leaf6 = bytes(records6)
        cdef bytes asns = bytes(record_asn), classes = bytes(record_class), bits = bytes(vectors), acts = bytes(actions)
        cdef bytes masks = bytes(enforced) + bytes(shadow) + bytes(logged)
        cdef Py_ssize_t i, words = len(rules) // 64 + 1
        if unparsable not in ACTIONS[:3]:
            raise ValueError(f"unparsable={unparsable!r} is not one of allow, challenge, ban")
        if (len(first4) != len(leaf4) or len(first6) != 4 * len(leaf6) or len(asns) != len(classes) or
                len(bits) % (8 * words) or len(masks) != 24 * words or len(acts) != len(rules) or
                len(bytes(enforced)) != 8 * words or len(bytes(shadow)) != 8 * words):
            raise ValueError("arrays of compiled rules do not fit each other")
        if signals is not None and signals.words != words:
            raise ValueError(f"signals with {signals.words} words a vector do not fit rules with {words}")
        source.range_count4, source.range_count6 = len(leaf4) // 4, len(leaf6) // 4
        source.record_count, source.rule_count = len(asns) // 4, len(acts)
        source.class_count = len(bits) // (8 * words)
        try:
            ranges4 = <gbf_range *>malloc((source.range_count4 + 1) * sizeof(gbf_range))
            ranges6 = <gbf_range *>malloc((source.range_count6 + 1) * sizeof(gbf_range))
            records = <gbf_record *>malloc((source.record_count + 1) * sizeof(gbf_record))
            if ranges4 == NULL or ranges6 == NULL or records == NULL:
                raise MemoryError()
            for i in range(<Py_ssize_t>source.range_count4):
                ranges4[i].start = gbf_addr(<uint64_t>(<const uint32_t *><const char *>first4)[i] << 32, 0)
                ranges4[i].leaf = (<const uint32_t *><const char *>leaf4)[i]
            for i in range(<Py_ssize_t>source.range_count6):
                ranges6[i].start = gbf_addr_load((<const uint8_t *><const char *>first6) + 16 * i)
                ranges6[i].leaf = (<const uint32_t *><const char *>leaf6)[i]
            for i in range(<Py_ssize_t>source.record_count):
                records[i] = gbf_record((<const uint32_t *><const char *>asns)[i],
                                        (<const uint32_t *><const char *>classes)[i])
            source.ranges4, source.ranges6, source.records = ranges4, ranges6, records
            source.vectors = <const uint64_t *><const char *>bits
            source.enforced = <const uint64_t *><const char *>masks
            source.shadow = source.enforced + words
            source.logged = source.shadow + words
            source.actions = <const uint8_t *><const char *>acts
            raise_for(gbf_rules_build(&source, &data, &fault), &fault, "")
        finally:
            free(ranges4)
            free(ranges6)
            free(records)
        self._block = Block.adopt(data)
        raise_for(gbf_rules_open(&self._rules, self._block.data, self._block.nbytes, False, pick_kernel(kernel),
                                 &fault), &fault, self._block.path)
        self.rules = tuple(rules)
        self.signals = signals
        self.unparsable = ACTIONS.index(unparsable)

    @property
    def nbytes(self):
        """Bytes of the compiled arrays."""
        return self._block.nbytes + (0 if self.signals is None else self.signals.nbytes)

    @property
    def content_hash(self):
        """Hex digits over the compiled arrays (32, and 32 more with signals): equal hashes decide alike."""
        return self._block.content_hash() + ("" if self.signals is None else self.signals.content_hash)

    @property
    def record_count(self):
        """Number of records; `Engine.decide_many` gives numbers below it."""
        return self._rules.record_count

    @property
    def beyond_address(self):
        """Ids of the rules that ask for another signal than the address, in decision order."""
        return tuple([rule.id for rule in self.rules if rule.when.on_signals])

    @property
    def kernel(self):
        """Name of the instruction-set kernel in use."""
        return self._rules.kernel.name.decode()

    cdef Decision decision(self, uint32_t record, str address, str sni, ClientHello hello):
        """Decision for a record, for GBF_NONE (the address is not one), or for no address at all (`address` None)."""
        cdef bint wide = self.signals is not None or sni is not None or hello is not None
        cdef Decision d = SignalDecision.__new__(SignalDecision) if wide else Decision.__new__(Decision)
        cdef uint32_t klass
        if address is None and record == GBF_NONE:
            klass = GBF_CLASS_ABSENT
        else:
            klass = GBF_CLASS_MALFORMED if record == GBF_NONE else self._rules.records[record].klass
        d._compiled = self
        d.address = address
        d._record = record
        d._unread = klass == GBF_CLASS_MALFORMED
        d._vector = gbf_rules_vector(&self._rules, klass)
        if wide:
            (<SignalDecision>d).combine(sni, hello)
        d._rule = gbf_rules_next(&self._rules, d._vector, self._rules.enforced, 0)
        return d


@cython.freelist(64)
@cython.no_gc
cdef class Decision:
    """The engine's answer about one request: a small frozen object that reads the rest from the ruleset."""

    @property
    def action(self):
        """What to do: "allow", "challenge" or "ban"."""
        if self._rule != GBF_NONE:
            return ACTIONS[self._compiled._rules.actions[self._rule]]
        return ACTIONS[self._compiled.unparsable] if self._unread else "allow"

    @property
    def rule(self):
        """Id of the rule that decided, or None when none did."""
        return None if self._rule == GBF_NONE else self._compiled.rules[self._rule].id

    @property
    def reason(self):
        """The deciding rule's reason; "malformed-address", "malformed-hello" or "malformed-sni" when no rule decided
        and policy `unparsable` did, because a signal that rules ask for could not be read; else None."""
        if self._rule != GBF_NONE:
            return self._compiled.rules[self._rule].reason
        return REASONS[self._unread]

    @property
    def sni(self):
        """The server name as given, or as the hello has it (None there when it is not printable ASCII)."""
        return None

    @property
    def hello(self):
        """The ClientHello as given, or None."""
        return None

    @property
    def duration(self):
        """Seconds for which the deciding rule's action holds (its `for`), or None: for good, or no rule decided."""
        return None if self._rule == GBF_NONE else self._compiled.rules[self._rule].duration

    @property
    def asn(self):
        """Origin AS of the address, or None when the AS table does not know it."""
        if self._record == GBF_NONE:
            return None
        return self._compiled._rules.records[self._record].asn or None

    @property
    def shadow(self):
        """Ids of the shadow rules that would each have won, were they enforced; in decision order."""
        return self.ids(self._compiled._rules.shadow, self._rule)

    @property
    def logged(self):
        """Ids of the `log` rules that matched, in decision order."""
        return self.ids(self._compiled._rules.logged, GBF_NONE)

    @property
    def matched(self):
        """Ids of all enforced rules that matched, in decision order: the first decided, the second would without it."""
        return self.ids(self._compiled._rules.enforced, GBF_NONE)

    cdef tuple ids(self, const uint64_t *mask, uint32_t before):
        cdef uint32_t rule = gbf_rules_next(&self._compiled._rules, self._vector, mask, 0)
        found = []
        while rule < before:
            found.append(self._compiled.rules[rule].id)
            rule = gbf_rules_next(&self._compiled._rules, self._vector, mask, rule + 1)
        return tuple(found)

    @property
    def compiled(self):
        """The CompiledRules that decided: a later swap does not change what this decision says."""
        return self._compiled

    @property
    def rule_index(self):
        """Position of the deciding rule in decision order, or None."""
        return None if self._rule == GBF_NONE else self._rule

    def __repr__(self):
        return f"<Decision {self.action} address={self.address!r} rule={self.rule!r} asn={self.asn}>"


@cython.final
@cython.no_gc
cdef class SignalDecision(Decision):
    """A Decision that took other signals than the address in; it keeps them, and the vector they came to."""

    cdef int combine(self, str sni, ClientHello hello) except -1:
        """Takes the other signals in: the vector of the address becomes that of all of them."""
        cdef SignalTable signals = self._compiled.signals
        cdef uint32_t words = self._compiled._rules.words
        cdef uint64_t few[2 * INLINE_WORDS]
        cdef uint64_t *scratch = few
        cdef uint64_t *vector = self._words
        cdef int unread
        self._sni, self._hello = sni, hello
        if signals is None:
            return 0
        if words > INLINE_WORDS:
            self._spill = PyBytes_FromStringAndSize(NULL, 3 * 8 * words)
            vector = <uint64_t *>PyBytes_AS_STRING(self._spill)
            scratch = vector + words
        memcpy(vector, self._vector, 8 * words)
        self._vector = vector
        if sni is None and hello is None:
            gbf_bits_and(vector, signals._signals.absent, words)
            return 0
        unread = signals.narrow(vector, scratch, sni, hello)
        if unread and not self._unread:
            self._unread = 1 + unread
        return 0

    @property
    def sni(self):
        return self._sni if self._sni is not None or self._hello is None else self._hello.sni

    @property
    def hello(self):
        return self._hello


cdef inline Decision answer(CompiledRules compiled, str address, str sni, ClientHello hello):
    cdef const char *text
    cdef size_t n
    cdef uint32_t record = GBF_NONE
    if address is not None and gbf_ascii(address, &text, &n):
        record = gbf_rules_record(&compiled._rules, text, n)
    return compiled.decision(record, address, sni, hello)


cdef class EngineCore:
    """The hot half of `gobanfast.Engine`: one reference to compiled rules, and the calls that read it."""

    def __init__(self, CompiledRules compiled not None):
        self.compiled = compiled
        self.generation = 1

    def _swap(self, CompiledRules compiled not None):
        self.compiled = compiled
        self.generation += 1

    def decide(self, str address, /, *, str sni=None, ClientHello hello=None):
        """Decision about a client address; None means the address is not known.

        Args:
            sni: the server name the client asked for; None means absent, unless `hello` has one.
            hello: the ClientHello, from `parse_client_hello`; gives the name, JA4, protocols, version and ECH.
        What cannot be read is no error. When no rule decides and a signal that some rule asks for cannot be read (an
        address text that is none counts whatever rules ask), the ruleset's `unparsable` policy does: reason
        "malformed-address", else "malformed-hello" (any status but "ok"), else "malformed-sni".
        Cost: two to five cache lines and one small object, a line or two for each pattern that covers the name, and
        what `hello.ja4` costs if a rule asks for it. `re:` patterns run in RE2. Any number of threads.
        """
        return answer(self.compiled, address, sni, hello)

    def peek(self, str address, /, *, str sni=None, ClientHello hello=None):
        """What `decide` would answer, without touching live state. (No live state exists yet: the two agree.)"""
        return answer(self.compiled, address, sni, hello)

    def decide_many(self, addresses, out, /, *, bint others_absent=False):
        """Record index of each address into `out`; `decision(index)` says what a record means.

        Args:
            others_absent: True takes every signal besides the address as absent, for data that holds no other.
            addresses: uint32 buffer (IPv4, host order), n x 16 bytes (network order), or a list of str.
            out: writable buffer of n uint32; 0xFFFFFFFF where a text is not an address.
        Raises:
            ValueError: buffers that do not fit; or rules that ask for other signals, which the message names.
        Cost: 2 to 20 ns an address; rows with one record share one decision, so count records, then ask.
        """
        cdef CompiledRules compiled = self.compiled
        if compiled.signals is not None and not others_absent:
            raise ValueError(f"rules {', '.join(compiled.beyond_address)} ask for more than the address; "
                             "others_absent=True takes other signals as absent")
        leaves_many(&compiled._rules.lpm, compiled._rules.kernel, addresses, out)

    def decision(self, uint32_t record, /):
        """The decision that every address of this record gets (0xFFFFFFFF: a text that is not an address), other
        signals absent."""
        cdef CompiledRules compiled = self.compiled
        if record != GBF_NONE and record >= compiled._rules.record_count:
            raise ValueError(f"record {record} does not exist; there are {compiled._rules.record_count}")
        return compiled.decision(record, None if record != GBF_NONE else "", None, None)
