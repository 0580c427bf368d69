"""CompiledRules, the Decision they give, and the swap of one ruleset for another."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from gobanfast._address cimport gbf_ascii, leaves_many, pick_kernel
from gobanfast._block cimport Block, raise_for
from gobanfast.native cimport (
    GBF_CLASS_ABSENT, GBF_CLASS_MALFORMED, GBF_NONE, gbf_addr, gbf_addr_load, gbf_fault, gbf_range, gbf_record,
    gbf_rules_build, gbf_rules_next, gbf_rules_open, gbf_rules_record, gbf_rules_source,
)

cdef tuple ACTIONS = ("allow", "challenge", "ban", "log")


cdef class CompiledRules:
    """Rules as arrays: ranges of addresses -> records (AS, class) -> bit vectors. Frozen; any number of threads.

    Args:
        rules: objects with id, reason, duration (seconds or None), in decision order; bit i of a vector is rules[i].
        unparsable: action for an address text that is not an address when no rule decides.
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
                 record_class, vectors, enforced, shadow, logged, actions, kernel=None):
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
        self.unparsable = ACTIONS.index(unparsable)

    @property
    def nbytes(self):
        """Bytes of the compiled arrays."""
        return self._block.nbytes

    @property
    def content_hash(self):
        """32 hex digits over the compiled arrays: equal hashes decide alike."""
        return self._block.content_hash()

    @property
    def record_count(self):
        """Number of records; `Engine.decide_many` gives numbers below it."""
        return self._rules.record_count

    @property
    def kernel(self):
        """Name of the instruction-set kernel in use."""
        return self._rules.kernel.name.decode()

    cdef Decision decision(self, uint32_t record, str address):
        """Decision for a record, for GBF_NONE (the address is not one), or for no address at all (`address` None)."""
        cdef Decision d = Decision.__new__(Decision)
        cdef uint32_t klass
        if address is None and record == GBF_NONE:
            klass = GBF_CLASS_ABSENT
        else:
            klass = GBF_CLASS_MALFORMED if record == GBF_NONE else self._rules.records[record].klass
        d._compiled = self
        d.address = address
        d._record = record
        d._class = klass
        d._rule = gbf_rules_next(&self._rules, klass, self._rules.enforced, 0)
        return d


@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class Decision:
    """The engine's answer about one request: a frozen object of 56 bytes that reads the rest from the ruleset."""

    @property
    def action(self):
        """What to do: "allow", "challenge" or "ban"."""
        if self._rule != GBF_NONE:
            return ACTIONS[self._compiled._rules.actions[self._rule]]
        return ACTIONS[self._compiled.unparsable] if self._class == GBF_CLASS_MALFORMED else "allow"

    @property
    def rule(self):
        """Id of the rule that decided, or None when none did."""
        return None if self._rule == GBF_NONE else self._compiled.rules[self._rule].id

    @property
    def reason(self):
        """The deciding rule's reason; "malformed-address" when policy decided about such a text; else None."""
        if self._rule != GBF_NONE:
            return self._compiled.rules[self._rule].reason
        return "malformed-address" if self._class == GBF_CLASS_MALFORMED else None

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
        cdef uint32_t rule = gbf_rules_next(&self._compiled._rules, self._class, mask, 0)
        found = []
        while rule < before:
            found.append(self._compiled.rules[rule].id)
            rule = gbf_rules_next(&self._compiled._rules, self._class, mask, rule + 1)
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


cdef class EngineCore:
    """The hot half of `gobanfast.Engine`: one reference to compiled rules, and the calls that read it."""

    def __init__(self, CompiledRules compiled not None):
        self.compiled = compiled
        self.generation = 1

    def _swap(self, CompiledRules compiled not None):
        self.compiled = compiled
        self.generation += 1

    def decide(self, str address, /):
        """Decision about a client address; None means the address is not known.

        A text that is not an address is no error: rules that do not ask for the address decide, then the ruleset's
        `unparsable` policy, with reason "malformed-address". Matches address, AS number and AS name conditions; other
        signals are no arguments yet. Cost: two to five cache lines and one small object. Any number of threads.
        """
        cdef CompiledRules compiled = self.compiled
        cdef const char *text
        cdef size_t n
        cdef uint32_t record = GBF_NONE
        if address is not None and gbf_ascii(address, &text, &n):
            record = gbf_rules_record(&compiled._rules, text, n)
        return compiled.decision(record, address)

    def peek(self, str address, /):
        """What `decide` would answer, without touching live state. (No live state exists yet: the two agree.)"""
        return self.decide(address)

    def decide_many(self, addresses, out, /):
        """Record index of each address into `out`; `decision(index)` says what a record means.

        Args:
            addresses: uint32 buffer (IPv4, host order), n x 16 bytes (network order), or a list of str.
            out: writable buffer of n uint32; 0xFFFFFFFF where a text is not an address.
        Raises:
            ValueError: buffers that do not fit.
        Cost: 2 to 20 ns an address; rows with one record share one decision, so count records, then ask.
        """
        cdef CompiledRules compiled = self.compiled
        leaves_many(&compiled._rules.lpm, compiled._rules.kernel, addresses, out)

    def decision(self, uint32_t record, /):
        """The decision that every address of this record gets (0xFFFFFFFF: a text that is not an address)."""
        cdef CompiledRules compiled = self.compiled
        if record != GBF_NONE and record >= compiled._rules.record_count:
            raise ValueError(f"record {record} does not exist; there are {compiled._rules.record_count}")
        return compiled.decision(record, None if record != GBF_NONE else "")
