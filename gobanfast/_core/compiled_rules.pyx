"""CompiledRules: rules as bit vectors and arrays in one block."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from gobanfast._core.address cimport pick_kernel
from gobanfast._core.block cimport Block, raise_for, tagged
from gobanfast._core.headers cimport HeaderPlan
from gobanfast._core.made cimport only_whole
from gobanfast._core.live_table cimport LiveTable
from gobanfast._core.record_table cimport RecordTable
from gobanfast._core.request_table cimport RequestTable
from gobanfast._core.connection_table cimport ConnectionTable
from gobanfast._core.native.address cimport gbf_addr, gbf_addr_load, gbf_lpm_kernel, gbf_range
from gobanfast._core.native.base cimport (
    GBF_EFFECTS, GBF_RECORD, GBF_RESOURCE, GBF_SHARE, GBF_SHARED_GRANTED, GBF_SHARED_REFUSED,
    GBF_SHARED_WITHHELD, gbf_fault, gbf_status,
)
from gobanfast._core.native.rules cimport gbf_leaf, gbf_rules, gbf_rules_build, gbf_rules_open, gbf_rules_source

from gobanfast._core import enums
from gobanfast._digest import blake2b
from gobanfast._errors import FormatError


SHARE_ACTIONS = {"grant": GBF_SHARED_GRANTED, "withhold": GBF_SHARED_WITHHELD, "refuse": GBF_SHARED_REFUSED}
"""What is shared by the rules with each action."""


@cython.final
cdef class CompiledRules:
    """Rules as arrays: ranges of addresses -> leaves (AS, class) -> bit vectors. Frozen; any number of threads.

    Args:
        rules: objects with id, reason, duration (seconds or None), in decision order; bit i of a vector is rules[i].
        unparsable: action for a signal that cannot be read (an address text that is none) when no rule decides.
        signals: ConnectionTable of the rules that require a server name or a ClientHello; None when no rule does.
        requests: RequestTable of the rules that require headers, method or path; None when no rule does.
        plan: HeaderPlan that finds headers and makes fingerprints; None takes that of `requests` or the usual one.
        starts4, leaves4: uint32 each, one item a range: ranges cover IPv4 from 0 on; the leaf of each.
        starts6, leaves6: 16 bytes (network order) and uint32 a range; the same for IPv6.
        leaf_asn, leaf_class: uint32 each, one item a leaf; AS 0 means none is known.
        vectors: uint64, len(rules) // 64 + 1 words a class; class 0 is "no address", class 1 "not an address".
        enforced, shadow, logged: uint64 masks of as many words: rules that may win, would win, are only noted.
        actions: uint8 a rule: its index in ACTIONS, that of "limit" never enforced; 0 for rules of other effects.
        resources: flags of the bits behind those of the rules, see `rules.compile.share`.
        grants: what share rules grant, one each; None: nothing.
        records: RecordTable of the record rules; None when there are none, and no section `trace:`.
        live: LiveTable of the rules that ask for labels or a session; None when no rule does.
    Raises:
        ValueError: arrays that do not fit each other.
    Cost: one sweep over the ranges, about 0.1 us each.
    """

    @staticmethod
    def _make(rules, *, str unparsable not None, starts4, leaves4, starts6, leaves6, leaf_asn, leaf_class,
              vectors, enforced, shadow, logged, actions, ConnectionTable signals=None, RequestTable requests=None,
              HeaderPlan plan=None, bytes resources not None=b"", tuple grants not None=(),
              RecordTable records=None, LiveTable live=None, kernel=None):
        cdef gbf_rules_source source
        cdef gbf_fault fault
        cdef void *data = NULL
        cdef gbf_range *ranges4 = NULL
        cdef gbf_range *ranges6 = NULL
        cdef gbf_leaf *leaves = NULL
        cdef bytes first4 = bytes(starts4), leaf4 = bytes(leaves4), first6 = bytes(starts6), leaf6 = bytes(leaves6)
        cdef bytes asns = bytes(leaf_asn), classes = bytes(leaf_class), bits = bytes(vectors), acts = bytes(actions)
        cdef bytes masks = bytes(enforced) + bytes(shadow) + bytes(logged)
        cdef Py_ssize_t i, bits_count = len(rules) + len(resources), words = bits_count // 64 + 1
        cdef uint32_t ends[GBF_EFFECTS]
        rules = tuple(rules)
        ends_of(rules, resources, ends)
        if unparsable not in enums.RULE_DECISIONS:
            raise ValueError(f"unparsable={unparsable!r} is not one of {', '.join(enums.RULE_DECISIONS)}")
        if (len(first4) != len(leaf4) or len(first6) != 4 * len(leaf6) or len(asns) != len(classes) or
                len(bits) % (8 * words) or len(masks) != 24 * words or len(acts) != bits_count or
                len(bytes(enforced)) != 8 * words or len(bytes(shadow)) != 8 * words):
            raise ValueError("arrays of compiled rules do not fit each other")
        if signals is not None and signals.words != words:
            raise ValueError(f"signals with {signals.words} words a vector do not fit rules with {words}")
        source.range_count4, source.range_count6 = len(leaf4) // 4, len(leaf6) // 4
        source.leaf_count, source.rule_count = len(asns) // 4, len(acts)
        source.class_count = len(bits) // (8 * words)
        try:
            ranges4 = <gbf_range *>malloc((source.range_count4 + 1) * sizeof(gbf_range))
            ranges6 = <gbf_range *>malloc((source.range_count6 + 1) * sizeof(gbf_range))
            leaves = <gbf_leaf *>malloc((source.leaf_count + 1) * sizeof(gbf_leaf))
            if ranges4 == NULL or ranges6 == NULL or leaves == NULL:
                raise MemoryError()
            for i in range(<Py_ssize_t>source.range_count4):
                ranges4[i].start = gbf_addr(<uint64_t>(<const uint32_t *><const char *>first4)[i] << 32, 0)
                ranges4[i].leaf = (<const uint32_t *><const char *>leaf4)[i]
            for i in range(<Py_ssize_t>source.range_count6):
                ranges6[i].start = gbf_addr_load((<const uint8_t *><const char *>first6) + 16 * i)
                ranges6[i].leaf = (<const uint32_t *><const char *>leaf6)[i]
            for i in range(<Py_ssize_t>source.leaf_count):
                leaves[i] = gbf_leaf((<const uint32_t *><const char *>asns)[i],
                                     (<const uint32_t *><const char *>classes)[i])
            source.ranges4, source.ranges6, source.leaves = ranges4, ranges6, leaves
            source.vectors = <const uint64_t *><const char *>bits
            source.enforced = <const uint64_t *><const char *>masks
            source.shadow = source.enforced + words
            source.logged = source.shadow + words
            source.actions = <const uint8_t *><const char *>acts
            source.ends = ends
            raise_for(gbf_rules_build(&source, &data, &fault), &fault, "")
        finally:
            free(ranges4)
            free(ranges6)
            free(leaves)
        return compiled_of(Block.adopt(data), rules, unparsable, signals, requests, plan, resources, grants, records,
                           live, False, kernel)

    @classmethod
    def of_blocks(cls, rules, blocks, *, str unparsable not None, RequestTable requests=None, HeaderPlan plan=None,
                  bytes resources not None=b"", tuple grants not None=(), RecordTable records=None, LiveTable live=None,
                  bint verify=True, kernel=None):
        """The rules whose `blocks` these are; the other arguments are as for the constructor.

        Every index is checked, with `verify` the content hashes too. Raises FormatError for blocks that are damaged or
        do not fit each other.
        """
        cdef Block block = tagged(blocks, "RULE")
        cdef ConnectionTable signals = None
        rules = tuple(rules)
        if "SIGN" in blocks:
            signals = ConnectionTable.of_blocks(blocks, verify=verify)
        elif any([rule.when.on_connection for rule in rules]):
            raise FormatError(block.path, 0, "rules require signals, and there are none")
        return compiled_of(block, rules, unparsable, signals, requests, plan, resources, grants, records, live,
                           verify, kernel)

    def blocks(self):
        """Dict of the blocks that `of_blocks` takes, by tag."""
        return {"RULE": self._block, **({} if self.signals is None else self.signals.blocks())}

    @property
    def nbytes(self):
        """Bytes of the compiled arrays."""
        return (self._block.nbytes + (0 if self.signals is None else self.signals.nbytes) +
                (0 if self.requests is None else self.requests.nbytes))

    @property
    def content_hash(self):
        """32 hex digits over the compiled arrays and what `complete` added: equal hashes decide alike."""
        if self._hash is None:
            arrays = (self._block.content_hash() + ("" if self.signals is None else self.signals.content_hash) +
                      ("" if self.requests is None else self.requests.content_hash))
            facts = b"" if self._facts is None else self._facts()
            self._hash = blake2b(arrays.encode() + facts, digest_size=16).hexdigest()
            self._facts = None
        return self._hash

    def complete(self, facts, asn=None, /, *, always_holds=None):
        """Adds what the arrays do not hold: `facts` returns what else `content_hash` covers, as bytes, and is called at
        most once; `asn` is the table that names the AS numbers of decisions; `always_holds` says of a rule, a path and
        a mount whether its conditions on the path hold under all readings."""
        self._facts, self._hash, self.asn, self.always_holds = facts, None, asn, always_holds

    @property
    def leaf_count(self):
        """Number of leaves; `Engine.leaves` gives numbers below it."""
        return self._rules.leaf_count

    @property
    def beyond_address(self):
        """Ids of the rules that require another signal than the address, in decision order."""
        return tuple([rule.id for rule in self.rules if rule.when.on_signals])

    @property
    def kernel(self):
        """Name of the instruction-set kernel in use."""
        return self._rules.kernel.name.decode()


only_whole(CompiledRules)


cdef int ends_of(tuple rules, bytes resources, uint32_t *ends) except -1:
    """Where the bits of each effect end; ValueError for rules that are not effect by effect."""
    order = [enums.EFFECTS.index(rule.effect) for rule in rules]
    if order != sorted(order) or GBF_RESOURCE in order:
        raise ValueError("rules are not in the order of their effects")
    for i in range(GBF_RESOURCE):
        ends[i] = <uint32_t>sum([number <= i for number in order])
    ends[GBF_RESOURCE] = <uint32_t>(len(rules) + len(resources))
    return 0


cdef CompiledRules compiled_of(Block block, tuple rules, str unparsable, ConnectionTable signals, RequestTable requests,
                               HeaderPlan plan, bytes resources, tuple grants, RecordTable records, LiveTable live,
                               bint verify, object kernel):
    cdef uint32_t ends[GBF_EFFECTS]
    cdef gbf_rules opened
    cdef gbf_fault fault
    cdef const gbf_lpm_kernel *wanted = pick_kernel(kernel)
    cdef gbf_status status
    cdef CompiledRules compiled
    cdef int policy = enums.ACTIONS.index(unparsable)
    with nogil:  # milliseconds for large rules, in which requests can go on
        status = gbf_rules_open(&opened, block.data, block.nbytes, verify, wanted, &fault)
    raise_for(status, &fault, block.path)
    if <Py_ssize_t>opened.rule_count != len(rules) + len(resources):
        raise FormatError(block.path, 0, f"{opened.rule_count} compiled rules for {len(rules)} rules")
    ends_of(rules, resources, ends)
    for i in range(GBF_EFFECTS):
        if opened.ends[i] != ends[i]:
            raise FormatError(block.path, 0, f"{opened.ends[i]} compiled rules up to {enums.EFFECTS[i]}, not {ends[i]}")
    shares = [rule for rule in rules if rule.effect == "share"]
    if len(grants) != len(shares):
        raise ValueError(f"{len(grants)} grants for {len(shares)} share rules")
    actions = bytes([SHARE_ACTIONS[rule.action] | (ANYBODY if grant is not None and grant.any_origin else 0)
                     for rule, grant in zip(shares, grants)])
    if len(b"" if records is None else records._kinds) != opened.ends[GBF_RECORD] - opened.ends[GBF_SHARE]:
        raise ValueError("records do not fit the rules")
    if records is not None and records.words != opened.words:
        raise ValueError(f"records with {records.words} words a row do not fit rules with {opened.words}")
    if live is not None and live.words != opened.words:
        raise ValueError(f"live table with {live.words} words a row does not fit rules with {opened.words}")
    if signals is not None and signals.words != opened.words:
        raise FormatError(block.path, 0, "signals do not fit the rules")
    if requests is not None and requests.words != opened.words:
        raise ValueError(f"requests with {requests.words} words a vector do not fit rules with {opened.words}")
    if requests is not None:
        plan = requests.plan
    elif plan is None:
        plan = HeaderPlan()
    compiled = CompiledRules.__new__(CompiledRules)
    compiled._rules, compiled._block, compiled.rules, compiled.unparsable = opened, block, rules, policy
    compiled.signals, compiled.requests, compiled.plan = signals, requests, plan
    compiled._effects, compiled.grants, compiled.records = actions + resources, grants, records
    compiled.live = live
    compiled._share_actions = <const uint8_t *><const char *>compiled._effects
    compiled._resource_flags = compiled._share_actions + len(actions)
    return compiled
