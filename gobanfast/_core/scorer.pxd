from libc.stdint cimport uint32_t

from gobanfast._core.native.state cimport gbf_score, gbf_window, gbf_window_rules


cdef class Scorer:
    cdef gbf_score *score  # goes to gbf_score_rate and _peek; neither needs the GIL
    cdef bint per_host  # whether the input's `host` matters
    cdef object __weakref__


cdef class ScoreWindow:
    cdef gbf_window _window
    cdef gbf_window_rules _rules
    cdef void *_memory
