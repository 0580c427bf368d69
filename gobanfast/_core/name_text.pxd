from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.native.name cimport gbf_name, gbf_name_table


cdef bint read_name(str text, gbf_name *name) noexcept
cdef uint32_t read_literal(str text, gbf_name *key) noexcept
cdef str text_of(const gbf_name *name)

# (kind, what stands before the key) of a GBF_NAME_... number.
cdef tuple kind_of(uint32_t kind)

# What NameTable.lookup_many does; `regexes` is asked about names that nothing else matches.
cdef Py_ssize_t lookup_strings(const gbf_name_table *table, object names, object out, object regexes) except -1

# What is done with the names at rows first, first + 1, ... of a column: texts[i] is NULL for a null (nbytes[i] is 0)
# and for a text no name can be. Returns how many matched, or -1 when there is no memory.
ctypedef Py_ssize_t (*name_run)(void *context, const uint8_t **texts, const uint64_t *nbytes, uint64_t count,
                                uint64_t first) noexcept nogil

# Runs a column of `room` strings (Arrow, NumPy, or an iterable of str) through `run`, detached for columns. `regexes`,
# if not None, is asked about rows whose `out` stayed GBF_NONE. Returns the sum of what `run` returned.
cdef Py_ssize_t run_strings(name_run run, void *context, object names, uint32_t *out, Py_ssize_t room,
                            object regexes) except -1
