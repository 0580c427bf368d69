from libc.stdint cimport uint64_t

from gobanfast._rules cimport CompiledRules


cdef class EngineCore:
    cdef readonly CompiledRules compiled
    cdef readonly uint64_t generation
    cdef public object candidate  # None, or what observes requests beside the rules in force: rules.trial.Trial
