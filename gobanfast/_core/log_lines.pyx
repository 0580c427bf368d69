"""LineReader: lines of access logs as columns of borrowed text; InternTable: a number for each distinct text."""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from gobanfast._core.made cimport bare, newfunc, only_whole
from gobanfast._core.native.base cimport GBF_OK
from gobanfast._core.native.batch cimport (
    GBF_LOG_ADDRESS, GBF_LOG_COLUMNS, GBF_LOG_COMBINED, GBF_LOG_COMMON, GBF_LOG_COMMON_RAW, GBF_LOG_CSV, GBF_LOG_FULL,
    GBF_LOG_FULL_RAW, GBF_LOG_JSON, GBF_LOG_SLOTS, GBF_LOG_SLOW, GBF_LOG_STRUCTURES, gbf_intern, gbf_intern_clear,
    gbf_intern_free, gbf_intern_get, gbf_intern_records, gbf_intern_start, gbf_intern_texts, gbf_log_count,
    gbf_log_form, gbf_log_index, gbf_log_index_pick, gbf_log_json, gbf_log_read, gbf_log_rows, gbf_log_value,
)

from gobanfast._core.kernels import cpu_features

SLOW, ADDRESS, FULL, FULL_RAW = GBF_LOG_SLOW, GBF_LOG_ADDRESS, GBF_LOG_FULL, GBF_LOG_FULL_RAW
COMMON, COMMON_RAW = GBF_LOG_COMMON, GBF_LOG_COMMON_RAW
COLUMNS, STRUCTURES = GBF_LOG_COLUMNS, GBF_LOG_STRUCTURES
LAYOUTS = {"combined": GBF_LOG_COMBINED, "csv": GBF_LOG_CSV, "json": GBF_LOG_JSON}


cdef class LineReader:
    """LineReader(layout, *, address_only=False, skip=0, delimiter=",", columns=(), features=None)\n--\n
    Reader of log lines in blocks of bytes: what each line is, and where its texts are.

    Args:
        layout: combined, csv or json.
        address_only: of combined lines the address alone is wanted.
        skip: fields before the address of a combined line.
        delimiter: of CSV.
        columns: numbers of the CSV cells that are wanted, the address first; at most COLUMNS.
        features: bits of the CPU that may be used; None: all it has.
    Raises:
        ValueError: another layout, or too many columns.
    Threads: one at a time; detached from the interpreter while it reads.
    Cost: about 0.1 us a line.
    Source: csrc/DESIGN.md, "Log lines".
    """

    @classmethod
    def _make(cls, str layout not None, /, *, bint address_only=False, uint32_t skip=0, str delimiter=",", columns=(),
              features=None):
        cdef LineReader made
        cdef gbf_log_form form
        cdef uint32_t slot
        cdef gbf_log_index kernel
        memset(&form, 0, sizeof(form))
        if layout not in LAYOUTS:
            raise ValueError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
        if len(columns) > GBF_LOG_COLUMNS:
            raise ValueError(f"{len(columns)} columns; at most {GBF_LOG_COLUMNS} are read")
        if len(delimiter) != 1 or not delimiter.isascii():
            raise ValueError(f"delimiter {delimiter!r} is not one ASCII character")
        form.layout, form.address_only, form.skip = LAYOUTS[layout], address_only, skip
        form.delimiter = <uint8_t>ord(delimiter)
        for slot in columns:
            form.slots[form.count] = slot
            form.count += 1
        kernel = gbf_log_index_pick(cpu_features() if features is None else features)
        made = bare(allocate, cls)
        made._form, made._index = form, kernel
        return made

    def __dealloc__(self):
        free(self._marks)

    def learn(self, uint64_t structure, slots, /):
        """The kind of JSON lines of this structure, whose wanted values have these numbers, the address first; None
        when there are too many structures, or values."""
        cdef uint32_t which = self._form.structure_count, slot, count = 0
        if which == GBF_LOG_STRUCTURES or len(slots) > GBF_LOG_COLUMNS:
            return None
        for slot in slots:
            self._form.structures[which].slots[count] = slot
            count += 1
        self._form.structures[which].hash, self._form.structures[which].count = structure, count
        self._form.structure_count += 1
        return GBF_LOG_ADDRESS + which

    def index(self, block, uint32_t nbytes, /):
        """How many lines the first `nbytes` of a block hold, whose last byte is a line feed.

        Raises:
            ValueError: the block is shorter.
        """
        cdef Py_buffer source
        cdef uint32_t lines
        PyObject_GetBuffer(block, &source, PyBUF_SIMPLE)
        try:
            if source.len < nbytes:
                raise ValueError(f"block of {source.len} bytes, not {nbytes}")
            if nbytes > self._room:
                free(self._marks)
                self._room = 0
                self._marks = <uint32_t *>malloc((<size_t>nbytes + 64) * sizeof(uint32_t))
                if self._marks == NULL:
                    raise MemoryError()
                self._room = nbytes
            self._nbytes = nbytes
            with nogil:
                self._count = self._index(<const uint8_t *>source.buf, nbytes, self._marks)
                lines = gbf_log_count(<const uint8_t *>source.buf, self._marks, self._count)
            return lines
        finally:
            PyBuffer_Release(&source)

    def read(self, block, uint32_t nbytes, uint32_t lines, kinds, spans, hashes, /):
        """Lines of the block that `index` was last told, read into arrays.

        Args:
            lines: how many at most.
            kinds: uint8, one a line.
            spans: uint32, 2 + 2 * COLUMNS rows of `lines` items: start and length of the line, starts of its texts,
                lengths of its texts.
            hashes: uint64, one a line, for JSON: the structure, 0 where it is none; else None.
        Raises:
            ValueError: arrays of other sizes.
        """
        cdef Py_buffer source, kind, span, hash
        cdef gbf_log_rows rows
        cdef uint32_t done
        cdef bint hashed = self._form.layout == GBF_LOG_JSON
        cdef int opened = 0
        try:
            PyObject_GetBuffer(block, &source, PyBUF_SIMPLE)
            opened = 1
            PyObject_GetBuffer(kinds, &kind, PyBUF_WRITABLE)
            opened = 2
            PyObject_GetBuffer(spans, &span, PyBUF_WRITABLE)
            opened = 3
            if hashed:
                PyObject_GetBuffer(hashes, &hash, PyBUF_WRITABLE)
                opened = 4
            if (source.len < nbytes or nbytes != self._nbytes or kind.len != lines
                    or span.len != (2 + 2 * GBF_LOG_COLUMNS) * 4 * <Py_ssize_t>lines
                    or (hashed and hash.len != 8 * <Py_ssize_t>lines)):
                raise ValueError(f"arrays do not fit {lines} lines")
            rows.kinds, rows.starts, rows.room = <uint8_t *>kind.buf, <uint32_t *>span.buf, lines
            rows.lengths = rows.starts + lines
            rows.at = rows.starts + 2 * <size_t>lines
            rows.nbytes = rows.at + GBF_LOG_COLUMNS * <size_t>lines
            rows.hashes = <uint64_t *>hash.buf if hashed else NULL
            with nogil:
                done = gbf_log_read(&self._form, <const uint8_t *>source.buf, nbytes, self._marks, self._count, &rows)
            return done
        finally:
            if opened > 0:
                PyBuffer_Release(&source)
            if opened > 1:
                PyBuffer_Release(&kind)
            if opened > 2:
                PyBuffer_Release(&span)
            if opened > 3:
                PyBuffer_Release(&hash)

    def json_values(self, bytes line not None, /):
        """(hash, types) of a JSON line: its structure, and one letter a value, in order; None when it is none."""
        cdef gbf_log_value values[GBF_LOG_SLOTS]
        cdef uint32_t count = 0, i
        cdef uint64_t hash = 0
        cdef list types
        self.index(line, <uint32_t>len(line))
        if not gbf_log_json(<const uint8_t *>PyBytes_AS_STRING(line), 0, <uint32_t>len(line), self._marks, self._count,
                            values, &count, &hash):
            return None
        types = [chr(values[i].type) for i in range(count)]
        return hash, "".join(types)


cdef newfunc allocate = only_whole(LineReader)


cdef class InternTable:
    """InternTable()\n--\n
    Numbers of texts, from 0, in the order they first came.

    Threads: one at a time; detached from the interpreter while it reads.
    Cost: 15 to 40 ns a text; memory for each distinct one. The owner clears what has grown too large.
    Source: csrc/DESIGN.md, "Log lines".
    """

    @classmethod
    def _make(cls):
        cdef gbf_intern table
        cdef InternTable made
        if gbf_intern_start(&table, int.from_bytes(os.urandom(8), "little")) != GBF_OK:
            gbf_intern_free(&table)
            raise MemoryError()
        try:
            made = bare(allocate_table, cls)
        except BaseException:
            gbf_intern_free(&table)
            raise
        made._table = table
        return made

    def __dealloc__(self):
        gbf_intern_free(&self._table)

    def __len__(self):
        return self._table.count

    def clear(self):
        """None; the table is empty, and numbers begin anew."""
        gbf_intern_clear(&self._table)

    def text(self, uint32_t number, /):
        """The text of a number."""
        cdef uint64_t nbytes
        cdef const uint8_t *text
        if number >= self._table.count:
            raise IndexError(f"no text has the number {number}")
        text = gbf_intern_get(&self._table, number, &nbytes)
        return PyBytes_FromStringAndSize(<const char *>text, <Py_ssize_t>nbytes)

    def texts(self, block, at, nbytes, out, /):
        """The items whose texts are new, as bytes of uint32; numbers go into `out`.

        Args:
            block: what holds the texts. `at`, `nbytes`, `out`: uint32, one a text.
        Raises:
            ValueError: arrays of other sizes, or a text that is not in the block.
        """
        cdef Py_buffer source, starts, lengths, target
        cdef const uint32_t *first
        cdef const uint32_t *size
        cdef bytes fresh
        cdef uint32_t *met
        cdef Py_ssize_t i, count
        cdef uint32_t before = self._table.count
        cdef bint fits = True
        cdef int opened = 0, status
        try:
            PyObject_GetBuffer(block, &source, PyBUF_SIMPLE)
            opened = 1
            PyObject_GetBuffer(at, &starts, PyBUF_SIMPLE)
            opened = 2
            PyObject_GetBuffer(nbytes, &lengths, PyBUF_SIMPLE)
            opened = 3
            PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
            opened = 4
            if starts.len != lengths.len or starts.len != target.len or starts.len % 4:
                raise ValueError("arrays do not fit each other")
            count = starts.len // 4
            first, size = <const uint32_t *>starts.buf, <const uint32_t *>lengths.buf
            fresh = PyBytes_FromStringAndSize(NULL, starts.len)
            met = <uint32_t *>PyBytes_AS_STRING(fresh)
            with nogil:
                for i in range(count):
                    fits &= <uint64_t>first[i] + size[i] <= <uint64_t>source.len
                status = GBF_OK
                if fits:
                    status = gbf_intern_texts(&self._table, <const uint8_t *>source.buf, first, size, <uint32_t>count,
                                              <uint32_t *>target.buf, met)
            if not fits:
                raise ValueError("a text is not in the block")
            if status != GBF_OK:
                raise MemoryError()
            return fresh[:4 * (self._table.count - before)]
        finally:
            if opened > 0:
                PyBuffer_Release(&source)
            if opened > 1:
                PyBuffer_Release(&starts)
            if opened > 2:
                PyBuffer_Release(&lengths)
            if opened > 3:
                PyBuffer_Release(&target)

    def fixed(self, records, uint32_t width, out, /):
        """The same for records of `width` bytes each, one after the other."""
        cdef Py_buffer source, target
        cdef bytes fresh
        cdef uint32_t *met
        cdef uint32_t before = self._table.count
        cdef int opened = 0, status
        cdef Py_ssize_t count
        try:
            PyObject_GetBuffer(records, &source, PyBUF_SIMPLE)
            opened = 1
            PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
            opened = 2
            count = target.len // 4
            if width == 0 or source.len != count * width:
                raise ValueError(f"{source.len} bytes are not {count} records of {width}")
            fresh = PyBytes_FromStringAndSize(NULL, target.len)
            met = <uint32_t *>PyBytes_AS_STRING(fresh)
            with nogil:
                status = gbf_intern_records(&self._table, <const uint8_t *>source.buf, width, <uint32_t>count,
                                            <uint32_t *>target.buf, met)
            if status != GBF_OK:
                raise MemoryError()
            return fresh[:4 * (self._table.count - before)]
        finally:
            if opened > 0:
                PyBuffer_Release(&source)
            if opened > 1:
                PyBuffer_Release(&target)


cdef newfunc allocate_table = only_whole(InternTable)
