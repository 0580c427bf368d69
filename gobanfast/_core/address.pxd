# What every table does with the address argument of a lookup, inline in each extension.
from libc.stdint cimport uint8_t, uint32_t

from gobanfast._core.native.address cimport gbf_addr, gbf_lpm, gbf_lpm_kernel, gbf_prefix_problem
from gobanfast._core.native.base cimport GBF_NONE


cdef extern from *:
    """
    /* Characters of an ASCII str, borrowed; 0 for one with others, and for None, which Cython lets pass for a str. */
    static inline int gbf_ascii(PyObject *text, const char **start, size_t *n)
    {
        if (text == Py_None || !PyUnicode_IS_ASCII(text))
            return 0;
        *start = (const char *)PyUnicode_1BYTE_DATA(text);
        *n = (size_t)PyUnicode_GET_LENGTH(text);
        return 1;
    }
    """
    int gbf_ascii(str text, const char **start, size_t *n) noexcept


# Leaf of the longest prefix that covers `address`; GBF_NONE when the text is not an address.
cdef inline uint32_t find_leaf(const gbf_lpm *lpm, const gbf_lpm_kernel *kernel, str address,
                               gbf_addr *parsed) noexcept:
    cdef const char *start
    cdef size_t n
    if not gbf_ascii(address, &start, &n):
        return GBF_NONE
    return kernel.find_text(lpm, start, n, parsed)


cdef str text_of(gbf_addr address)
cdef str prefix_text(gbf_addr address, uint32_t bits)
cdef str prefix_problem(str text, gbf_prefix_problem problem, gbf_addr address, uint32_t bits)
cdef gbf_prefix_problem read_prefix(str text, gbf_addr *address, uint32_t *bits) noexcept

# The best kernel at or below the level (None: GOBANFAST_KERNEL, else the machine's best).
cdef const gbf_lpm_kernel *pick_kernel(object level) except NULL

# How the addresses of a batch are given.
cdef enum batch_form:
    BATCH_UINT32  # IPv4 addresses in host order
    BATCH_PACKED  # n x 16 bytes in network order, IPv4 mapped
    BATCH_TEXT    # const char *[n], with lengths

cdef inline size_t row_bytes(batch_form form) noexcept nogil:
    return 4 if form == BATCH_UINT32 else 16 if form == BATCH_PACKED else sizeof(const char *)

# Answers `n` addresses at `rows` out of `table` into `out`; returns how many matched. `lengths` is for texts only.
ctypedef size_t (*batch_run)(const void *table, batch_form form, const void *rows, const uint32_t *lengths, size_t n,
                             void *out) noexcept nogil

# Leaves of `n` addresses at `rows`.
cdef inline void find_many(const gbf_lpm *lpm, const gbf_lpm_kernel *kernel, batch_form form, const void *rows,
                           const uint32_t *lengths, size_t n, uint32_t *leaves) noexcept nogil:
    if form == BATCH_UINT32:
        kernel.find4_many(lpm, <const uint32_t *>rows, n, leaves)
    elif form == BATCH_PACKED:
        kernel.find16_many(lpm, <const uint8_t *>rows, n, leaves)
    else:
        kernel.find_text_many(lpm, <const char *const *>rows, lengths, n, leaves)

# Runs `addresses` (uint32 buffer, n x 16 bytes, or list of str) through `run` into `out`, a writable buffer of n items
# of `item_bytes`. Returns the sum of what `run` returned. Detaches from the interpreter for large buffers.
cdef Py_ssize_t run_many(batch_run run, const void *table, object addresses, object out,
                         Py_ssize_t item_bytes) except -1

# Leaves of `addresses` into the uint32 buffer `out`; returns n.
cdef Py_ssize_t leaves_many(const gbf_lpm *lpm, const gbf_lpm_kernel *kernel, object addresses, object out) except -1
