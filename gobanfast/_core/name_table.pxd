from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.block cimport Block
from gobanfast._core.native.name cimport gbf_name_kernel, gbf_name_table


cdef class NameTable:
    cdef gbf_name_table _table
    cdef const gbf_name_kernel *_kernel
    cdef Block _block
    cdef tuple _globs     # texts, by glob number
    cdef object _regexes  # gobanfast.names.Regexes, or None when there are none

    cdef str text_at(self, uint64_t at, Py_ssize_t nbytes)

    # Value for the name text[0..nbytes), 0xFFFFFFFF when nothing matches; *malformed tells that it is no name.
    cdef uint32_t find(self, const uint8_t *text, uint64_t nbytes, bint *malformed) except? 0xFFFFFFFE


# The table in `block`, which it keeps; what `NameTable.load` checks is checked.
cdef NameTable names_of_block(Block block, bint verify)
