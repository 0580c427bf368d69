"""Column-wise decisions: many requests by the rules alone, or replayed in order, and the columns of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gobanfast._core import arrow_data, enums
from gobanfast.batch.request_columns import HASHES, Distinct, Requests, as_text, both, checked_text, distinct, numbered

if TYPE_CHECKING:
    from pyroaring import BitMap

    from gobanfast._core.compiled_rules import CompiledRules
    from gobanfast._core.decision import Decision
    from gobanfast._core.engine_core import EngineCore
    from gobanfast.batch.arrow import ArrowTable

ACTIONS, CAUSES, SHARED, NO_RULE = enums.DECISIONS, enums.CAUSES, enums.SHARED, enums.NONE


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
        share: uint8, whether the page that asked may read the answer: indexes of `gobanfast.batch.columns.SHARED`; 0:
            no share rule is about it.
        share_rule: uint32, index of the share rule that decided in `compiled.rules`; 0xFFFFFFFF when none did.
    """

    action: NDArray[np.uint8]
    rule: NDArray[np.uint32]
    asn: NDArray[np.uint32]
    cause: NDArray[np.uint8]
    score: NDArray[np.float32] | None
    compiled: CompiledRules
    share: NDArray[np.uint8]
    share_rule: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.action)

    def rows(self, rule: str | None) -> BitMap:
        """Set of the rows that the rule with this id decided, of a share rule those that it did; None: whose admission
        no rule decided.

        Raises:
            KeyError: there is no such rule in force.
        """
        from pyroaring import BitMap

        number = NO_RULE
        if rule is not None:
            number = next((i for i, found in enumerate(self.compiled.rules) if found.id == rule), NO_RULE)
            if number == NO_RULE:
                raise KeyError(rule)
        shares = number != NO_RULE and self.compiled.rules[number].effect == "share"
        return BitMap(np.flatnonzero((self.share_rule if shares else self.rule) == number).astype(np.uint32))

    def actions(self) -> dict[str, int]:
        """Rows by action, as in {"allow": 9, "challenge": 0, "ban": 1}."""
        counts = np.bincount(self.action, minlength=len(ACTIONS))
        return dict(zip(ACTIONS, counts.tolist(), strict=True))

    def shares(self) -> dict[str, int]:
        """Rows by what is shared, as in {"granted": 3, "withheld": 1, "refused": 0}; the others are about no rule."""
        counts = np.bincount(self.share, minlength=len(SHARED))
        return dict(zip(SHARED[1:], counts[1:].tolist(), strict=True))

    def arrow(self) -> ArrowTable:
        """These columns as an Arrow table: action, rule, cause and share by dictionary, null where there is none.

        Zero copy: it borrows the arrays, which must not be written to.
        """
        from gobanfast.batch.arrow import ArrowTable, decision_columns

        columns = decision_columns(
            self.action, self.rule, self.asn, self.cause, self.score, self.share, self.share_rule, self.compiled
        )
        return ArrowTable(columns, len(self))

    def __arrow_c_schema__(self) -> object:
        return self.arrow().__arrow_c_schema__()

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """The Arrow PyCapsule interface: `pyarrow.record_batch(columns)`, `polars.DataFrame(columns)`."""
        return self.arrow().__arrow_c_array__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.arrow().__arrow_c_stream__()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {action}" for action, count in self.actions().items())
        return f"<Columns of {len(self)} rows: {counts}>"


def decide_columns(
    core: EngineCore, addresses: Any, *, sni: Any = None, ja4: Any = None, headers: Mapping[str, Any] | None = None,
    method: Any = None, path: Any = None, fingerprint: Any = None, shape: Any = None, mount: str = "",
    origin: Any = None, host: Any = None, scheme: Any = None,
) -> Columns:  # fmt: skip
    """`Engine.decide_many`, which see."""
    from gobanfast._core import columns as core_columns

    compiled = core.compiled
    texts = {"addresses": addresses, "sni": sni, "ja4": ja4, "method": method, "path": path, "origin": origin,
             "host": host, "scheme": scheme}  # fmt: skip
    for name, column in texts.items():
        if isinstance(column, str):
            raise TypeError(f"{name} is one text, {column[:80]!r}; columns have one for each row")
    if headers is not None and not isinstance(headers, Mapping):
        raise TypeError(f"headers is a {type(headers).__name__}, not a mapping of header names to columns")
    rows = count_rows(addresses)
    leaves = _leaves(compiled, addresses, rows)
    given: dict[str, Any] = {":method": method, ":path": path, ":fingerprint": fingerprint, ":shape": shape}
    given |= {name: column for name, column in (("origin", origin), ("host", host)) if column is not None}
    for name, column in (headers or {}).items():
        if name[:1] == ":" or name.lower() in given:
            raise ValueError(f"header {name!r} is there twice, or is none; method= and path= are columns of their own")
        given[name.lower()] = column
    for name, column in {"sni": sni, "ja4": ja4, "scheme": scheme, **given}.items():
        if name not in HASHES and hasattr(column, "__len__") and len(column) != rows:
            raise ValueError(f"{len(column)} items in column {name.strip(':')!r} for {rows} rows")
    shares = any(rule.effect == "share" for rule in compiled.rules)
    columns = []
    named = sni is not None and core_columns.asks_names(compiled)
    if named and isinstance(sni, np.ndarray) is False and (coded := arrow_data.coded(sni, rows)) is not None:
        sni = [None if text is None else text.decode("utf-8", "replace") for text in coded[1]]
        sni = np.array([*sni, None], object)[np.frombuffer(coded[0], np.uint32)].tolist()
    paired = compiled.requests is not None and ":names" in compiled.requests.names
    names: Distinct | None = None
    if (paired or shares) and sni is not None:  # it is read twice, and a stream can be read once
        numbers, values = distinct("sni", sni, rows)
        names = numbers, [as_text(text) for text in values]
    if names is not None and named:
        of_text, vectors = core_columns.name_column(compiled, names[1], len(names[1]))
        columns.append((np.take(np.frombuffer(of_text, np.uint32), names[0]).tobytes(), vectors))
    elif named:
        columns.append(core_columns.name_column(compiled, sni, rows))
    told = distinct("ja4", ja4, rows) if ja4 is not None and core_columns.asks_ja4(compiled) else None
    if told is not None:
        columns.append(_ja4_column(compiled, told))
    base = core_columns.absent_vector(compiled, names=named, ja4=told is not None)
    asked = None
    if compiled.requests is not None:
        schemes = distinct("scheme", scheme, rows) if scheme is not None else None
        asked = Requests(compiled.requests, given, names, rows, mount, schemes, shares=shares)
        base = both(base, asked.unknown)
        columns += asked.columns()
    if compiled.live is not None:  # nobody knows of labels and sessions
        base = both(base, compiled.live.unknown)
    answers = core_columns.decide_rows(compiled, leaves, base, columns)
    if asked is None or not shares:
        return _made(compiled, answers, None, rows)
    sharing = core_columns.share_rows(compiled, leaves, base, columns, asked.pages().astype(np.uint8).tobytes())
    found = _made(compiled, answers, sharing, rows)
    preflights = np.flatnonzero(asked.preflights()).tolist()
    return _with_preflights(found, preflights, asked, addresses, names, told) if preflights else found


def _leaves(compiled: CompiledRules, addresses: Any, rows: int) -> bytes:
    """Leaf of each address; of a dictionary each address is looked up once."""
    from gobanfast._core import columns as core_columns

    found = None if isinstance(addresses, (np.ndarray, list, bytes)) else arrow_data.coded(addresses, rows)
    if found is None:
        return core_columns.address_leaves(compiled, addresses, rows)
    texts = [b"" if text is None else text for text in found[1]]
    leaves = core_columns.address_leaves(compiled, [text.decode("latin-1") for text in texts], len(texts))
    return np.frombuffer(leaves, np.uint32)[np.frombuffer(found[0], np.uint32)].tobytes()


def _made(
    compiled: CompiledRules, answers: tuple[bytes, bytes, bytes, bytes], sharing: tuple[bytes, bytes] | None, rows: int
) -> Columns:
    action, rule, asn, cause = answers
    return Columns(
        np.frombuffer(action, np.uint8), np.frombuffer(rule, np.uint32), np.frombuffer(asn, np.uint32),
        np.frombuffer(cause, np.uint8), None, compiled, *_shares(sharing, rows),
    )  # fmt: skip


def _shares(sharing: tuple[bytes, bytes] | None, rows: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """The columns on sharing; where no rule is about it they take no memory."""
    if sharing is None:
        return np.broadcast_to(np.zeros((), np.uint8), rows), np.broadcast_to(np.full((), NO_RULE, np.uint32), rows)
    return np.frombuffer(sharing[0], np.uint8), np.frombuffer(sharing[1], np.uint32)


def _with_preflights(
    found: Columns, rows: list[int], asked: Requests, addresses: Any, names: Distinct | None, told: Distinct | None
) -> Columns:
    """The columns with `rows`, which may be preflights, decided one by one: a preflight is asked with the method that
    it announces, and few conditions count."""
    from gobanfast._core import columns as core_columns

    compiled = found.compiled
    action, rule, cause, share, share_rule = (
        np.array(column) for column in (found.action, found.rule, found.cause, found.share, found.share_rule)
    )
    indexes = {rule.id: index for index, rule in enumerate(compiled.rules)}
    texts = _address_texts(addresses)
    for row in rows:
        said = asked.request(row)
        sni, ja4 = (None if column is None else as_text(column[1][column[0][row]]) for column in (names, told))
        decision = core_columns.rules_decision(compiled, texts[row], sni=sni, ja4=ja4, **said)
        if decision.preflight:
            index = decision.rule_index
            action[row], cause[row] = ACTIONS.index(decision.action), CAUSES.index(decision.cause)
            rule[row] = NO_RULE if index is None else index
            share[row] = SHARED.index(decision.share or "")
            share_rule[row] = indexes.get(decision.share_rule or "", NO_RULE)
    return Columns(
        action.astype(np.uint8), rule.astype(np.uint32), found.asn, cause.astype(np.uint8), None, compiled,
        share.astype(np.uint8), share_rule.astype(np.uint32),
    )  # fmt: skip


def count_rows(addresses: Any) -> int:
    """How many addresses these are: bytes come 16 an address."""
    if isinstance(addresses, (bytes, bytearray)) or getattr(addresses, "itemsize", 4) == 1:
        return memoryview(addresses).nbytes // 16
    return len(addresses)


def _ja4_column(compiled: CompiledRules, column: Distinct) -> tuple[bytes, bytes]:
    """Class of each row by its JA4, and the vectors of the classes."""
    from gobanfast._core import columns as core_columns

    numbers, vectors = numbered(
        *column, [*core_columns.ja4_states(compiled)],
        lambda value: core_columns.ja4_vector(compiled, as_text(checked_text("ja4", value)) or ""),
    )  # fmt: skip
    return numbers.tobytes(), b"".join(vectors)


_REPLAYED = ("sni", "ja4", "method", "path", "host", "scheme", "headers")


def replay_columns(
    core: EngineCore, addresses: Any, *, times: Any, sni: Any = None, ja4: Any = None,
    headers: Iterable[Any] | None = None, method: Any = None, path: Any = None, mount: str = "", host: Any = None,
    scheme: Any = None,
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
    columns += [
        None if column is None else list(map(as_text, _listed(column)))
        for column in (sni, ja4, method, path, host, scheme)
    ]
    columns.append(None if headers is None else list(headers))
    for name, column in zip(("addresses", *_REPLAYED), columns, strict=True):
        if column is not None and len(column) != rows:
            raise ValueError(f"{len(column)} items in column {name!r} for {rows} rows")
    decisions = _decide_each(
        partial(core.decide, mount=mount), when.tolist(), [column or [None] * rows for column in columns]
    )
    action, rule, asn, cause, score, *sharing = core_columns.replay_rows(compiled, decisions, rows)
    return Columns(
        np.frombuffer(action, np.uint8), np.frombuffer(rule, np.uint32), np.frombuffer(asn, np.uint32),
        np.frombuffer(cause, np.uint8), np.frombuffer(score, np.float32), compiled,
        *_shares((sharing[0], sharing[1]), rows),
    )  # fmt: skip


def _decide_each(decide: Callable[..., Decision], times: list[float], columns: list[list[Any]]) -> Iterator[Decision]:
    for now, address, *said in zip(times, *columns, strict=True):
        yield decide(address, now=now, **dict(zip(_REPLAYED, said, strict=True)))


def _address_texts(addresses: Any) -> list[str | None]:
    kind = getattr(getattr(addresses, "dtype", None), "kind", None)
    if kind == "S":
        return [as_text(text) for text in addresses.tolist()]
    if kind == "V" or isinstance(addresses, (bytes, bytearray)) or getattr(addresses, "itemsize", 0) == 1:
        packed = bytes(addresses)
        return [_address_text(packed[at : at + 16]) for at in range(0, len(packed), 16)]
    return [_address_text(value) for value in _listed(addresses)]


def _address_text(value: Any) -> str | None:
    from gobanfast._core.address import format_address

    if isinstance(value, int):
        return ".".join(map(str, value.to_bytes(4, "big")))
    return format_address(value) if isinstance(value, bytes) else value


def _listed(column: Any) -> list[Any]:
    """The items of a column as Python objects."""
    for listing in ("tolist", "to_pylist", "to_list"):
        if hasattr(column, listing):
            return list(getattr(column, listing)())
    return list(column)
