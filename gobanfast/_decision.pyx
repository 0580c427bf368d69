"""Decision: the answer about one request, and how it is made of compiled rules."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from gobanfast._rules cimport CompiledRules
from gobanfast._signals cimport SignalTable
from gobanfast._tls cimport ClientHello
from gobanfast.native cimport (
    GBF_CLASS_ABSENT, GBF_CLASS_MALFORMED, GBF_NONE, gbf_bits_and, gbf_rules_next, gbf_rules_vector,
)

cdef tuple ACTIONS = ("allow", "challenge", "ban", "log")
cdef tuple REASONS = (None, "malformed-address", "malformed-hello", "malformed-sni")


cdef Decision decide_record(CompiledRules compiled, uint32_t record, str address, str sni, ClientHello hello):
    """Decision for a record, for GBF_NONE (the address is not one), or for no address at all (`address` None)."""
    cdef bint wide = compiled.signals is not None or sni is not None or hello is not None
    cdef Decision d = SignalDecision.__new__(SignalDecision) if wide else Decision.__new__(Decision)
    cdef uint32_t klass
    if address is None and record == GBF_NONE:
        klass = GBF_CLASS_ABSENT
    else:
        klass = GBF_CLASS_MALFORMED if record == GBF_NONE else compiled._rules.records[record].klass
    d._compiled = compiled
    d.address = address
    d._record = record
    d._unread = klass == GBF_CLASS_MALFORMED
    d._vector = gbf_rules_vector(&compiled._rules, klass)
    if wide:
        (<SignalDecision>d).combine(sni, hello)
    d._rule = gbf_rules_next(&compiled._rules, d._vector, compiled._rules.enforced, 0)
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
