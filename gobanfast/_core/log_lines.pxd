from libc.stdint cimport uint32_t

from gobanfast._core.native.batch cimport gbf_intern, gbf_log_form, gbf_log_index


cdef class LineReader:
    cdef gbf_log_form _form
    cdef gbf_log_index _index
    cdef uint32_t *_marks
    cdef uint32_t _count, _room, _nbytes


cdef class InternTable:
    cdef gbf_intern _table
