"""PrefixSet: membership test of addresses in merged prefixes, IPv4 and IPv6."""

from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from gobanfast._core.address cimport (
    BATCH_PACKED, BATCH_UINT32, batch_form, gbf_ascii, prefix_problem, prefix_text, read_prefix, run_many,
)
from gobanfast._core.block cimport Block, raise_for
from gobanfast._core.made cimport bare, newfunc, only_whole
from gobanfast._core.prefix_table cimport reserve
from gobanfast._core.native.address cimport (
    GBF_PREFIX_FINE, gbf_addr_load, gbf_prefix_item, gbf_prefix_problem, gbf_set, gbf_set_build, gbf_set_cursor,
    gbf_set_kernel, gbf_set_next, gbf_set_open, gbf_set_pick,
)
from gobanfast._core.native.base cimport gbf_fault

from gobanfast._core.kernels import cpu_features


cdef struct set_table:
    gbf_set set
    const gbf_set_kernel *kernel


cdef size_t run_covers(const void *table, batch_form form, const void *rows, const uint32_t *lengths, size_t n,
                       void *out) noexcept nogil:
    cdef const gbf_set *covered = &(<const set_table *>table).set
    cdef const gbf_set_kernel *kernel = (<const set_table *>table).kernel
    if form == BATCH_UINT32:
        return kernel.covers4_many(covered, <const uint32_t *>rows, n, <uint8_t *>out)
    if form == BATCH_PACKED:
        return kernel.covers16_many(covered, <const uint8_t *>rows, n, <uint8_t *>out)
    return kernel.covers_text_many(covered, <const char *const *>rows, lengths, n, <uint8_t *>out)


cdef class PrefixSet:
    """PrefixSet(prefixes=(), /, *, kernel=None)\n--\n
    Which addresses some prefix covers: IPv4 and IPv6 in one frozen set, for allow-lists and block-lists.

    `address in made` is True where some prefix covers the address, False elsewhere and for text that is no address.

    Args:
        prefixes: texts like "192.0.2.0/24" or "2001:db8::1". Overlapping, equal and adjacent ones merge: the set is the
            same however it was cut. Host bits must be zero. ::ffff:a.b.c.d/(96+n) is the IPv4 prefix a.b.c.d/n; ::/0
            covers IPv6 only.
        kernel: cap on the instruction set ("scalar", "v2", "avx512"); default GOBANFAST_KERNEL, else the best.
    Raises:
        ValueError: a prefix that cannot be used, with its index and a hint.
    Threads: frozen once built; any number of threads may read.
    Cost: an IPv4 address reads two or three cache lines. 262 KB, and at most 4 bytes an IPv4 prefix, 17 an IPv6
        prefix, 33 when some are longer than /64.
    Source: csrc/DESIGN.md, "Prefix set".
    """
    cdef set_table _table
    cdef Block _block

    @classmethod
    def _make(cls, prefixes=(), /, *, kernel=None):
        cdef gbf_prefix_item *rows = reserve(NULL, 256)
        cdef gbf_prefix_item *row
        cdef Py_ssize_t count = 0, room = 256
        cdef gbf_prefix_problem problem
        cdef str text
        cdef const gbf_set_kernel *picked
        try:
            picked = gbf_set_pick(<uint32_t>cpu_features(kernel))
            if isinstance(prefixes, (str, bytes)):
                raise TypeError(f"prefixes is one text, {prefixes!r}; write PrefixSet([{prefixes!r}])")
            for item in prefixes:
                if type(item) is not str:
                    raise TypeError(f"item {count}: expected str, got {type(item).__name__}")
                text = item
                if count == room:
                    room *= 2
                    rows = reserve(rows, room)
                row = &rows[count]
                problem = read_prefix(text, &row.address, &row.bits)
                if problem != GBF_PREFIX_FINE:
                    raise ValueError(f"item {count}: {prefix_problem(text, problem, row.address, row.bits)}")
                count += 1
            return build_set(cls, rows, count, picked)
        finally:
            free(rows)

    @classmethod
    def from_packed(cls, addresses, lengths, /, *, kernel=None):
        """Set from two buffers of n items: 16-byte addresses (network order) and uint8 bits; IPv4 has 96 + n bits.

        Raises ValueError when the buffers do not fit, or with the index of the first bad item. About 0.1 us an item.
        """
        cdef Py_buffer address, length
        cdef gbf_prefix_item *rows = NULL
        cdef Py_ssize_t i, count
        cdef const gbf_set_kernel *picked = gbf_set_pick(<uint32_t>cpu_features(kernel))
        PyObject_GetBuffer(addresses, &address, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(lengths, &length, PyBUF_SIMPLE)
            try:
                count = length.len
                if address.len != 16 * count:
                    raise ValueError(f"{count} lengths need {16 * count} address bytes, not {address.len}")
                rows = reserve(NULL, count + 1)
                for i in range(count):
                    rows[i].address = gbf_addr_load(<const uint8_t *>address.buf + 16 * i)
                    rows[i].bits = (<const uint8_t *>length.buf)[i]
                return build_set(cls, rows, count, picked)
            finally:
                free(rows)
                PyBuffer_Release(&length)
        finally:
            PyBuffer_Release(&address)

    @classmethod
    def load(cls, path, /, *, bint verify=True, kernel=None):
        """The set saved at `path`, mapped read-only, its pages shared with every process that maps it.

        Every index and the order of all bounds are checked before the first lookup, whatever `verify` says; with it
        the content hash is checked too. Raises OSError, or FormatError (path, offset) for a file that is cut short,
        damaged, foreign or too new. Cost: about 1.5 ms a megabyte. Replace the file by rename, never truncate it.
        """
        return set_of(cls, Block.map(path), verify, gbf_set_pick(<uint32_t>cpu_features(kernel)))

    @classmethod
    def from_bytes(cls, data, /, *, bint verify=True, kernel=None):
        """The set in `data`, a buffer with what `save` writes; copied. Errors as for `load`."""
        return set_of(cls, Block.copy(data), verify, gbf_set_pick(<uint32_t>cpu_features(kernel)))

    def save(self, path, /):
        """Writes the set to `path` through a temporary file, fsync and rename. Raises OSError."""
        self._block.save(path)

    def verify(self):
        """Checks everything `load` checks; FormatError."""
        cdef gbf_set checked
        cdef gbf_fault fault
        raise_for(gbf_set_open(&checked, self._block.data, self._block.nbytes, True, self._table.kernel, &fault),
                  &fault, self._block.path)

    def __contains__(self, str address not None):
        cdef const char *start
        cdef size_t n
        return gbf_ascii(address, &start, &n) and self._table.kernel.covers_text(&self._table.set, start, n)

    def contains_many(self, addresses, out, /):
        """Number of addresses inside the set, after writing 1 (inside) or 0 for each into `out`.

        Args:
            addresses: uint32 buffer (IPv4, host order), buffer of n x 16 bytes (network order, IPv4 mapped), or a list
                of str (one that is not an address is outside).
            out: writable buffer of n items of one byte.
        Raises:
            ValueError: `addresses` is not whole records, or `out` has another number of items.
        Cost: 3 to 30 ns an address. Detaches from the interpreter for buffers of 2048 addresses and more.
        """
        return run_many(run_covers, &self._table, addresses, out, 1)

    def __len__(self):
        """Number of prefixes that iteration gives."""
        return self._table.set.prefix4s + self._table.set.prefix6s

    def __iter__(self):
        """The fewest disjoint prefixes that make up the set, as `ipaddress.collapse_addresses` gives them: IPv4, then
        IPv6, each by address."""
        cdef gbf_set_cursor cursor
        memset(&cursor, 0, sizeof(cursor))
        while gbf_set_next(&self._table.set, &cursor):
            yield prefix_text(cursor.address, cursor.bits)

    @property
    def nbytes(self):
        """Bytes of the whole set."""
        return self._block.nbytes

    @property
    def content_hash(self):
        """32 hex digits; sets of the same addresses have equal hashes."""
        return self._block.content_hash()

    @property
    def kernel(self):
        """Name of the instruction-set kernel this set uses."""
        return self._table.kernel.name.decode()

    def __reduce__(self):
        return type(self).from_bytes, (bytes(self._block),)

    def __repr__(self):
        return f"<PrefixSet of {len(self)} prefixes, {self.nbytes} bytes>"


cdef newfunc allocate = only_whole(PrefixSet)


cdef PrefixSet build_set(object cls, gbf_prefix_item *rows, Py_ssize_t count, const gbf_set_kernel *kernel):
    cdef void *data = NULL
    cdef gbf_fault fault
    raise_for(gbf_set_build(rows, <uint64_t>count, &data, &fault), &fault, "")
    return set_of(cls, Block.adopt(data), False, kernel)


cdef PrefixSet set_of(object cls, Block block, bint verify, const gbf_set_kernel *kernel):
    cdef gbf_set opened
    cdef gbf_fault fault
    cdef PrefixSet made
    raise_for(gbf_set_open(&opened, block.data, block.nbytes, verify, kernel, &fault), &fault, block.path)
    made = bare(allocate, cls)
    made._table.set, made._table.kernel, made._block = opened, kernel, block
    return made
