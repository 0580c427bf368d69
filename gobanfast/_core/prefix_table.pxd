from libc.stdint cimport uint32_t

from gobanfast._core.block cimport Block
from gobanfast._core.native.address cimport gbf_prefix, gbf_prefix_item


cdef class PrefixTable:
    cdef gbf_prefix _table
    cdef Block _block


# What lookup_many of every prefix-shaped table does; returns the number of matches.
cdef Py_ssize_t values_many(const gbf_prefix *table, object addresses, object out) except -1

# Room for `count` rows in place of `rows` (NULL at first); the caller frees it.
cdef gbf_prefix_item *reserve(gbf_prefix_item *rows, Py_ssize_t count) except NULL
