from libc.stdint cimport uint32_t, uint64_t

from gobanfast._block cimport Block
from gobanfast.native cimport gbf_rules


cdef class CompiledRules:
    cdef gbf_rules _rules
    cdef Block _block
    cdef readonly tuple rules
    cdef readonly int unparsable

    cdef Decision decision(self, uint32_t record, str address)


cdef class Decision:
    cdef CompiledRules _compiled
    cdef readonly str address
    cdef uint32_t _record, _class, _rule

    cdef tuple ids(self, const uint64_t *mask, uint32_t before)


cdef class EngineCore:
    cdef readonly CompiledRules compiled
    cdef readonly uint64_t generation
