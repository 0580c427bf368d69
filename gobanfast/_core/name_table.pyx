"""NameTable: most specific pattern (exact, suffix, glob) that covers a name."""

from cpython.number cimport PyIndex_Check
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from gobanfast._core.address cimport gbf_ascii
from gobanfast._core.block cimport Block, raise_for
from gobanfast._core.made cimport bare, newfunc, only_whole
from gobanfast._core.name_text cimport kind_of, lookup_strings, read_literal, read_name, text_of
from gobanfast._core.native.base cimport (
    GBF_BAD_INPUT, GBF_NONE, GBF_OK, GBF_TAG, gbf_block_section, gbf_fault, gbf_status,
)
from gobanfast._core.native.name cimport (
    GBF_BUCKET_SLOTS, GBF_NAME_GLOB, GBF_NAME_MULTI, gbf_glob_item, gbf_name, gbf_name_bucket, gbf_name_builder,
    gbf_name_builder_add, gbf_name_builder_finish, gbf_name_builder_free, gbf_name_builder_glob, gbf_name_builder_new,
    gbf_name_builder_way, gbf_name_kernel, gbf_name_kernel_pick, gbf_name_literal, gbf_name_lookup,
    gbf_name_lookup_all, gbf_name_open, gbf_name_read, gbf_name_table,
)

from gobanfast._errors import FormatError
from gobanfast._values import pair, refuse_container
from gobanfast._core.kernels import cpu_features

cdef int PROBLEMS_SHOWN = 20


cdef uint32_t add_parsed(gbf_name_builder *builder, str pattern, uint32_t value, dict globs, dict regexes,
                         gbf_name *name) except 0xFFFFFFFF:
    """Kind (and key in *name) of a pattern that is literal after all; 0 when it was a glob or a regex, now taken."""
    from gobanfast.names import parse_pattern

    cdef const char *items
    cdef gbf_name *anchor = NULL
    parsed = parse_pattern(pattern)
    if parsed.kind == "regex":
        regexes.setdefault(parsed.text, value)
        return 0
    if parsed.kind != "glob":
        return read_literal(parsed.text, name)
    if parsed.text in globs:
        return 0
    globs[parsed.text] = value
    if parsed.anchor:
        read_name(parsed.anchor, name)
        anchor = name
    if gbf_name_builder_glob(builder, value) != GBF_OK:
        raise MemoryError()
    for way in parsed.ways:
        items = way
        if gbf_name_builder_way(builder, anchor, <const gbf_glob_item *>items, <uint32_t>(len(way) // 16)) != GBF_OK:
            raise MemoryError()
    return 0


cdef class NameTable:
    """NameTable(items=(), /, *, key=None, text=True, kernel=None)\n--\n
    Name patterns with uint32 values in one frozen table; says which pattern covers a name.

    Patterns: "a.example" the name; "*.example" one label below it; "**.example" one or more; ".example" itself and
    everything below; "*" and "?" inside a label; classes and quantifiers ("c2[0-9]+.example"); "re:..." a full RE2
    regex (the slow path).

    Args:
        items: (pattern, value) pairs, for example ("*.example.com", 7). Values are 0..4294967294. Of equal patterns
            the first one wins.
        key: secret bytes for the hash, for builds that must come out the same twice; default: random in every build.
        text: False keeps 64-bit fingerprints of names instead of their text: half the size, no iteration, and a wrong
            match with the odds stated in csrc/DESIGN.md. Never for allow-lists whose key is known.
        kernel: cap on the instruction set ("scalar", "v2", "avx512"); default GOBANFAST_KERNEL, else the best.
    Raises:
        ValueError: patterns or values that cannot be used, all of them, each with its index; or globs past the budget.
    Threads: frozen once built; any number of threads may read.
    Cost: a lookup hashes the name once and reads one or two cache lines a hit.
    Source: csrc/DESIGN.md, "Names: what a pattern means" and those after it.
    """

    @classmethod
    def _make(cls, items=(), /, *, key=None, bint text=True, kernel=None):
        from gobanfast.names import expand_key, pack_slow  # cold, and imports this package's extensions itself

        cdef uint64_t words[10]
        cdef gbf_name_builder *builder
        cdef gbf_name name
        cdef gbf_fault fault
        cdef void *data = NULL
        cdef const char *start
        cdef size_t n
        cdef str pattern
        cdef uint32_t kind
        cdef Py_ssize_t index
        cdef gbf_status status
        cdef const gbf_name_kernel *picked = gbf_name_kernel_pick(<uint32_t>cpu_features(kernel))
        for index, word in enumerate(expand_key(key)):
            words[index] = word
        index = -1
        globs, regexes, problems = {}, {}, []
        builder = gbf_name_builder_new(words, text)
        if builder == NULL:
            raise MemoryError()
        try:
            refuse_container(items, "NameTable")
            for item in items:
                index += 1
                if (type(item) is not tuple or len(<tuple>item) != 2 or type((<tuple>item)[0]) is not str or
                        not PyIndex_Check((<tuple>item)[1])):
                    item = pair(item, index)
                pattern, value = <tuple>item
                if not 0 <= value < GBF_NONE:
                    problems.append(f"item {index}: value {value} is not in 0..4294967294")
                    continue
                kind = 0
                if gbf_ascii(pattern, &start, &n):
                    kind = gbf_name_literal(&name, <const uint8_t *>start, n, picked.fold)
                if kind == 0:
                    try:
                        kind = add_parsed(builder, pattern, value, globs, regexes, &name)
                    except ValueError as error:
                        problems.append(f"item {index}: {error}")
                if kind != 0 and gbf_name_builder_add(builder, &name, kind, value) != GBF_OK:
                    raise MemoryError()
            if problems:
                more = len(problems) - PROBLEMS_SHOWN
                raise ValueError("\n".join(problems[:PROBLEMS_SHOWN] + ([f"and {more} more"] if more > 0 else [])))
            slow = pack_slow(list(globs), list(regexes.items()))
            status = gbf_name_builder_finish(builder, <const char *>slow, len(slow), &data, &fault)
            if status == GBF_BAD_INPUT:
                raise ValueError(f"pattern {list(globs)[fault.offset]!r}: {fault.what.decode()}; "
                                 "use fewer globs with the same right end, or 're:'")
            raise_for(status, &fault, "")
        finally:
            gbf_name_builder_free(builder)
        return table_of(cls, Block.adopt(data), False, picked)

    @classmethod
    def load(cls, path, /, *, bint verify=True, kernel=None):
        """The table saved at `path`, mapped read-only, its pages shared with every process that maps it.

        Every index is checked before the first lookup, whatever `verify` says; with it the content hash is checked too.
        Raises OSError, or FormatError (path, offset) for a file that is cut short, damaged, foreign or too new.
        Cost: about 0.2 ms a megabyte, and compiling the regexes if there are any. The file must be replaced by rename.
        """
        return table_of(cls, Block.map(path), verify, gbf_name_kernel_pick(<uint32_t>cpu_features(kernel)))

    @classmethod
    def from_bytes(cls, data, /, *, bint verify=True, kernel=None):
        """The table in `data`, a buffer with what `save` writes; copied. Errors as for `load`."""
        return table_of(cls, Block.copy(data), verify, gbf_name_kernel_pick(<uint32_t>cpu_features(kernel)))

    def save(self, path, /):
        """Writes the table to `path` through a temporary file, fsync and rename. Raises OSError."""
        self._block.save(path)

    def verify(self):
        """Checks what `load` checks, and that every key is where a lookup looks for it; FormatError. O(n)."""
        table_of(NameTable, self._block, True, self._kernel)
        if not self._table.head.has_text:
            return
        from gobanfast.names import sample

        for pattern, value in self:
            name = sample(pattern)
            if name is not None and value not in self.lookup_all(name):
                raise FormatError(self._block.path, 0, f"pattern {pattern!r} is not found by a lookup")

    cdef uint32_t find(self, const uint8_t *text, uint64_t nbytes, bint *malformed) except? 0xFFFFFFFE:
        cdef gbf_name name
        cdef uint32_t value
        malformed[0] = not gbf_name_read(&name, text, nbytes, self._table.fold)
        if malformed[0]:
            return GBF_NONE
        value = gbf_name_lookup(&self._table, &name)
        return self._regexes.first(text_of(&name)) if value == GBF_NONE and self._regexes is not None else value

    def lookup(self, str name not None, /):
        """Value of the most specific pattern that covers `name`, or None; None too when it is malformed.

        Exact beats the longest suffix beats a glob beats a regex; of equal ones the one given first wins.
        """
        cdef const char *start
        cdef size_t n
        cdef bint malformed
        cdef uint32_t value
        if not gbf_ascii(name, &start, &n):
            return None
        value = self.find(<const uint8_t *>start, n, &malformed)
        return None if value == GBF_NONE else value

    def __contains__(self, str name not None):
        cdef const char *start
        cdef size_t n
        cdef bint malformed
        return gbf_ascii(name, &start, &n) and self.find(<const uint8_t *>start, n, &malformed) != GBF_NONE

    def lookup_all(self, str name not None, /):
        """List of the values of every pattern that covers `name`, most specific first; empty when it is malformed."""
        cdef gbf_name parsed
        cdef uint32_t few[64]
        cdef uint32_t *values = few
        cdef uint64_t count, room = 64
        if not read_name(name, &parsed):
            return []
        count = gbf_name_lookup_all(&self._table, &parsed, values, room)
        if count > room:
            room = count
            values = <uint32_t *>malloc(room * sizeof(uint32_t))
            if values == NULL:
                raise MemoryError()
            count = gbf_name_lookup_all(&self._table, &parsed, values, room)
        found = [values[i] for i in range(count)]
        if values != few:
            free(values)
        return found if self._regexes is None else found + self._regexes.all(text_of(&parsed))

    def lookup_many(self, names, out, /):
        """Number of matches after looking up `names` into `out`.

        Args:
            names: anything with the Arrow C data interface that holds strings, a NumPy array of dtype S or U, or an
                iterable of str; null, malformed and non-ASCII names match nothing.
            out: writable buffer of n uint32; 0xFFFFFFFF where no pattern covers the name.
        Raises:
            ValueError: `out` has another number of items; TypeError: `names` holds no strings.
        Cost: 20 to 100 ns a name. Detaches from the interpreter for columns.
        """
        return lookup_strings(&self._table, names, out, self._regexes)

    def __len__(self):
        return self._table.head.patterns + len(self._globs) + (0 if self._regexes is None else len(self._regexes.items))

    def __iter__(self):
        """The (pattern, value) pairs: literal ones by hash, then globs, then regexes in order.

        TypeError for a table without text.
        """
        cdef const gbf_name_bucket *bucket
        cdef uint64_t at
        cdef int i, j
        if not self._table.head.has_text:
            raise TypeError("a table built with text=False does not know its patterns")
        for at in range(self._table.bucket_count):
            bucket = &self._table.buckets[at]
            for i in range(GBF_BUCKET_SLOTS):
                if bucket.kinds[i] == 0 or bucket.kinds[i] == GBF_NAME_GLOB:
                    continue
                key = self.text_at(bucket.text[i], bucket.check[i])
                if not bucket.kinds[i] & GBF_NAME_MULTI:
                    yield kind_of(bucket.kinds[i])[1] + key, bucket.value[i]
                    continue
                for j in range(GBF_BUCKET_SLOTS):
                    kind = self._table.many[bucket.value[i]].kind[j]
                    if kind != 0 and kind != GBF_NAME_GLOB:
                        yield kind_of(kind)[1] + key, self._table.many[bucket.value[i]].value[j]
        for at in range(self._table.glob_count):
            yield self._globs[at], self._table.glob_values[at]
        if self._regexes is not None:
            yield from self._regexes.items

    cdef str text_at(self, uint64_t at, Py_ssize_t nbytes):
        """The name whose text starts at `at`; FormatError when it was damaged, which `load` looks for by the hash."""
        cdef const char *start = <const char *>self._table.text + at
        cdef bytes text = start[:nbytes]
        if not text.isascii():
            raise FormatError(self._block.path, <const uint8_t *>start - self._block.data, "name text is not ASCII")
        return text.decode("ascii")

    @property
    def nbytes(self):
        """Bytes of the whole table, text and all; compiled regexes live outside and are not counted."""
        return self._block.nbytes

    @property
    def content_hash(self):
        """32 hex digits; tables built from equal items with an equal key have equal hashes."""
        return self._block.content_hash()

    @property
    def kernel(self):
        """Name of the instruction-set kernel this table uses."""
        return self._kernel.name.decode()

    def __reduce__(self):
        return type(self).from_bytes, (bytes(self._block),)

    def __repr__(self):
        return f"<NameTable of {len(self)} patterns, {self.nbytes} bytes>"


cdef newfunc allocate = only_whole(NameTable)


cdef NameTable names_of_block(Block block, bint verify):
    return table_of(NameTable, block, verify, gbf_name_kernel_pick(<uint32_t>cpu_features(None)))


cdef NameTable table_of(object cls, Block block, bint verify, const gbf_name_kernel *kernel):
    cdef gbf_name_table opened
    cdef gbf_fault fault
    cdef gbf_status status
    cdef NameTable table
    with nogil:  # milliseconds for a large table
        status = gbf_name_open(&opened, block.data, block.nbytes, verify, kernel, &fault)
    raise_for(status, &fault, block.path)
    globs, regexes = slow_of(block, <Py_ssize_t>opened.glob_count)
    table = bare(allocate, cls)
    table._table, table._kernel, table._block, table._globs, table._regexes = opened, kernel, block, globs, regexes
    return table


cdef tuple slow_of(Block block, Py_ssize_t glob_count):
    """(glob texts, Regexes or None) from the block."""
    cdef uint64_t count
    cdef const char *more = <const char *>gbf_block_section(block.data, GBF_TAG(b"M", b"O", b"R", b"E"), 1, &count)
    if more == NULL or count == 0:
        if glob_count != 0:
            raise FormatError(block.path, 64, "glob texts are missing")
        return (), None
    from gobanfast.names import Regexes, unpack_slow

    try:
        globs, regexes = unpack_slow(more[:count])
        if len(globs) != glob_count:
            raise ValueError("glob texts are damaged")
        return tuple(globs), Regexes(regexes) if regexes else None
    except ValueError as error:
        raise FormatError(block.path, <const uint8_t *>more - block.data, str(error)) from None
