from libc.stdint cimport uint16_t, uint64_t

from gobanfast._core.ban_table cimport BanTable
from gobanfast._core.native.state cimport gbf_ban, gbf_labels_counts


# The hot path asks `gbf_labels_find(table._labels, &who, &words, 0)`, then again at `ban_time(now)` where it found any.
cdef class LabelTable:
    cdef BanTable _table

    cdef uint16_t known(self, str word) except? 0
    cdef gbf_labels_counts counts(self)
    cdef object made(self, const gbf_ban *label)
    cdef object store(self, str key, str word, uint64_t created, uint64_t expires, str reason, str by, str maker,
                      uint64_t now)
    cdef tuple chunk(self, uint64_t cursor, uint64_t now)
