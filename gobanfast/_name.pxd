from libc.stdint cimport uint32_t

from gobanfast.native cimport gbf_name, gbf_name_table


cdef bint read_name(str text, gbf_name *name) noexcept
cdef uint32_t read_literal(str text, gbf_name *key) noexcept
cdef str text_of(const gbf_name *name)

# (kind, what stands before the key) of a GBF_NAME_... number.
cdef tuple kind_of(uint32_t kind)

# What NameTable.lookup_many does; `regexes` is asked about names that nothing else matches.
cdef Py_ssize_t lookup_strings(const gbf_name_table *table, object names, object out, object regexes) except -1
