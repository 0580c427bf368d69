from libc.stdint cimport uint64_t

from gobanfast._rules cimport CompiledRules


cdef class EngineCore:
    cdef readonly CompiledRules compiled
    cdef readonly uint64_t generation
