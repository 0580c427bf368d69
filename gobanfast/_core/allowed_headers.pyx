"""AllowedHeaders: whether every name in Access-Control-Request-Headers is one of a sorted set."""

import re
import struct

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from gobanfast._core.address cimport gbf_ascii
from gobanfast._core.made cimport bare, newfunc, only_whole
from gobanfast._core.native.http cimport gbf_acrh_line, gbf_acrh_walk

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


cdef class AllowedHeaders:
    """AllowedHeaders(names=(), /, *, any=False)\n--\n
    Names of request headers that a preflight may ask for.

    Args:
        names: header names in any case.
        any: every other name is allowed, too, but `authorization`, which `*` does not cover (Fetch).
    Raises:
        ValueError: a name that is no token.
    Threads: frozen once built; any number of threads may read.
    Cost: what is asked is read up to the first name that is not allowed.
    Source: csrc/DESIGN.md, "Request headers of a preflight".
    """

    @classmethod
    def _make(cls, names=(), /, *, bint any=False):
        cdef AllowedHeaders made
        if isinstance(names, (str, bytes)):
            raise TypeError(f"names is one text, {names!r}; write AllowedHeaders([{names!r}])")
        known = set()
        for name in names:
            if type(name) is not str:
                raise TypeError(f"expected str, got {type(name).__name__}")
            lower = name.lower()
            if not TOKEN.fullmatch(lower):
                raise ValueError(f"header name {name!r:.200} is no token; write letters, digits and hyphens")
            known.add(lower)
        listed = tuple(sorted(known))
        text = "".join(listed).encode("ascii")
        ends, total = [], 0
        for name in listed:
            total += len(name)
            ends.append(total)
        packed = struct.pack(f"={len(ends)}I", *ends)
        longest = max(map(len, listed), default=0)
        made = bare(allocate, cls)
        made._text, made._ends, made.names, made.any = text, packed, listed, any
        made._allowed.text = <const uint8_t *>PyBytes_AS_STRING(made._text)
        made._allowed.ends = <const uint32_t *>PyBytes_AS_STRING(made._ends)
        made._allowed.count = <uint32_t>len(listed)
        made._allowed.longest = longest
        made._allowed.any = any
        return made

    cdef bint allows(self, const uint8_t *text, uint32_t n) noexcept nogil:
        cdef gbf_acrh_walk walk
        memset(&walk, 0, sizeof(walk))
        return gbf_acrh_line(&self._allowed, &walk, text, n)

    def allows_lines(self, lines, /):
        """Whether every name in the lines (str or bytes) of the header is allowed; True without lines.

        Names must be in lower case, ascending, each once, as browsers send them; at most two blanks around a name, 16
        empty elements in all.
        """
        cdef gbf_acrh_walk walk
        cdef const char *start
        cdef size_t n
        memset(&walk, 0, sizeof(walk))
        lines = tuple(lines)  # the walk borrows them
        for line in lines:
            if type(line) is bytes:
                start, n = PyBytes_AS_STRING(line), <size_t>PyBytes_GET_SIZE(line)
            elif type(line) is not str:
                raise TypeError(f"expected str or bytes, got {type(line).__name__}")
            elif not gbf_ascii(<str>line, &start, &n):
                return False
            if not gbf_acrh_line(&self._allowed, &walk, <const uint8_t *>start, n):
                return False
        return True

    def __reduce__(self):
        return remade, (type(self), self.names, self.any)

    def __repr__(self):
        return f"<AllowedHeaders of {len(self.names)} names{', and any other' if self.any else ''}>"


cdef newfunc allocate = only_whole(AllowedHeaders)


def remade(cls, names, any, /):
    """The same set, for pickle."""
    return cls(names, any=any)
