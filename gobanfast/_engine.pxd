from libc.stdint cimport uint32_t, uint64_t

from gobanfast._block cimport Block
from gobanfast._signals cimport SignalTable
from gobanfast._tls cimport ClientHello
from gobanfast.native cimport gbf_rules

cdef enum:
    INLINE_WORDS = 2  # up to 127 rules, a decision needs no memory besides itself


cdef class CompiledRules:
    cdef gbf_rules _rules
    cdef Block _block
    cdef readonly tuple rules
    cdef readonly int unparsable
    cdef readonly SignalTable signals  # None when no rule asks for more than the address

    cdef Decision decision(self, uint32_t record, str address, str sni, ClientHello hello)


cdef class Decision:
    cdef CompiledRules _compiled
    cdef readonly str address
    cdef const uint64_t *_vector  # the rules that match: in the ruleset, or in a SignalDecision
    cdef uint32_t _record, _rule
    cdef int _unread              # index of REASONS

    cdef tuple ids(self, const uint64_t *mask, uint32_t before)


cdef class SignalDecision(Decision):
    cdef str _sni
    cdef ClientHello _hello
    cdef bytes _spill             # the combined vector and its scratch, when they do not fit below
    cdef uint64_t _words[INLINE_WORDS]

    cdef int combine(self, str sni, ClientHello hello) except -1


cdef class EngineCore:
    cdef readonly CompiledRules compiled
    cdef readonly uint64_t generation
