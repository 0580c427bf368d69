"""Decisions on small batches of Arrow strings by classes of values that are remembered from batch to batch.

Engines call a function with a few thousand rows at a time, in which nearly every value has been seen before. As in
`batch.line_classes`, a distinct value is worked out once, and a row of classes is decided once, by `asking.decided`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gobanfast._core.columns import address_leaves
from gobanfast._core.log_lines import InternTable
from gobanfast.batch.engines import asking
from gobanfast.batch.line_classes import MOST_BYTES, MOST_VALUES, Meanings

if TYPE_CHECKING:
    from gobanfast._core.engine_core import EngineCore

Numbers = NDArray[np.uint32]
_NAMES = {"method": ":method", "path": ":path"}


class _Values:
    """Distinct values of a column, and the class of each; class 0 is null."""

    def __init__(self) -> None:
        self.table, self.classes, self.bytes = InternTable(), np.empty(1024, np.uint32), 0


class RowClasses:
    """Answers to rows: numbers into `action`, `rule` and `asn`, for one thread.

    Args:
        names: the columns there are, of `asking.SIGNALS`.
    """

    def __init__(self, core: EngineCore, names: tuple[str, ...], mount: str) -> None:
        self._core, self.names, self._mount = core, names, mount
        self._compiled = core.compiled
        shares = any(rule.effect == "share" for rule in self._compiled.rules)
        self._meanings = Meanings(self._compiled.requests, mount, shares=shares)
        self._clear()

    def _clear(self) -> None:
        self._values = [_Values() for _ in self.names]
        self._known: dict[Hashable, int] = {None: 0}
        self._rows = InternTable()
        self.action, self.rule, self.asn = np.empty(0, np.uint8), np.empty(0, np.uint32), np.empty(0, np.uint32)

    def numbers(self, columns: tuple[Any, ...]) -> Numbers:
        """The number of each row's answer."""
        if self._core.compiled is not self._compiled:
            self.__init__(self._core, self.names, self._mount)  # type: ignore[misc]  # the rules were replaced
        full = any(len(each.table) > MOST_VALUES or each.bytes > MOST_BYTES for each in self._values)
        if full or len(self._rows) > MOST_VALUES:
            self._clear()
        arrays = [_whole(column) for column in columns]
        parts = [self._classes(which, array) for which, array in enumerate(arrays)]
        numbers = np.empty(len(parts[0]), np.uint32)
        fresh = np.frombuffer(self._rows.fixed(np.column_stack(parts), 4 * len(parts), numbers), np.uint32)
        if len(fresh):
            taken: Mapping[str, Any] = {name: array.take(fresh) for name, array in zip(self.names, arrays, strict=True)}
            made = asking.decided(self._core, taken, mount=self._mount)
            self.action = np.concatenate([self.action, made.action])
            self.rule = np.concatenate([self.rule, made.rule])
            self.asn = np.concatenate([self.asn, made.asn])
        return numbers

    def _classes(self, which: int, array: Any) -> Numbers:
        import pyarrow as pa

        rows = len(array)
        if pa.types.is_null(array.type):
            return np.zeros(rows, np.uint32)
        if not pa.types.is_string(array.type):
            array = array.cast(pa.string())
        valid, ends, text = array.buffers()
        at = np.frombuffer(ends, np.uint32, rows + 1, 4 * array.offset)
        values = self._values[which]
        numbers = np.empty(rows, np.uint32)
        before, nbytes = len(values.table), at[1:] - at[:-1]
        fresh = np.frombuffer(values.table.texts(text or b"", at[:-1], nbytes, numbers), np.uint32)
        if len(fresh):
            values.bytes += int(nbytes[fresh].sum())
            if len(values.table) > len(values.classes):
                more = max(len(fresh), len(values.classes))
                values.classes = np.concatenate([values.classes, np.empty(more, np.uint32)])
            new = [values.table.text(number) for number in range(before, len(values.table))]
            values.classes[before : len(values.table)] = self._classes_of(self.names[which], new)
        found = values.classes[numbers]
        if valid is not None and array.null_count:
            found[array.is_null().to_numpy(zero_copy_only=False)] = 0
        return found

    def _classes_of(self, name: str, values: list[bytes]) -> list[int]:
        known = self._known
        if name == "ip":
            texts = [value.decode("latin-1") for value in values]
            leaves = np.frombuffer(address_leaves(self._compiled, texts, len(texts)), np.uint32)
            return [known.setdefault((name, leaf), len(known)) for leaf in leaves.tolist()]
        if name == "sni":
            return [known.setdefault((name, value), len(known)) for value in values]
        asked = _NAMES.get(name, name.replace("_", "-"))
        return [known.setdefault((name, self._meanings.exact(asked, value)), len(known)) for value in values]


def _whole(column: Any) -> Any:
    """One array of a chunked one."""
    if not hasattr(column, "num_chunks"):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
