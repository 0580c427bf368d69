"""PrefixTable: longest-prefix match over IPv4 and IPv6."""

from cpython.number cimport PyIndex_Check
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from gobanfast._core.address cimport (
    batch_form, find_leaf, find_many, pick_kernel, prefix_problem, prefix_text, read_prefix, row_bytes, run_many,
)
from gobanfast._core.block cimport Block, raise_for
from gobanfast._core.made cimport bare, newfunc, only_whole
from gobanfast._core.native.address cimport (
    GBF_PREFIX_FINE, gbf_addr, gbf_addr_load, gbf_lpm_kernel, gbf_prefix, gbf_prefix_build, gbf_prefix_covering,
    gbf_prefix_cursor, gbf_prefix_get, gbf_prefix_item, gbf_prefix_next, gbf_prefix_open, gbf_prefix_problem,
    gbf_prefix_value, gbf_prefix_values, gbf_prefix_verify,
)
from gobanfast._core.native.base cimport GBF_NONE, GBF_TAG, gbf_fault

from gobanfast._values import pair, refuse_container

cdef uint32_t KIND = GBF_TAG(b"P", b"F", b"X", b" ")


cdef size_t ROUND = 16384  # addresses looked up before their leaves, still in the second-level cache, become values


cdef size_t run_values(const void *table, batch_form form, const void *rows, const uint32_t *lengths, size_t n,
                       void *out) noexcept nogil:
    cdef const gbf_prefix *prefixes = <const gbf_prefix *>table
    cdef const char *row = <const char *>rows
    cdef uint32_t *values = <uint32_t *>out
    cdef size_t size, matched = 0
    while n > 0:
        size = n if n < ROUND else ROUND
        find_many(&prefixes.lpm, prefixes.kernel, form, row, lengths, size, values)
        matched += gbf_prefix_values(prefixes, values, size)
        row += size * row_bytes(form)
        if lengths != NULL:
            lengths += size
        values += size
        n -= size
    return matched


cdef Py_ssize_t values_many(const gbf_prefix *table, object addresses, object out) except -1:
    return run_many(run_values, table, addresses, out, 4)


cdef gbf_prefix_item *reserve(gbf_prefix_item *rows, Py_ssize_t count) except NULL:
    rows = <gbf_prefix_item *>realloc(rows, <size_t>count * sizeof(gbf_prefix_item))
    if rows == NULL:
        raise MemoryError()
    return rows


cdef class PrefixTable:
    """PrefixTable(items=(), /, *, kernel=None)\n--\n
    Longest-prefix match: IPv4 and IPv6 prefixes with uint32 values, in one frozen table.

    Args:
        items: (prefix, value) pairs, for example ("192.0.2.0/24", 7). Values are 0..4294967294. Of equal prefixes the
            last one wins. Host bits must be zero. ::ffff:a.b.c.d/(96+n) is the IPv4 prefix a.b.c.d/n; ::/0 covers IPv6
            only.
        kernel: cap on the instruction set ("scalar", "v2", "avx512"); default GOBANFAST_KERNEL, else the best.
    Raises:
        ValueError: a prefix or value that cannot be used, with its index and a hint.
    Threads: frozen once built; any number of threads may read.
    Cost: an IPv4 lookup reads two to four cache lines; an IPv6 lookup two, and two more for each 6 bits beyond /16.
    Source: csrc/DESIGN.md, "Stride trie".
    """

    @classmethod
    def _make(cls, items=(), /, *, kernel=None):
        cdef gbf_prefix_item *rows = reserve(NULL, 256)
        cdef gbf_prefix_item *row
        cdef Py_ssize_t count = 0, room = 256
        cdef gbf_prefix_problem problem
        cdef str text
        cdef const gbf_lpm_kernel *picked
        try:
            picked = pick_kernel(kernel)
            refuse_container(items, "PrefixTable")
            for item in items:
                if (type(item) is not tuple or len(<tuple>item) != 2 or type((<tuple>item)[0]) is not str or
                        not PyIndex_Check((<tuple>item)[1])):
                    item = pair(item, count)
                text, value = <tuple>item
                if count == room:
                    room *= 2
                    rows = reserve(rows, room)
                row = &rows[count]
                problem = read_prefix(text, &row.address, &row.bits)
                if problem != GBF_PREFIX_FINE:
                    raise ValueError(f"item {count}: {prefix_problem(text, problem, row.address, row.bits)}")
                if not 0 <= value < GBF_NONE:
                    raise ValueError(f"item {count}: value {value} is not in 0..4294967294")
                row.value = <uint32_t>value
                count += 1
            return build_table(cls, rows, count, picked)
        finally:
            free(rows)

    @classmethod
    def from_packed(cls, addresses, lengths, values, /, *, kernel=None):
        """Table from three buffers of n items: 16-byte addresses (network order), uint8 bits, uint32 values.

        IPv4 a.b.c.d/n is ::ffff:a.b.c.d with 96 + n bits. Of equal prefixes the last one wins.
        Raises ValueError when the buffers do not fit each other, or with the index of the first bad item.
        Cost: about 0.1 us an item.
        """
        cdef Py_buffer address, length, value
        cdef gbf_prefix_item *rows = NULL
        cdef Py_ssize_t i, count
        cdef const gbf_lpm_kernel *picked = pick_kernel(kernel)
        memset(&address, 0, sizeof(address))  # so that those can be released that were never taken
        memset(&length, 0, sizeof(length))
        memset(&value, 0, sizeof(value))
        try:
            PyObject_GetBuffer(addresses, &address, PyBUF_SIMPLE)
            PyObject_GetBuffer(lengths, &length, PyBUF_SIMPLE)
            PyObject_GetBuffer(values, &value, PyBUF_SIMPLE)
            count = length.len
            if address.len != 16 * count or value.len != 4 * count:
                raise ValueError(f"{count} lengths need {16 * count} address bytes and {4 * count} value bytes, "
                                 f"not {address.len} and {value.len}")
            rows = reserve(NULL, count + 1)
            for i in range(count):
                rows[i].address = gbf_addr_load(<const uint8_t *>address.buf + 16 * i)
                rows[i].bits = (<const uint8_t *>length.buf)[i]
                rows[i].value = (<const uint32_t *>value.buf)[i]
            return build_table(cls, rows, count, picked)
        finally:
            free(rows)
            PyBuffer_Release(&address)
            PyBuffer_Release(&length)
            PyBuffer_Release(&value)

    @classmethod
    def load(cls, path, /, *, bint verify=True, kernel=None):
        """The table saved at `path`, mapped read-only, its pages shared with every process that maps it.

        Every index is checked before the first lookup, whatever `verify` says; with it the content hash is checked too.
        Raises OSError, or FormatError (path, offset) for a file that is cut short, damaged, foreign or too new.
        Cost: about 0.2 ms a megabyte. The file must be replaced by rename, never truncated in place.
        """
        return table_of(cls, Block.map(path), verify, pick_kernel(kernel))

    @classmethod
    def from_bytes(cls, data, /, *, bint verify=True, kernel=None):
        """The table in `data`, a buffer with what `save` writes; copied. Errors as for `load`."""
        return table_of(cls, Block.copy(data), verify, pick_kernel(kernel))

    def save(self, path, /):
        """Writes the table to `path` through a temporary file, fsync and rename. Raises OSError."""
        self._block.save(path)

    def verify(self):
        """Checks everything `load` checks, and every stored prefix against the lookups; FormatError. O(n)."""
        cdef gbf_fault fault
        cdef gbf_prefix checked
        raise_for(gbf_prefix_open(&checked, self._block.data, self._block.nbytes, KIND, True, self._table.kernel,
                                  &fault), &fault, self._block.path)
        raise_for(gbf_prefix_verify(&self._table, &fault), &fault, self._block.path)

    def lookup(self, str address not None, /):
        """Value of the longest prefix that covers `address`, or None; None too when the text is not an address."""
        cdef gbf_addr parsed
        cdef uint32_t value
        value = gbf_prefix_value(&self._table, find_leaf(&self._table.lpm, self._table.kernel, address, &parsed))
        return None if value == GBF_NONE else value

    def __getitem__(self, str address not None):
        cdef gbf_addr parsed
        cdef uint32_t value
        value = gbf_prefix_value(&self._table, find_leaf(&self._table.lpm, self._table.kernel, address, &parsed))
        if value == GBF_NONE:
            raise KeyError(address)
        return value

    def __contains__(self, str address not None):
        cdef gbf_addr parsed
        return gbf_prefix_value(
            &self._table, find_leaf(&self._table.lpm, self._table.kernel, address, &parsed)) != GBF_NONE

    def lookup_many(self, addresses, out, /):
        """Number of matches after looking up `addresses` into `out`.

        Args:
            addresses: uint32 buffer (IPv4, host order), buffer of n x 16 bytes (network order, IPv4 mapped), or a list
                of str (one that is not an address matches nothing).
            out: writable buffer of n uint32; 0xFFFFFFFF where nothing covers the address.
        Raises:
            ValueError: `addresses` is not whole records, or `out` has another number of items.
        Cost: 2 to 15 ns an address. Detaches from the interpreter for buffers of 2048 addresses and more.
        Source: csrc/DESIGN.md, "Batch lookup".
        """
        return values_many(&self._table, addresses, out)

    def lookup_prefix(self, str address not None, /):
        """(prefix, value) of the longest prefix that covers `address`, or None. Cost: about 1 us."""
        cdef gbf_addr parsed
        cdef gbf_prefix_item item
        if find_leaf(&self._table.lpm, self._table.kernel, address, &parsed) == GBF_NONE:
            return None
        if not gbf_prefix_covering(&self._table, parsed, &item):
            return None
        return prefix_text(item.address, item.bits), item.value

    def get(self, str prefix not None, /):
        """Value stored for exactly this prefix, or None. ValueError when the text is not a prefix. Cost: about 1 us."""
        cdef gbf_addr address
        cdef uint32_t bits, value
        cdef gbf_prefix_problem problem = read_prefix(prefix, &address, &bits)
        if problem != GBF_PREFIX_FINE:
            raise ValueError(prefix_problem(prefix, problem, address, bits))
        return value if gbf_prefix_get(&self._table, address, bits, &value) else None

    def __len__(self):
        return self._table.count

    def __iter__(self):
        """The (prefix, value) pairs by address, shorter prefixes first; IPv4 stands where ::ffff:0:0/96 does."""
        cdef gbf_prefix_cursor cursor
        memset(&cursor, 0, sizeof(cursor))
        while gbf_prefix_next(&self._table, &cursor):
            yield prefix_text(cursor.item.address, cursor.item.bits), cursor.item.value

    @property
    def nbytes(self):
        """Bytes of the whole table, text and all."""
        return self._block.nbytes

    @property
    def content_hash(self):
        """32 hex digits; equal tables have equal hashes."""
        return self._block.content_hash()

    @property
    def kernel(self):
        """Name of the instruction-set kernel this table uses."""
        return self._table.kernel.name.decode()

    def __reduce__(self):
        return type(self).from_bytes, (bytes(self._block),)

    def __repr__(self):
        return f"<PrefixTable of {len(self)} prefixes, {self.nbytes} bytes>"


cdef newfunc allocate = only_whole(PrefixTable)


cdef PrefixTable build_table(object cls, gbf_prefix_item *rows, Py_ssize_t count, const gbf_lpm_kernel *kernel):
    cdef void *data = NULL
    cdef gbf_fault fault
    raise_for(gbf_prefix_build(rows, <uint64_t>count, KIND, NULL, 0, &data, &fault), &fault, "")
    return table_of(cls, Block.adopt(data), False, kernel)


cdef PrefixTable table_of(object cls, Block block, bint verify, const gbf_lpm_kernel *kernel):
    cdef gbf_prefix opened
    cdef gbf_fault fault
    cdef PrefixTable table
    raise_for(gbf_prefix_open(&opened, block.data, block.nbytes, KIND, verify, kernel, &fault), &fault, block.path)
    table = bare(allocate, cls)
    table._table, table._block = opened, block
    return table
