"""OriginSet: whether a pattern covers an origin; OriginMatcher: which groups of patterns cover an origin or a host."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.address cimport gbf_ascii
from gobanfast._core.block cimport Block, raise_for
from gobanfast._core.made cimport bare, newfunc, only_whole
from gobanfast._core.native.base cimport (
    GBF_BAD_INPUT, GBF_NONE, GBF_TAG, gbf_block_section, gbf_fault, gbf_status,
)
from gobanfast._core.native.http cimport (
    GBF_ORIGIN_ANY, GBF_ORIGIN_EXACT, GBF_ORIGIN_MALFORMED, GBF_ORIGIN_ONE, GBF_ORIGIN_UNMATCHED, GBF_PORT_ANY,
    GBF_PORT_NONE, gbf_hosts_find, gbf_origin_builder, gbf_origin_builder_add, gbf_origin_builder_finish,
    gbf_origin_builder_free, gbf_origin_builder_new, gbf_origin_pattern, gbf_origin_pattern_read, gbf_origins,
    gbf_origins_find, gbf_origins_open,
)
from gobanfast._core.native.name cimport gbf_name_kernel, gbf_name_kernel_pick

from gobanfast._errors import FormatError
from gobanfast._core.kernels import cpu_features

cdef enum:
    PROBLEMS_SHOWN = 20
    TEXT_MOST = 65535  # bytes of a text that is looked at; the longest origin has less than 400


def read_pattern(str text not None, bint hosts, /):
    """(kind, scheme, host, port) of an origin or host pattern as the table reads it; None when it is none.

    Kind is any, exact, one or many; port is None, a number, or "*". Names are not looked at beyond their letters: see
    gobanfast.origins, which is for people.
    """
    cdef const char *start
    cdef size_t n
    cdef gbf_origin_pattern p
    if not gbf_ascii(text, &start, &n) or n > TEXT_MOST:
        return None
    if not gbf_origin_pattern_read(&p, <const uint8_t *>start, <uint32_t>n, hosts):
        return None
    if p.kind == GBF_ORIGIN_ANY:
        return "any", "", "", "*"
    host = (<const char *>p.origin.name.text)[:p.origin.name.nbytes].decode("ascii")
    host += "." if p.origin.absolute else ""
    kind = "exact" if p.kind == GBF_ORIGIN_EXACT else "one" if p.kind == GBF_ORIGIN_ONE else "many"
    port = "*" if p.port == GBF_PORT_ANY else None if p.port == GBF_PORT_NONE else p.port
    return kind, text[:p.origin.scheme_nbytes], host, port


cdef Block build_block(list groups, bint hosts, bytes key, bytes more):
    """Block of groups of patterns that are known to be such."""
    from gobanfast.names import expand_key  # cold, and imports this package's extensions itself

    cdef uint64_t words[10]
    cdef gbf_fault fault
    cdef gbf_status status
    cdef gbf_origin_builder *builder
    cdef void *data = NULL
    cdef const char *start
    cdef size_t n
    cdef Py_ssize_t number
    cdef str text
    for number, word in enumerate(expand_key(key)):
        words[number] = word
    builder = gbf_origin_builder_new(words, hosts)
    if builder == NULL:
        raise MemoryError()
    try:
        for number, group in enumerate(groups):
            for text in group:
                if not gbf_ascii(text, &start, &n) or n > TEXT_MOST:
                    raise ValueError(f"{text!r:.200} is no pattern")
                status = gbf_origin_builder_add(builder, <const uint8_t *>start, <uint32_t>n, <uint32_t>number)
                if status == GBF_BAD_INPUT:
                    raise ValueError(f"pattern {text!r} has a scheme too many for one set; at most 127 are possible")
                raise_for(status, &fault, "")
        status = gbf_origin_builder_finish(builder, <const char *>more, <uint64_t>len(more), &data, &fault)
        if status == GBF_BAD_INPUT:
            raise ValueError(f"group {fault.offset}: {fault.what.decode()}; split the set")
        raise_for(status, &fault, "")
    finally:
        gbf_origin_builder_free(builder)
    return Block.adopt(data)


cdef int open_block(Block block, bint verify, const gbf_name_kernel *kernel, gbf_origins *table) except -1:
    cdef gbf_fault fault
    raise_for(gbf_origins_open(table, block.data, block.nbytes, verify, kernel, &fault), &fault, block.path)
    return 0


cdef tuple groups_of(const gbf_origins *table, uint64_t number):
    cdef uint64_t at
    return tuple([table.groups[at] for at in range(table.sets[number], table.sets[number + 1])])


cdef class OriginMatcher:
    """OriginMatcher(groups, hosts, /, *, key=None)\n--\n
    Groups of origin patterns, or of host patterns, as one frozen table: which groups have one that matches.

    A text has a class: 0 malformed, 1 no pattern matches, else one for each distinct set of groups that match; `sets`
    has the groups of each class.

    Args:
        groups: sequences of patterns as gobanfast.origins reads them, without `re:`; a group is known by its place.
        hosts: patterns are of hosts, not of origins.
        key: secret bytes for the hash, for builds that must come out the same twice; default: random in every build.
    Raises:
        ValueError: patterns that cannot be used, all of them, with group and index.
    Threads: frozen once built; any number of threads may read.
    Source: csrc/DESIGN.md, "Origins and hosts".
    """

    @classmethod
    def _make(cls, groups, hosts, /, *, key=None):
        from gobanfast.origins import canonical

        texts, problems = [], []
        for number, group in enumerate(groups):
            if isinstance(group, (str, bytes)):
                raise TypeError(f"group {number} is one text, {group!r}; write [{group!r}]")
            known = []
            for index, text in enumerate(group):
                try:
                    known.append(canonical(text, bool(hosts)))
                except ValueError as error:
                    problems.append(f"group {number}, item {index}: {error}")
            texts.append(known)
        raise_problems(problems)
        return matcher_of(cls, build_block(texts, hosts, key, b""), False)

    @staticmethod
    def from_block(Block block not None, /, *, bint verify=True):
        """The matcher in `block`; FormatError (path, offset) when it is damaged."""
        return origins_of_block(block, verify)

    cdef uint32_t find(self, const uint8_t *text, uint32_t n, uint32_t default_port) noexcept nogil:
        if self.hosts:
            return gbf_hosts_find(&self._table, text, n, default_port)
        return gbf_origins_find(&self._table, text, n)

    def find_text(self, str text not None, default_port=0, /):
        """Class of `text`; `default_port` is that of the request's scheme, for hosts, and 0 when it is not known."""
        cdef const char *start
        cdef size_t n
        cdef uint32_t port = default_port
        if not gbf_ascii(text, &start, &n) or n > TEXT_MOST:
            return GBF_ORIGIN_MALFORMED
        return self.find(<const uint8_t *>start, <uint32_t>n, port)

    def __repr__(self):
        return f"<OriginMatcher of {'hosts' if self.hosts else 'origins'}, {len(self.sets)} classes>"


cdef newfunc allocate_matcher = only_whole(OriginMatcher)


cdef int raise_problems(list problems) except -1:
    if problems:
        more = len(problems) - PROBLEMS_SHOWN
        raise ValueError("\n".join(problems[:PROBLEMS_SHOWN] + ([f"and {more} more"] if more > 0 else [])))
    return 0


cdef OriginMatcher matcher_of(object cls, Block block, bint verify):
    cdef gbf_origins opened
    cdef uint64_t number
    cdef OriginMatcher made
    open_block(block, verify, gbf_name_kernel_pick(<uint32_t>cpu_features(None)), &opened)
    sets = tuple([groups_of(&opened, number) for number in range(opened.class_count)])
    made = bare(allocate_matcher, cls)
    made._table, made.block, made.sets, made.hosts = opened, block, sets, opened.head.hosts
    return made


cdef OriginMatcher origins_of_block(Block block, bint verify):
    return matcher_of(OriginMatcher, block, verify)


cdef class OriginSet:
    """OriginSet(patterns=(), /, *, key=None, kernel=None)\n--\n
    Patterns of web origins in one frozen set: whether one covers an origin, and which.

    Patterns: "https://a.example" the origin; "https://*.a.example" one label below it; "https://**.a.example" one or
    more; ":8443" that port, ":*" any port or none, otherwise none; "*" every origin; "re:..." a full RE2 regex over the
    whole origin (the slow path).

    `origin in made` is False for what is no origin: the text must be serialized as browsers do it (Fetch).

    Args:
        patterns: texts; equal ones count once.
        key: secret bytes for the hash, for builds that must come out the same twice; default: random in every build.
        kernel: cap on the instruction set ("scalar", "v2", "avx512"); default GOBANFAST_KERNEL, else the best.
    Raises:
        ValueError: patterns that cannot be used, all of them, each with its index and a hint.
    Threads: frozen once built; any number of threads may read.
    Cost: a lookup hashes the host once and reads one cache line for a hit. About 200 bytes a pattern, text included.
    Source: csrc/DESIGN.md, "Origins and hosts".
    """
    cdef gbf_origins _table
    cdef const gbf_name_kernel *_kernel
    cdef Block _block
    cdef tuple _patterns  # most specific first; their places are the groups
    cdef object _regexes  # gobanfast.names.Regexes, or None when there are none

    @classmethod
    def _make(cls, patterns=(), /, *, key=None, kernel=None):
        from gobanfast.origins import canonical, pack, specificity

        picked = cpu_features(kernel)
        if isinstance(patterns, (str, bytes)):
            raise TypeError(f"patterns is one text, {patterns!r}; write OriginSet([{patterns!r}])")
        known, regexes, problems = {}, {}, []
        for index, text in enumerate(patterns):
            try:
                text = canonical(text, False, regex=True)
            except ValueError as error:
                problems.append(f"item {index}: {error}")
                continue
            except TypeError as error:
                raise TypeError(f"item {index}: {error}") from None
            (regexes if text.startswith("re:") else known)[text] = None
        raise_problems(problems)
        ordered = sorted(known, key=specificity)
        block = build_block([(text,) for text in ordered], False, key, pack(ordered, list(regexes)))
        return set_of(cls, block, False, <uint32_t>picked)

    @classmethod
    def load(cls, path, /, *, bint verify=True, kernel=None):
        """The set saved at `path`, mapped read-only, its pages shared with every process that maps it.

        Every index is checked before the first lookup, whatever `verify` says; with it the content hash is checked too.
        Raises OSError, or FormatError (path, offset) for a file that is cut short, damaged, foreign or too new.
        The file must be replaced by rename.
        """
        return set_of(cls, Block.map(path), verify, <uint32_t>cpu_features(kernel))

    @classmethod
    def from_bytes(cls, data, /, *, bint verify=True, kernel=None):
        """The set in `data`, a buffer with what `save` writes; copied. Errors as for `load`."""
        return set_of(cls, Block.copy(data), verify, <uint32_t>cpu_features(kernel))

    def save(self, path, /):
        """Writes the set to `path` through a temporary file, fsync and rename. Raises OSError."""
        self._block.save(path)

    def verify(self):
        """Checks what `load` checks, and that a lookup finds every pattern; FormatError. O(n)."""
        cdef gbf_origins checked
        open_block(self._block, True, self._kernel, &checked)
        from gobanfast.origins import sample

        for number, pattern in enumerate(self._patterns):
            origin = sample(pattern)
            if origin is not None and number not in groups_of(&checked, self.find(origin)):
                raise FormatError(self._block.path, 0, f"pattern {pattern!r} is not found by a lookup")

    cdef uint32_t find(self, str origin) noexcept:
        cdef const char *start
        cdef size_t n
        if not gbf_ascii(origin, &start, &n) or n > TEXT_MOST:
            return GBF_ORIGIN_MALFORMED
        return gbf_origins_find(&self._table, <const uint8_t *>start, <uint32_t>n)

    cdef uint32_t ask_regexes(self, str origin) except? 0xFFFFFFFE:
        """Place of the first regex that matches an origin no pattern does; GBF_NONE. No regex is asked about `null`."""
        return GBF_NONE if self._regexes is None or origin == "null" else self._regexes.first(origin)

    def __contains__(self, str origin not None):
        cdef uint32_t found = self.find(origin)
        if found == GBF_ORIGIN_UNMATCHED and self._regexes is not None:
            return self.ask_regexes(origin) != GBF_NONE
        return found > GBF_ORIGIN_UNMATCHED

    def lookup(self, str origin not None, /):
        """The most specific pattern that covers `origin`, or None; None too when it is no origin.

        Exact beats the longest host beats `*.` beats `**.`; of equal ones a port beats `:*`; then regexes in order.
        """
        cdef uint32_t found = self.find(origin), number
        if found > GBF_ORIGIN_UNMATCHED:
            return self._patterns[self._table.groups[self._table.sets[found]]]
        number = GBF_NONE if found == GBF_ORIGIN_MALFORMED else self.ask_regexes(origin)
        return None if number == GBF_NONE else self._regexes.items[number][0]

    def __len__(self):
        return len(self._patterns) + (0 if self._regexes is None else len(self._regexes.items))

    def __iter__(self):
        """The patterns, most specific first, then regexes in order."""
        yield from self._patterns
        if self._regexes is not None:
            for text, _ in self._regexes.items:
                yield text

    @property
    def nbytes(self):
        """Bytes of the whole table; texts for iteration and compiled regexes lie outside it and are not counted."""
        return self._block.nbytes

    @property
    def content_hash(self):
        """32 hex digits; sets of the same patterns in the same order, with an equal key, have equal hashes."""
        return self._block.content_hash()

    @property
    def kernel(self):
        """Name of the instruction-set kernel this set uses."""
        return self._kernel.name.decode()

    def __reduce__(self):
        return type(self).from_bytes, (bytes(self._block),)

    def __repr__(self):
        return f"<OriginSet of {len(self)} patterns, {self.nbytes} bytes>"


cdef newfunc allocate_set = only_whole(OriginSet)


cdef OriginSet set_of(object cls, Block block, bint verify, uint32_t features):
    from gobanfast.names import Regexes
    from gobanfast.origins import unpack

    cdef gbf_origins opened
    cdef uint64_t count, number
    cdef OriginSet made
    cdef const gbf_name_kernel *kernel = gbf_name_kernel_pick(features)
    cdef const char *more
    open_block(block, verify, kernel, &opened)
    more = <const char *>gbf_block_section(block.data, GBF_TAG(b"M", b"O", b"R", b"E"), 1, &count)
    if more == NULL or opened.head.hosts:
        raise FormatError(block.path, 64, "holds no set of origins")
    try:
        patterns, regexes = unpack(more[:count])
        known = Regexes([(text, place) for place, text in enumerate(regexes)]) if regexes else None
    except ValueError as error:
        raise FormatError(block.path, <const uint8_t *>more - block.data, str(error)) from None
    for number in range(opened.group_count):
        if opened.groups[number] >= <uint64_t>len(patterns):
            raise FormatError(block.path, <const uint8_t *>&opened.groups[number] - block.data, "pattern is missing")
    for number in range(2, opened.class_count):
        if opened.sets[number] == opened.sets[number + 1]:
            raise FormatError(block.path, <const uint8_t *>&opened.sets[number] - block.data, "class has no pattern")
    made = bare(allocate_set, cls)
    made._table, made._kernel, made._block, made._patterns, made._regexes = opened, kernel, block, patterns, known
    return made
