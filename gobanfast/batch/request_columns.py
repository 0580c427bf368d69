"""Columns of what requests say: headers, method, path, hashes, origin and host to classes of rows.

A distinct value, or a distinct combination of values that go together, is worked out once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gobanfast._core import arrow_data
from gobanfast._core.headers import PartialHeaders
from gobanfast._core.name_text import normalize_name
from gobanfast.rules.compile.request import headers_of

if TYPE_CHECKING:
    from gobanfast._core.request_table import RequestTable

_ABSENT, _MALFORMED, _FIRST = 0, 1, 2  # classes of every column; those of values come next
_OWN = (":method", ":path")
_COMPOSED = (":names", ":origin", ":host", ":cross_origin_write")  # of more than one column, or by a grammar
_SHARING = ("origin", "host", "access-control-request-method", "access-control-request-headers")
_BROKEN = [(b"\0", b"")]  # headers that cannot be read
_DIGITS = re.compile(r"[0-9a-f]{32}", re.ASCII)
HASHES = {":fingerprint": "gh2", ":shape": "gs1"}

Numbers = NDArray[np.uint32]
Distinct = tuple[Numbers, list[Any]]  # of each row the number of its value, and the distinct values


class Requests:
    """What columns say of requests: what every row satisfies for want of a column (`unknown`), and the columns there
    are; `names` are the server names.

    Where one header cannot be read none can, as everywhere: what is heard of a request, and what is not, is malformed.
    """

    def __init__(
        self, table: RequestTable, given: Mapping[str, Any], names: Distinct | None, rows: int, mount: str,
        schemes: Distinct | None, *, shares: bool,
    ) -> None:  # fmt: skip
        self._table, self._rows, self._mount, self._schemes = table, rows, mount, schemes
        self.unknown = b"\xff" * (8 * table.words)
        silent = [self.unknown, self.unknown]  # headers, fingerprint and shape without a column: unknown, malformed
        self._found: list[tuple[Numbers, list[bytes]]] = []
        heard: list[tuple[Numbers, list[bytes], bool]] = []  # and whether rules about admission ask for it
        every = b"\xff" * (8 * table.words)
        paired = ":names" in table.names
        wanted = {*table.names, *(part for name in table.names for part in headers_of(name))}
        wanted |= {*_SHARING, *_OWN} if shares or ":cross_origin_write" in table.names else set()
        self.read = {name: distinct(name, column, rows) for name, column in given.items()
                     if column is not None and name in wanted}  # fmt: skip
        for which, name in enumerate(table.names):
            states = table.states(which)
            if name in _COMPOSED:
                continue
            if name in self.read:
                none: set[Any] = set()
                column = _classes(table, which, *self.read[name], mount, none)
                if name in _OWN:
                    self._add(column, admits=table.of_admit(which))
                else:
                    heard.append((*column, table.of_admit(which)))
                if none and table.of_admit(which):
                    codes, values = self.read[name]
                    marks = np.array([value in none for value in values], np.uint32) * np.uint32(_MALFORMED)
                    self._add((marks[codes], [every, every]), admits=True)
                long = _too_long(table, which, *self.read[name]) if table.of_admit(which) else None
                if long is not None:
                    self._add((long, [every, every]), admits=True)
            elif name in _OWN:
                self.unknown = both(self.unknown, states[0])
            else:
                silent = [both(silent[0], states[0]), both(silent[1], states[2])]
        broken = np.zeros(rows, bool)
        for numbers, *_ in heard:
            broken |= numbers == _MALFORMED
        for name in self.read.keys() - set(table.names) - {"host"}:
            if name not in (*_OWN, *HASHES) and name in table.plan.names:
                broken |= self._unreadable(name)
        hosts = _hosts(table, self.read["host"]) if "host" in self.read else None
        if hosts is not None:
            broken |= np.array([host is None for host in hosts[1]], bool)[hosts[0]]
        if paired:
            for column in _both_names(table, names, hosts, broken):
                self._add(column, admits=table.of_admit(table.names.index(":names")))
        self._broken = broken
        for which, name in enumerate(table.names):
            if name in (":origin", ":host") and name[1:] in self.read:
                column = self._page(which) if name == ":origin" else self._service(which)
                heard.append((*column, table.of_admit(which)))
            elif name in (":origin", ":host"):
                states = table.states(which)
                silent = [both(silent[0], states[0]), both(silent[1], states[2])]
            elif name == ":cross_origin_write":
                self._add(self._writes(which), admits=False)  # the marker of broken rows says what it would
        if broken.any():
            admits = any(table.of_admit(which) for which, name in enumerate(table.names) if name not in _OWN)
            heard.append((broken.astype(np.uint32), silent, admits))
        else:
            self.unknown = both(self.unknown, silent[0])
        for numbers, vectors, admits in heard:
            numbers[broken] = _MALFORMED
            self._add((numbers, vectors), admits=admits)

    def _add(self, column: tuple[Numbers, list[bytes]], *, admits: bool) -> None:
        """Adds a column. A row that is malformed there is unparsable if rules about admission ask for it (`admits`); if
        others alone do, the row is of a class of its own."""
        numbers, vectors = column
        if not admits:
            numbers, vectors = np.where(numbers == _MALFORMED, np.uint32(len(vectors)), numbers), [*vectors, vectors[1]]
        self._found.append((numbers, vectors))

    def columns(self) -> list[tuple[bytes, bytes]]:
        """Class of each row, and the vectors of the classes, of every column."""
        return [(numbers.tobytes(), b"".join(vectors)) for numbers, vectors in self._found]

    def pages(self) -> NDArray[np.bool_]:
        """The rows with an Origin."""
        return self._given("origin") & ~self._broken

    def preflights(self) -> NDArray[np.bool_]:
        """The rows that are preflights, where a resource is owned."""
        if ":method" not in self.read:
            return np.zeros(self._rows, bool)
        numbers, values = self.read[":method"]
        asks = np.array([value in ("OPTIONS", b"OPTIONS") for value in values], bool)[numbers]
        return asks & self.pages() & self._given("access-control-request-method")

    def request(self, row: int) -> dict[str, Any]:
        """What the columns say of one row whose headers can be read, as keyword arguments of `rules_decision`."""
        said: dict[str, Any] = {"mount": self._mount}
        pairs = []
        for name, (numbers, values) in self.read.items():
            value = values[numbers[row]]
            if name in _OWN and value is not None:
                said[name[1:]] = _said(name, value)
            elif name not in (*_OWN, *HASHES) and value is not None:
                pairs.append((name.encode(), _bytes(name, value)))
        if self._schemes is not None:
            said["scheme"] = as_text(self._schemes[1][self._schemes[0][row]])
        return {**said, "headers": PartialHeaders(pairs, self._header_names())}

    def _header_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.read if name[0] != ":")

    def _given(self, name: str) -> NDArray[np.bool_]:
        """The rows in which a header is."""
        if name not in self.read:
            return np.zeros(self._rows, bool)
        numbers, values = self.read[name]
        return np.array([value is not None for value in values], bool)[numbers]

    def _unreadable(self, name: str) -> NDArray[np.bool_]:
        """The rows in which a header has a value that no header can have."""
        numbers, values = self.read[name]
        signal = self._table.plan.signal
        bad = [value is not None and signal(name, [(name.encode(), _bytes(name, value))], None, None, None)[1]
               for value in values]  # fmt: skip
        return np.array(bad, bool)[numbers]

    def _page(self, which: int) -> tuple[Numbers, list[bytes]]:
        _, absent, malformed = self._table.states(which)
        return numbered(
            *self.read["origin"], [absent, malformed],
            lambda value: self._table.value_row(which, _said("origin", value)),
        )  # fmt: skip

    def _service(self, which: int) -> tuple[Numbers, list[bytes]]:
        """The column of hosts, each beside the port that its scheme implies."""
        _, absent, malformed = self._table.states(which)
        numbers, values = _together([self.read["host"]] + ([] if self._schemes is None else [self._schemes]))

        def row_of(value: tuple[Any, ...]) -> bytes | None:
            scheme = as_text(value[1]) if len(value) == 2 else None
            said = [(b"host", _bytes("host", value[0]))]
            text, bad = self._table.plan.signal(":host", said, None, None, None, scheme=scheme)
            return None if bad or text is None else self._table.value_row(which, text)

        values = [None if value[0] is None else value for value in values]
        return numbered(numbers, values, [absent, malformed], row_of)

    def _writes(self, which: int) -> tuple[Numbers, list[bytes]]:
        """The column of what may write from elsewhere, by method and three headers together."""
        unknown, _, malformed = self._table.states(which)
        names = [name for name in (":method", "sec-fetch-site", "origin", "host") if name in self.read]
        broken = self._broken.astype(np.uint32), [False, True]
        numbers, values = _together([broken, *(self.read[name] for name in names)])

        def row_of(value: tuple[Any, ...]) -> bytes | None:
            said = {name: text for name, text in zip(names, value[1:], strict=True) if text is not None}
            method = as_text(said.pop(":method", None))
            pairs = [(name.encode(), _bytes(name, text)) for name, text in said.items()]
            pairs = _BROKEN if value[0] else pairs
            headers = PartialHeaders(pairs, self._header_names()) if self._header_names() else None
            found, bad = self._table.plan.signal(":cross_origin_write", headers, method, None, None)
            if bad:
                return malformed
            return unknown if found is None else self._table.value_row(which, found)

        return numbered(numbers, values, [unknown, unknown], row_of)


def _together(columns: list[Distinct]) -> Distinct:
    """Several columns as one, whose values are tuples of theirs."""
    numbers, values = columns[0][0], [(value,) for value in columns[0][1]]
    for others, more in columns[1:]:
        pairs, inverse = np.unique(numbers.astype(np.int64) * len(more) + others, return_inverse=True)
        values = [(*values[pair // len(more)], more[pair % len(more)]) for pair in pairs.tolist()]
        numbers = inverse.reshape(-1).astype(np.uint32)
    return numbers, values


def _hosts(table: RequestTable, column: Distinct) -> Distinct:
    """A column of hosts as what follows a server name in a value of ":names"; None where it is malformed."""
    numbers, values = column
    found: list[bytes | None] = []
    for value in values:
        text = b"" if value is None else _said("host", value)
        pairs = [(b"host", text if isinstance(text, bytes) else text.encode())]
        host, malformed = table.plan.signal("host", pairs, None, None, None)
        found.append(None if malformed else b"\n" + (host or b""))
    return numbers, found


def _both_names(
    table: RequestTable, names: Distinct | None, hosts: Distinct | None, broken: NDArray[np.bool_]
) -> list[tuple[Numbers, list[bytes]]]:
    """The column of server name beside host; and one that tells where the name is malformed, which changes no row."""
    which = table.names.index(":names")
    begins, malformed = [b""], np.zeros(len(broken), bool)
    first = np.zeros(len(broken), np.int64)
    if names is not None:
        normal = [None if text is None else normalize_name(text) for text in names[1]]
        begins = [(name or "").encode() for name in normal]
        first = names[0].astype(np.int64)
        marks = [text is not None and name is None for name, text in zip(normal, names[1], strict=True)]
        malformed = np.array(marks, bool)[names[0]]
    ends = [b"", b"\n"] if hosts is None else [*(end or b"\n" for end in hosts[1]), b"\n"]
    second = np.zeros(len(broken), np.int64) if hosts is None else hosts[0].astype(np.int64)
    second[broken] = len(ends) - 1  # where one header cannot be read, the host cannot
    pairs, numbers = np.unique(first * len(ends) + second, return_inverse=True)
    rows = [table.value_row(which, begins[pair // len(ends)] + ends[pair % len(ends)]) for pair in pairs.tolist()]
    found: dict[bytes | None, int] = {}
    classes = np.array([found.setdefault(row, len(found)) for row in rows], np.uint32) + np.uint32(_FIRST)
    every = b"\xff" * (8 * table.words)
    column = np.take(classes, numbers.reshape(-1)), [every] * _FIRST + [row for row in found if row is not None]
    return [column, (malformed.astype(np.uint32), [every, every])] if malformed.any() else [column]


def both(one: bytes, other: bytes) -> bytes:
    value = int.from_bytes(one, "little") & int.from_bytes(other, "little")
    return value.to_bytes(len(one), "little")


def _classes(
    table: RequestTable, which: int, numbers: Numbers, values: list[Any], mount: str, none: set[Any]
) -> tuple[Numbers, list[bytes]]:
    """Class of each row, and the vectors of the classes. Every distinct value is worked out once. Values that are no
    path at all, so that the request has none, are added to `none`; others may have readings that are malformed."""
    name = table.names[which]
    unknown, absent, malformed = table.states(which)
    if name in _OWN or name in HASHES:
        absent = unknown  # nobody says that a request has no method

    def row_of(value: Any) -> bytes | None:
        said = _said(name, value)
        row = table.value_row(which, said, mount=mount)
        if row is None and name == ":path" and table.plan.signal(":path", None, None, str(said) or mount, None)[1]:
            none.add(value)
            return malformed
        return row

    return numbered(numbers, values, [absent, malformed], row_of)


def _too_long(table: RequestTable, which: int, numbers: Numbers, values: list[Any]) -> Numbers | None:
    """_MALFORMED where a value is longer than what its tests read, which changes no row; None when none is."""
    name, longest = table.names[which], table.longest(which)
    if longest is None:
        return None
    long = []
    for value in values:
        said = b"" if value is None else _said(name, value)
        long.append(len(said if isinstance(said, bytes) else said.encode("utf-8", "surrogateescape")) > longest)
    return np.take(np.array(long, np.uint32) * np.uint32(_MALFORMED), numbers) if any(long) else None


def numbered(
    numbers: Numbers, values: list[Any], vectors: list[bytes], row_of: Callable[[Any], bytes | None]
) -> tuple[Numbers, list[bytes]]:
    """Class of each row by the number of its value, and `vectors` (absent, malformed) with those of the values, each
    asked for once: None is malformed."""
    classes: dict[bytes | None, int] = {None: _MALFORMED}
    of_value = np.empty(len(values), np.uint32)
    for number, value in enumerate(values):
        if value is None:
            of_value[number] = _ABSENT
            continue
        row = row_of(value)
        found = classes.setdefault(row, len(vectors))
        if row is not None and found == len(vectors):
            vectors.append(row)
        of_value[number] = found
    return np.take(of_value, numbers), vectors


def distinct(name: str, column: Any, rows: int) -> Distinct:
    from gobanfast._core import columns as core_columns

    if name in HASHES and _is_packed(column):
        if isinstance(column, np.ndarray):
            column = np.ascontiguousarray(column)
        codes, prints = core_columns.fingerprint_column(column, rows)
        values = [None, None, *(prints[at : at + 16] for at in range(32, len(prints), 16))]
    else:
        found = None if isinstance(column, (np.ndarray, list, tuple)) else arrow_data.coded(column, rows)
        codes, values = core_columns.text_column(column, rows) if found is None else found
    return np.frombuffer(codes, np.uint32), values


def _is_packed(column: Any) -> bool:
    if isinstance(column, np.ndarray):
        return column.dtype == np.uint8 or (column.dtype.kind in "VS" and column.dtype.itemsize == 16)
    return isinstance(column, (bytes, bytearray, memoryview))


def _said(name: str, value: Any) -> bytes | str:
    """A value as a request has it: str of method and path, bytes of everything else."""
    value = checked_text(name, value)
    if name in HASHES:
        kind = HASHES[name]
        text = f"{kind}:{value.hex()}" if isinstance(value, bytes) and len(value) == 16 else as_text(value)
        if not text or not text.startswith(f"{kind}:") or not _DIGITS.fullmatch(text, 4):
            what = name[1:]
            raise ValueError(f"{value!r} is no {what}; 16 bytes, or '{kind}:' and 32 hex digits in lower case, are")
        return text.encode()
    if name in _OWN:
        return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
    return _bytes(name, value)


def _bytes(name: str, value: Any) -> bytes:
    """The value of a header."""
    value = checked_text(name, value)
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def checked_text(name: str, value: Any) -> str | bytes:
    if not isinstance(value, (str, bytes)):
        raise TypeError(f"{value!r} in column {name.strip(':')!r} is {type(value).__name__}, not str or bytes")
    return value


def as_text(value: Any) -> str | None:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
