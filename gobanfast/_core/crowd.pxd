from gobanfast._core.native.state cimport gbf_crowd


cdef class Crowd:
    cdef gbf_crowd *crowd
