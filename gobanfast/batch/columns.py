"""Column-wise decisions: many requests by the rules alone, or replayed in order, and the columns of results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gobanfast._core import enums
from gobanfast._core.name_text import normalize_name

if TYPE_CHECKING:
    from pyroaring import BitMap

    from gobanfast._core.compiled_rules import CompiledRules
    from gobanfast._core.decision import Decision
    from gobanfast._core.engine_core import EngineCore
    from gobanfast._core.request_table import RequestTable

ACTIONS, CAUSES, NO_RULE = enums.DECISIONS, enums.CAUSES, enums.NONE

_ABSENT, _MALFORMED, _FIRST = 0, 1, 2  # classes of every column; those of values come next
_OWN = (":method", ":path")
_DIGITS = re.compile(r"[0-9a-f]{32}", re.ASCII)
_HASHES = {":fingerprint": "gh2", ":shape": "gs1"}

Numbers = NDArray[np.uint32]
Distinct = tuple[Numbers, list[Any]]  # of each row the number of its value, and the distinct values


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Columns:
    """One answer a row.

    Attributes:
        action: uint8, 0 allow, 1 challenge, 2 limit (no rule says it), 3 ban: indexes of
            `gobanfast.batch.columns.ACTIONS`.
        rule: uint32, index of the deciding rule in `compiled.rules`; 0xFFFFFFFF when none decided.
        asn: uint32, origin AS; 0 when it is not known.
        cause: uint8, what decided: indexes of `gobanfast.batch.columns.CAUSES`.
        score: float32, NaN where a row was not scored; None: the rules alone decided.
        compiled: the rules that decided.
    """

    action: NDArray[np.uint8]
    rule: NDArray[np.uint32]
    asn: NDArray[np.uint32]
    cause: NDArray[np.uint8]
    score: NDArray[np.float32] | None
    compiled: CompiledRules

    def __len__(self) -> int:
        return len(self.action)

    def rows(self, rule: str | None) -> BitMap:
        """Set of the rows that the rule with this id decided; None: that no rule decided.

        Raises:
            KeyError: there is no such rule in force.
        """
        from pyroaring import BitMap

        number = NO_RULE
        if rule is not None:
            number = next((i for i, found in enumerate(self.compiled.rules) if found.id == rule), NO_RULE)
            if number == NO_RULE:
                raise KeyError(rule)
        return BitMap(np.flatnonzero(self.rule == number).astype(np.uint32))

    def actions(self) -> dict[str, int]:
        """Rows by action, as in {"allow": 9, "challenge": 0, "ban": 1}."""
        counts = np.bincount(self.action, minlength=len(ACTIONS))
        return dict(zip(ACTIONS, counts.tolist(), strict=True))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {action}" for action, count in self.actions().items())
        return f"<Columns of {len(self)} rows: {counts}>"


def decide_columns(
    core: EngineCore, addresses: Any, *, sni: Any = None, ja4: Any = None, headers: Mapping[str, Any] | None = None,
    method: Any = None, path: Any = None, fingerprint: Any = None, shape: Any = None, mount: str = "",
) -> Columns:  # fmt: skip
    """`Engine.decide_many`, which see."""
    from gobanfast._core import columns as core_columns

    compiled = core.compiled
    for name, column in {"addresses": addresses, "sni": sni, "ja4": ja4, "method": method, "path": path}.items():
        if isinstance(column, str):
            raise TypeError(f"{name} is one text, {column[:80]!r}; columns have one for each row")
    if headers is not None and not isinstance(headers, Mapping):
        raise TypeError(f"headers is a {type(headers).__name__}, not a mapping of header names to columns")
    rows = count_rows(addresses)
    leaves = core_columns.address_leaves(compiled, addresses, rows)
    given: dict[str, Any] = {":method": method, ":path": path, ":fingerprint": fingerprint, ":shape": shape}
    for name, column in (headers or {}).items():
        if name[:1] == ":" or name.lower() in given:
            raise ValueError(f"header {name!r} is there twice, or is none; method= and path= are columns of their own")
        given[name.lower()] = column
    for name, column in {"sni": sni, "ja4": ja4, **given}.items():
        if name not in _HASHES and hasattr(column, "__len__") and len(column) != rows:
            raise ValueError(f"{len(column)} items in column {name.strip(':')!r} for {rows} rows")
    columns = []
    named = sni is not None and core_columns.asks_names(compiled)
    paired = compiled.requests is not None and ":names" in compiled.requests.names
    names: Distinct | None = None
    if paired and sni is not None:  # it is read twice, and a stream can be read once
        numbers, texts = _distinct("sni", sni, rows)
        names = numbers, [_text(text) for text in texts]
    if names is not None and named:
        of_text, vectors = core_columns.name_column(compiled, names[1], len(names[1]))
        columns.append((np.take(np.frombuffer(of_text, np.uint32), names[0]).tobytes(), vectors))
    elif named:
        columns.append(core_columns.name_column(compiled, sni, rows))
    uses_ja4 = ja4 is not None and core_columns.asks_ja4(compiled)
    if uses_ja4:
        columns.append(_ja4_column(compiled, ja4, rows))
    base = core_columns.absent_vector(compiled, names=named, ja4=uses_ja4)
    if compiled.requests is not None:
        unknown, more = _request_columns(compiled.requests, given, names, rows, mount)
        base = _both(base, unknown)
        columns += more
    action, rule, asn, cause = core_columns.decide_rows(compiled, leaves, base, columns)
    return Columns(
        np.frombuffer(action, np.uint8), np.frombuffer(rule, np.uint32), np.frombuffer(asn, np.uint32),
        np.frombuffer(cause, np.uint8), None, compiled,
    )  # fmt: skip


def count_rows(addresses: Any) -> int:
    """How many addresses these are: bytes come 16 an address."""
    if isinstance(addresses, (bytes, bytearray)) or getattr(addresses, "itemsize", 4) == 1:
        return memoryview(addresses).nbytes // 16
    return len(addresses)


def _both(one: bytes, other: bytes) -> bytes:
    both = int.from_bytes(one, "little") & int.from_bytes(other, "little")
    return both.to_bytes(len(one), "little")


def _request_columns(
    table: RequestTable, given: Mapping[str, Any], names: Distinct | None, rows: int, mount: str
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """What every row satisfies for want of a column, and the columns there are; `names` are the server names.

    Where one header cannot be read none can, as everywhere: what is heard of a request, and what is not, is malformed.
    """
    unknown = b"\xff" * (8 * table.words)
    silent = [unknown, unknown]  # headers, fingerprint and shape without a column: unknown, malformed
    own: list[tuple[Numbers, list[bytes]]] = []
    heard: list[tuple[Numbers, list[bytes]]] = []
    lengths: list[tuple[Numbers, list[bytes]]] = []  # where a value is longer than what rules read of it
    paired = ":names" in table.names
    read = {name: _distinct(name, column, rows) for name, column in given.items()
            if column is not None and (name in table.names or (paired and name == "host"))}  # fmt: skip
    for which, name in enumerate(table.names):
        states = table.states(which)
        if name == ":names":
            continue
        if name in read:
            (own if name in _OWN else heard).append(_classes(table, which, *read[name], mount))
            long = _too_long(table, which, *read[name])
            if long is not None:
                lengths.append((long, [b"\xff" * (8 * table.words)] * 2))
        elif name in _OWN:
            unknown = _both(unknown, states[0])
        else:
            silent = [_both(silent[0], states[0]), _both(silent[1], states[2])]
    broken = np.zeros(rows, bool)
    for numbers, _ in heard:
        broken |= numbers == _MALFORMED
    hosts = _hosts(table, read["host"]) if paired and "host" in read else None
    if hosts is not None:
        broken |= np.array([host is None for host in hosts[1]], bool)[hosts[0]]
    if paired:
        own += _both_names(table, names, hosts, broken)
    if broken.any():
        for numbers, _ in heard:
            numbers[broken] = _MALFORMED
        heard.append((broken.astype(np.uint32), silent))
    else:
        unknown = _both(unknown, silent[0])
    return unknown, [(numbers.tobytes(), b"".join(vectors)) for numbers, vectors in own + heard + lengths]


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


def _ja4_column(compiled: CompiledRules, column: Any, rows: int) -> tuple[bytes, bytes]:
    """Class of each row by its JA4, and the vectors of the classes."""
    from gobanfast._core import columns as core_columns

    codes, values = core_columns.text_column(column, rows)
    numbers, vectors = _numbered(
        np.frombuffer(codes, np.uint32), values, [*core_columns.ja4_states(compiled)],
        lambda value: core_columns.ja4_vector(compiled, _text(_checked_text("ja4", value)) or ""),
    )  # fmt: skip
    return numbers.tobytes(), b"".join(vectors)


def _classes(
    table: RequestTable, which: int, numbers: Numbers, values: list[Any], mount: str
) -> tuple[Numbers, list[bytes]]:
    """Class of each row, and the vectors of the classes. Every distinct value is worked out once."""
    name = table.names[which]
    unknown, absent, malformed = table.states(which)
    if name in _OWN:
        absent = malformed = unknown  # nobody says that a request has no method
    elif name in _HASHES:
        absent = unknown
    return _numbered(
        numbers, values, [absent, malformed], lambda value: table.value_row(which, _said(name, value), mount=mount)
    )  # fmt: skip


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


def _numbered(
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


def _distinct(name: str, column: Any, rows: int) -> Distinct:
    from gobanfast._core import columns as core_columns

    if name in _HASHES and _is_packed(column):
        if isinstance(column, np.ndarray):
            column = np.ascontiguousarray(column)
        codes, prints = core_columns.fingerprint_column(column, rows)
        values = [None, None, *(prints[at : at + 16] for at in range(32, len(prints), 16))]
    else:
        codes, values = core_columns.text_column(column, rows)
    return np.frombuffer(codes, np.uint32), values


def _is_packed(column: Any) -> bool:
    if isinstance(column, np.ndarray):
        return column.dtype == np.uint8 or (column.dtype.kind in "VS" and column.dtype.itemsize == 16)
    return isinstance(column, (bytes, bytearray, memoryview))


def _said(name: str, value: Any) -> bytes | str:
    """A value as a request has it: str of method and path, bytes of everything else."""
    value = _checked_text(name, value)
    if name in _HASHES:
        kind = _HASHES[name]
        text = f"{kind}:{value.hex()}" if isinstance(value, bytes) and len(value) == 16 else _text(value)
        if not text or not text.startswith(f"{kind}:") or not _DIGITS.fullmatch(text, 4):
            what = name[1:]
            raise ValueError(f"{value!r} is no {what}; 16 bytes, or '{kind}:' and 32 hex digits in lower case, are")
        return text.encode()
    if name in _OWN:
        return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def _checked_text(name: str, value: Any) -> str | bytes:
    if not isinstance(value, (str, bytes)):
        raise TypeError(f"{value!r} in column {name.strip(':')!r} is {type(value).__name__}, not str or bytes")
    return value


def replay_columns(
    core: EngineCore, addresses: Any, *, times: Any, sni: Any = None, ja4: Any = None,
    headers: Iterable[Any] | None = None, method: Any = None, path: Any = None, mount: str = "",
) -> Columns:  # fmt: skip
    """`Engine.replay`, which see."""
    from gobanfast._core import columns as core_columns

    compiled = core.compiled
    rows = count_rows(addresses)
    when = np.asarray(times, np.float64)
    if when.shape != (rows,):
        raise ValueError(f"times of shape {when.shape} for {rows} rows")
    wrong = ~np.isfinite(when)
    wrong[1:] |= when[1:] < when[:-1]
    if wrong.any():
        raise ValueError(f"times must not go back: row {wrong.argmax()} is at {when[wrong.argmax()]}")
    columns: list[list[Any] | None] = [_address_texts(addresses)]
    columns += [None if column is None else list(map(_text, _listed(column))) for column in (sni, ja4, method, path)]
    columns.append(None if headers is None else list(headers))
    for name, column in zip(("addresses", "sni", "ja4", "method", "path", "headers"), columns, strict=True):
        if column is not None and len(column) != rows:
            raise ValueError(f"{len(column)} items in column {name!r} for {rows} rows")
    decisions = _decide_each(
        partial(core.decide, mount=mount), when.tolist(), [column or [None] * rows for column in columns]
    )
    action, rule, asn, cause, score = core_columns.replay_rows(compiled, decisions, rows)
    return Columns(
        np.frombuffer(action, np.uint8), np.frombuffer(rule, np.uint32), np.frombuffer(asn, np.uint32),
        np.frombuffer(cause, np.uint8), np.frombuffer(score, np.float32), compiled,
    )  # fmt: skip


def _decide_each(decide: Callable[..., Decision], times: list[float], columns: list[list[Any]]) -> Iterator[Decision]:
    for now, address, sni, ja4, method, path, headers in zip(times, *columns, strict=True):
        yield decide(address, sni=sni, ja4=ja4, headers=headers, method=method, path=path, now=now)


def _address_texts(addresses: Any) -> list[str | None]:
    kind = getattr(getattr(addresses, "dtype", None), "kind", None)
    if kind == "S":
        return [_text(text) for text in addresses.tolist()]
    if kind == "V" or isinstance(addresses, (bytes, bytearray)) or getattr(addresses, "itemsize", 0) == 1:
        packed = bytes(addresses)
        return [_address_text(packed[at : at + 16]) for at in range(0, len(packed), 16)]
    return [_address_text(value) for value in _listed(addresses)]


def _address_text(value: Any) -> str | None:
    from gobanfast._core.address import format_address

    if isinstance(value, int):
        return ".".join(map(str, value.to_bytes(4, "big")))
    return format_address(value) if isinstance(value, bytes) else value


def _text(value: Any) -> str | None:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _listed(column: Any) -> list[Any]:
    """The items of a column as Python objects."""
    for listing in ("tolist", "to_pylist", "to_list"):
        if hasattr(column, listing):
            return list(getattr(column, listing)())
    return list(column)
