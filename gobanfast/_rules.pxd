from gobanfast._block cimport Block
from gobanfast._signals cimport SignalTable
from gobanfast.native cimport gbf_rules


cdef class CompiledRules:
    cdef gbf_rules _rules
    cdef Block _block
    cdef readonly tuple rules
    cdef readonly int unparsable         # index of the actions allow, challenge, ban
    cdef readonly SignalTable signals    # None when no rule asks for more than the address
