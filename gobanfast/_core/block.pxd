from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint8_t, uint64_t

from gobanfast._core.native.base cimport gbf_fault, gbf_status


cdef class Block:
    cdef const uint8_t *data
    cdef readonly uint64_t nbytes
    cdef readonly str path
    cdef void *_owned
    cdef Py_buffer _view

    @staticmethod
    cdef Block adopt(void *data)


cdef Block tagged(object blocks, str tag)
cdef int raise_for(gbf_status status, const gbf_fault *fault, str path) except -1
