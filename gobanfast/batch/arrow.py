"""Arrow tables and columns of decisions and look-ups, handed to any engine by PyCapsule, without a copy or pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gobanfast._core.arrow_data import array_capsules, schema_capsule, stream_capsule
from gobanfast._core.enums import CAUSES, DECISIONS, NONE, SHARED

if TYPE_CHECKING:
    from gobanfast._core.compiled_rules import CompiledRules
    from gobanfast.asn import AsnTable

Column = tuple[str, str, int, tuple[object, ...], tuple[Any, ...], Any]
"""Name, format, length, buffers, columns inside, dictionary: see `_core.arrow_data`."""

_FORMATS = {"u1": "C", "u4": "I", "i4": "i", "i8": "l", "f4": "f", "f8": "g"}
_SHARED = ("none", *SHARED[1:])


def bitmap(valid: NDArray[np.bool_] | None) -> bytes | None:
    """The bits of valid items, or None where all are."""
    return None if valid is None or valid.all() else np.packbits(valid, bitorder="little").tobytes()


def texts(name: str, values: Sequence[str]) -> Column:
    """A column of strings without nulls."""
    data = [value.encode("utf-8", "surrogatepass") for value in values]
    ends = np.zeros(len(data) + 1, np.int32)
    np.cumsum([len(text) for text in data], out=ends[1:])
    return name, "u", len(data), (None, ends, b"".join(data)), (), None


def numbers(
    name: str, values: NDArray[Any], valid: NDArray[np.bool_] | None = None, dictionary: Column | None = None
) -> Column:
    """A column of numbers, or with a dictionary one of its values, by number."""
    kept = np.ascontiguousarray(values)
    return name, _FORMATS[kept.dtype.str[1:]], len(kept), (bitmap(valid), kept), (), dictionary


class ArrowColumn:
    """A column that implements `__arrow_c_array__`: `pyarrow.array(it)`, `polars.Series(it)` take it as it is."""

    def __init__(self, column: Column) -> None:
        self._column = column

    def __len__(self) -> int:
        return self._column[2]

    def __arrow_c_schema__(self) -> object:
        return schema_capsule(self._column)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Schema and data; a schema that is asked for is ignored, as the protocol allows."""
        return array_capsules(self._column)


class ArrowTable(ArrowColumn):
    """Columns of one length, as an Arrow struct, also as a stream of one batch: `pyarrow.table(it)`,
    `polars.DataFrame(it)`, and DuckDB by its name."""

    def __init__(self, columns: Iterable[Column], rows: int) -> None:
        super().__init__(("", "+s", rows, (None,), tuple(columns), None))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return stream_capsule(self._column, [self._column])


class ArrowStream:
    """Tables one after the other, for a single pass: `pyarrow.RecordBatchReader.from_stream(it)`.

    Args:
        tables: all of the columns of the first. It is asked for the next one when the reader is.
    Raises:
        ValueError: there is none.
    """

    def __init__(self, tables: Iterable[ArrowTable]) -> None:
        self._rest = iter(tables)
        first = next(self._rest, None)
        if first is None:
            raise ValueError("no table; a stream takes its columns from the first one, which may be empty")
        self._first = first

    def __arrow_c_schema__(self) -> object:
        return schema_capsule(self._first._column)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return stream_capsule(self._first._column, self._columns())

    def _columns(self) -> Iterator[Column]:
        yield self._first._column
        for table in self._rest:
            yield table._column


def rule_column(name: str, rules: NDArray[np.uint32], compiled: CompiledRules) -> Column:
    """Ids of rules by their numbers; null where no rule decided."""
    ids = texts("", [rule.id for rule in compiled.rules])
    return numbers(name, rules, rules != NONE, ids)


def asn_column(name: str, asns: NDArray[np.uint32]) -> Column:
    """AS numbers; null where it is not known."""
    return numbers(name, asns, asns != 0)


def as_name_column(name: str, asns: NDArray[np.uint32], table: AsnTable) -> Column:
    """Names of ASes, one for each distinct number; null where AS or name are not known."""
    distinct, codes = np.unique(asns, return_inverse=True)
    found = [table.name(asn) if asn else None for asn in distinct.tolist()]
    known = np.array([text is not None for text in found], bool)
    named = codes.reshape(-1).astype(np.int32)
    return numbers(name, named, known[named], texts("", [text or "" for text in found]))


def decision_columns(
    action: NDArray[np.uint8], rule: NDArray[np.uint32], asn: NDArray[np.uint32], cause: NDArray[np.uint8],
    score: NDArray[np.float32] | None, share: NDArray[np.uint8], share_rule: NDArray[np.uint32],
    compiled: CompiledRules,
) -> list[Column]:  # fmt: skip
    """The columns of `batch.columns.Columns`: texts by dictionary, null for what is not."""
    found = [
        numbers("action", action, None, texts("", DECISIONS)),
        rule_column("rule", rule, compiled),
        asn_column("asn", asn),
        numbers("cause", cause, None, texts("", CAUSES)),
    ]
    if score is not None:
        found.append(numbers("score", score, ~np.isnan(score)))
    if any(each.effect == "share" for each in compiled.rules):
        found += [
            numbers("share", share, share != 0, texts("", _SHARED)), rule_column("share_rule", share_rule, compiled),
        ]  # fmt: skip
    return found
