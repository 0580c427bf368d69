"""AS table: longest-prefix match to the origin AS, and AS names, in one block. File readers are in gobanfast.asn."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from gobanfast._core.address cimport find_leaf, pick_kernel
from gobanfast._core.block cimport Block, raise_for
from gobanfast._core.made cimport bare, newfunc, only_whole
from gobanfast._core.prefix_table cimport values_many
from gobanfast._core.native.address cimport (
    GBF_ASN_KIND, GBF_ASN_MAX_COLUMNS, GBF_ASN_MAX_PROBLEMS, GBF_ASN_NUMBERS, GBF_ASN_OFFSETS, GBF_ASN_TEXT, gbf_addr,
    gbf_addr_load, gbf_addr_store, gbf_asn_add, gbf_asn_layout, gbf_asn_name, gbf_asn_names, gbf_asn_names_open,
    gbf_asn_pack, gbf_asn_packed, gbf_asn_problem, gbf_asn_put_name, gbf_asn_rows, gbf_asn_rows_free, gbf_asn_scan,
    gbf_prefix, gbf_prefix_build, gbf_prefix_cursor, gbf_prefix_item, gbf_prefix_next, gbf_prefix_open,
    gbf_prefix_ranges, gbf_prefix_value, gbf_prefix_verify, gbf_range,
)
from gobanfast._core.native.base cimport GBF_NONE, GBF_NO_MEMORY, gbf_part, gbf_fault, gbf_status

# Order of gbf_asn_wrong.
_WRONG = ("columns", "open quote", "after quote", "prefix", "address", "range", "number", "name")


@cython.final
cdef class AsnRows:
    """Prefixes with their origin AS, and AS names, on their way into an AsnBlock."""

    cdef gbf_asn_rows _rows
    cdef list _texts  # what the names point into

    def __cinit__(self):
        memset(&self._rows, 0, sizeof(self._rows))
        self._texts = []

    def __dealloc__(self):
        gbf_asn_rows_free(&self._rows)

    @property
    def count(self):
        """Rows read, good or not."""
        return self._rows.row_count

    @property
    def without_asn(self):
        """Rows of AS 0 or with an empty AS; they add nothing."""
        return self._rows.no_asn

    def scan(self, bytes text not None, *, int delimiter, tuple columns, bint name_is_last, uint32_t shortest_name,
             uint64_t start, uint64_t line):
        """([(what, line, line start, offset, nbytes)], count) of the bad rows of a CSV text; at most 100 are described.

        Args:
            columns: where prefix, first, last, asn and name are, counted from 0; -1 for none.
            start: byte at which line number `line` starts.
        """
        cdef gbf_asn_layout layout
        cdef gbf_asn_problem *problem
        cdef gbf_status status
        cdef const char *data = text
        cdef uint64_t i, nbytes = <uint64_t>len(text)
        if max(columns) >= GBF_ASN_MAX_COLUMNS:
            raise ValueError(f"column {max(columns)} is past the {GBF_ASN_MAX_COLUMNS} columns that are looked at")
        layout.delimiter = <char>delimiter
        layout.prefix, layout.first, layout.last, layout.asn, layout.name = columns
        layout.name_is_last = name_is_last
        layout.name_least = shortest_name
        self._texts.append(text)
        self._rows.problem_count = 0
        with nogil:
            status = gbf_asn_scan(&self._rows, &layout, data, nbytes, start, line)
        if status == GBF_NO_MEMORY:
            raise MemoryError()
        found = []
        for i in range(min(self._rows.problem_count, <uint64_t>GBF_ASN_MAX_PROBLEMS)):
            problem = &self._rows.problems[i]
            found.append((_WRONG[<int>problem.wrong], problem.line, problem.start, problem.offset, problem.nbytes))
        return found, self._rows.problem_count

    def add(self, addresses, lengths, asns):
        """Adds n prefixes: n x 16 bytes (network order, IPv4 mapped), n uint8 lengths (IPv4 96 + n), n uint32 ASNs.

        AS 0 means no AS and adds nothing. ValueError when the buffers do not hold the same number of items.
        """
        cdef Py_buffer address, length, asn
        cdef Py_ssize_t i
        PyObject_GetBuffer(addresses, &address, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(lengths, &length, PyBUF_SIMPLE)
            try:
                PyObject_GetBuffer(asns, &asn, PyBUF_SIMPLE)
                try:
                    if address.len != 16 * length.len or asn.len != 4 * length.len:
                        raise ValueError(f"{length.len} lengths need {16 * length.len} bytes of addresses and "
                                         f"{4 * length.len} of ASNs, not {address.len} and {asn.len}")
                    for i in range(length.len):
                        self.add_one(<const uint8_t *>address.buf + 16 * i, (<const uint8_t *>length.buf)[i],
                                     (<const uint32_t *>asn.buf)[i])
                finally:
                    PyBuffer_Release(&asn)
            finally:
                PyBuffer_Release(&length)
        finally:
            PyBuffer_Release(&address)

    cdef int add_one(self, const uint8_t *packed, uint32_t bits, uint32_t asn) except -1:
        self._rows.row_count += 1
        if asn == 0:
            self._rows.no_asn += 1
        elif gbf_asn_add(&self._rows, gbf_addr_load(packed), bits, asn) == GBF_NO_MEMORY:
            raise MemoryError()
        return 0

    def put_name(self, uint32_t asn, str name not None):
        """Names an AS; a later name replaces an earlier one. AS 0 and an empty name are left out."""
        cdef bytes text = name.encode("utf-8", "replace")
        if asn == 0 or not text:
            return
        self._texts.append(text)
        if gbf_asn_put_name(&self._rows, asn, text, <uint32_t>len(text), 0) == GBF_NO_MEMORY:
            raise MemoryError()

    cdef Block build(self):
        """Block of what was collected. Sorts the prefixes; of equal ones the last stays."""
        cdef gbf_asn_packed names
        cdef gbf_fault fault
        cdef gbf_part extra[3]
        cdef gbf_prefix_item none
        cdef gbf_status status
        cdef void *data = NULL
        raise_for(gbf_asn_pack(&self._rows, &names, &fault), &fault, "")
        extra[0] = gbf_part(GBF_ASN_NUMBERS, 4, names.numbers, 4 * names.count)
        extra[1] = gbf_part(GBF_ASN_OFFSETS, 4, names.offsets, 4 * (names.count + 1))
        extra[2] = gbf_part(GBF_ASN_TEXT, 1, names.text, names.text_bytes)
        with nogil:
            status = gbf_prefix_build(self._rows.items if self._rows.count else &none, self._rows.count, GBF_ASN_KIND,
                                      extra, 3, &data, &fault)
        free(names.numbers)
        raise_for(status, &fault, "")
        return Block.adopt(data)


cdef class AsnBlock:
    """A frozen AS table. Made by gobanfast.asn.AsnTable, which adds the ways to read one from files."""

    cdef gbf_prefix _table
    cdef gbf_asn_names _names
    cdef Block _block
    cdef readonly str source
    cdef readonly object reading

    _make = "an AsnTable comes from AsnTable.starter(), .from_csv, .from_mmdb or .load"

    def __reduce__(self):
        raise TypeError("an AsnTable is not pickled or copied; save it, and AsnTable.load the file wherever it is "
                        "needed: all processes share its pages")

    @classmethod
    def of_rows(cls, AsnRows rows not None, *, str source not None, object reading=None):
        """Table of the collected `rows`; `source` says where they came from, `reading` what was counted."""
        return table_of(cls, rows.build(), False, source, reading)

    @classmethod
    def load(cls, path, *, verify=True):
        """Table over the file `path` that `save` wrote, mapped: opening costs about as much for any size.

        Raises FormatError when it is cut short, damaged, or of another kind; with `verify`, also when the content hash
        differs. OSError when it cannot be opened.
        """
        cdef Block block = Block.map(path)
        return table_of(cls, block, verify, block.path, None)

    @classmethod
    def of_block(cls, Block block not None, *, str source not None, bint verify=True):
        """Table in `block`, which it keeps; checks and errors as for `load`."""
        return table_of(cls, block, verify, source, None)

    @property
    def block(self):
        """The bytes of the table."""
        return self._block

    def save(self, path):
        """Writes the table to `path`: a temporary file beside it, fsync, rename."""
        self._block.save(path)

    def verify(self):
        """None when the whole table is sound: hash, structure, every prefix. Raises FormatError. O(n)."""
        cdef gbf_fault fault
        table_of(AsnBlock, self._block, True, self.source, None)
        raise_for(gbf_prefix_verify(&self._table, &fault), &fault, self._block.path)

    def lookup(self, str address not None, /):
        """Origin AS of `address`: that of the longest prefix that covers it, or None.

        Text that is not an address has no AS; it is no error. Cost and source: as PrefixTable.lookup.
        """
        cdef gbf_addr parsed
        cdef uint32_t leaf = find_leaf(&self._table.lpm, self._table.kernel, address, &parsed)
        cdef uint32_t asn = gbf_prefix_value(&self._table, leaf)
        return None if asn == GBF_NONE else asn

    def __contains__(self, str address not None):
        cdef gbf_addr parsed
        cdef uint32_t leaf = find_leaf(&self._table.lpm, self._table.kernel, address, &parsed)
        return gbf_prefix_value(&self._table, leaf) != GBF_NONE

    def lookup_many(self, addresses, out, /):
        """Number of addresses that have an AS, after writing n origin ASNs into `out`.

        Args:
            addresses: uint32 buffer (IPv4, host order), n x 16 bytes (network order, IPv4 mapped), or a list of str.
            out: writable buffer of n uint32; 0xFFFFFFFF where there is no AS.
        Raises:
            ValueError: the buffers do not fit each other.
        """
        return values_many(&self._table, addresses, out)

    def name(self, uint32_t asn, /):
        """Name of an AS, or None when the table has none for it."""
        cdef uint32_t nbytes = 0
        cdef const char *text = gbf_asn_name(&self._names, asn, &nbytes)
        return None if text == NULL else text[:nbytes].decode("utf-8", "replace")

    def __len__(self):
        return <Py_ssize_t>self._table.count

    def __repr__(self):
        return f"<AsnTable {self.source!r}: {len(self)} prefixes, {self.nbytes} bytes>"

    @property
    def nbytes(self):
        """Bytes of the whole table; exactly what `save` writes."""
        return self._block.nbytes

    @property
    def content_hash(self):
        """32 hex digits that name the content."""
        return self._block.content_hash()

    @property
    def kernel(self):
        """Name of the lookup kernel in use."""
        return self._table.kernel.name.decode()

    def named_asns(self):
        """Native uint32 bytes: the ASNs that have a name, ascending."""
        return (<const uint8_t *>self._names.numbers)[:4 * <Py_ssize_t>self._names.count]

    def prefix_asns(self):
        """Native uint32 bytes: the ASN of every prefix, in prefix order."""
        cdef bytearray asns = bytearray(4 * <Py_ssize_t>self._table.count)
        cdef uint32_t *out = <uint32_t *><char *>asns
        cdef gbf_prefix_cursor cursor
        cdef Py_ssize_t count = 0
        memset(&cursor, 0, sizeof(cursor))
        while gbf_prefix_next(&self._table, &cursor):
            out[count] = cursor.item.value
            count += 1
        return bytes(asns[:4 * count])

    def family_ranges(self, int family):
        """(starts, asns) as bytes: the disjoint ranges of family 4 or 6, ascending, covering it whole; ASN 0 for none.

        Starts are native uint32 for IPv4 and 16 bytes in network order for IPv6; ASNs are native uint32.
        """
        cdef gbf_range *ranges = NULL
        cdef uint64_t count = 0
        cdef gbf_fault fault
        cdef Py_ssize_t start_bytes = 4 if family == 4 else 16
        cdef bytearray starts, asns
        raise_for(gbf_prefix_ranges(&self._table, family, &ranges, &count), &fault, self._block.path)
        try:
            starts, asns = bytearray(start_bytes * <Py_ssize_t>count), bytearray(4 * <Py_ssize_t>count)
            write_ranges(ranges, count, start_bytes == 4, <uint8_t *><char *>starts, <uint32_t *><char *>asns)
        finally:
            free(ranges)
        return bytes(starts), bytes(asns)


cdef void write_ranges(const gbf_range *ranges, uint64_t count, bint ipv4, uint8_t *starts, uint32_t *asns) noexcept:
    cdef uint64_t i
    for i in range(count):
        if ipv4:
            (<uint32_t *>starts)[i] = <uint32_t>(ranges[i].start.high >> 32)
        else:
            gbf_addr_store(ranges[i].start, starts + 16 * i)
        asns[i] = 0 if ranges[i].leaf == GBF_NONE else ranges[i].leaf


cdef newfunc allocate = only_whole(AsnBlock)


cdef AsnBlock table_of(object cls, Block block, bint verify, str source, object reading):
    cdef gbf_prefix opened
    cdef gbf_asn_names names
    cdef gbf_fault fault
    cdef AsnBlock table
    raise_for(gbf_prefix_open(&opened, block.data, block.nbytes, GBF_ASN_KIND, verify, pick_kernel(None), &fault),
              &fault, block.path)
    raise_for(gbf_asn_names_open(&names, block.data, &fault), &fault, block.path)
    table = bare(allocate, cls)
    table._table, table._names, table._block, table.source, table.reading = opened, names, block, source, reading
    return table
