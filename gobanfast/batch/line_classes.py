"""Decisions on blocks of log lines by classes of values: a distinct value is worked out once, a class decided once.

A row of classes (leaf of the address, class of each text) is decided by the engine on the first line that has it, as
the slow reader reads that line, so that nothing here knows what a condition means. Two values are of one class when no
rule can tell them apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gobanfast._core.columns import address_leaves
from gobanfast._core.enums import NONE
from gobanfast._core.log_lines import InternTable
from gobanfast.batch.line_blocks import SLOW
from gobanfast.batch.log_fields import REQUEST, Request, Roles, request_parts, value_bytes
from gobanfast.rules.compile.request import SHARE_HEADERS, headers_of

if TYPE_CHECKING:
    from gobanfast._core.compiled_rules import CompiledRules
    from gobanfast._core.request_table import RequestTable
    from gobanfast.batch.line_blocks import LineBlock
    from gobanfast.batch.logs import LogFile

MOST_VALUES = 1 << 16  # distinct values of one text that are remembered, and bytes of them:
MOST_BYTES = 1 << 24
PLAIN_BYTES = 2048  # of a value that is asked what it means
MOST_PAIRS = 1 << 18  # of client and answer, that are counted before they are handed over

Numbers = NDArray[np.uint32]
Answer = TypeVar("Answer", bound=Hashable)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_COMPOSED = (":names", ":origin", ":host", ":cross_origin_write")


class Values:
    """Distinct values of one text of lines, and a number for what each means."""

    def __init__(self) -> None:
        self.table = InternTable()
        self.meanings: Numbers = np.empty(1024, np.uint32)
        self.bytes = 0

    def numbers(
        self, block: LineBlock, text: int, rows: Numbers | None, meaning: Callable[[list[int]], list[int]]
    ) -> Numbers:
        """Number of the value in each of the rows; `meaning` is asked for those of rows with new ones."""
        at, nbytes = block.at[text], block.nbytes[text]
        if rows is not None:
            at, nbytes = at[rows], nbytes[rows]
        numbers = np.empty(len(at), np.uint32)
        before = len(self.table)
        fresh = np.frombuffer(self.table.texts(block.data, at, nbytes, numbers), np.uint32)
        if len(fresh):
            self.bytes += int(nbytes[fresh].sum())
            found = fresh if rows is None else rows[fresh]
            self._grow(len(self.table))
            self.meanings[before : len(self.table)] = meaning(found.tolist())
        return numbers

    def _grow(self, count: int) -> None:
        if count > len(self.meanings):
            self.meanings = np.concatenate([self.meanings, np.empty(max(count, len(self.meanings)), np.uint32)])

    @property
    def full(self) -> bool:
        return len(self.table) > MOST_VALUES or self.bytes > MOST_BYTES

    def clear(self) -> None:
        self.table.clear()
        self.bytes = 0


class LineClasses(Generic[Answer]):
    """Answers to the lines of one log, and counts of them by client.

    Args:
        decide: what the engine answers to an address and a request (None: the log is read for addresses alone).
        counted: takes counts: (address, number of the answer, lines), a client's in the order it first got them.
    """

    def __init__(
        self, log: LogFile, compiled: CompiledRules, mount: str, decide: Callable[[str, Request | None], Answer],
        counted: Callable[[str, int, int], None], *, requests: bool,
    ) -> None:  # fmt: skip
        self._log, self._compiled, self._requests = log, compiled, requests
        self.decide, self._counted = decide, counted
        self.answers: list[Answer] = []
        self._numbers: dict[Answer, int] = {}
        self._addresses = Values()
        self._texts: list[str] = []  # addresses by number
        self._columns: dict[tuple[int, int], Values] = {}
        self._classes: dict[Hashable, int] = {}
        self._rows = InternTable()
        self._of_row: Numbers = np.empty(1024, np.uint32)
        shares = any(rule.effect == "share" for rule in compiled.rules)
        self._meanings = Meanings(compiled.requests, mount, shares=shares)
        self._pairs = InternTable()
        self._met: list[Numbers] = []  # client and answer of each pair, in order
        self._lines = np.zeros(1024, np.int64)

    def number(self, answer: Answer) -> int:
        """The number of an answer."""
        found = self._numbers.setdefault(answer, len(self.answers))
        if found == len(self.answers):
            self.answers.append(answer)
        return found

    def block(self, block: LineBlock) -> Numbers:
        """Number of the answer to each line of a block; NONE: the slow reader has to say what the line holds."""
        if self._addresses.full or len(self._pairs) > MOST_PAIRS:
            self.flush()
        for values in self._columns.values():
            if values.full:
                values.clear()
        if len(self._rows) > MOST_VALUES or len(self._classes) > MOST_VALUES:
            self._rows.clear()
            self._classes.clear()
            for values in self._columns.values():
                values.clear()
        found = np.full(len(block), NONE, np.uint32)
        for kind in np.flatnonzero(np.bincount(block.kinds)).tolist() if len(block) else []:
            if kind != SLOW:
                rows = np.flatnonzero(block.kinds == kind).astype(np.uint32)
                self._of_kind(block, kind, rows if len(rows) < len(block) else None, found)
        return found

    def _of_kind(self, block: LineBlock, kind: int, rows: Numbers | None, out: Numbers) -> None:
        clients = self._addresses.numbers(block, 0, rows, lambda new: self._leaves(block, new))
        parts = [self._addresses.meanings[clients]]
        for text in range(1, len(block.roles[kind]) + 1):
            values = self._columns.setdefault((kind, text), Values())
            numbers = values.numbers(
                block,
                text,
                rows,
                lambda new, text=text: [self._class(block, row, kind, text) for row in new],  # type: ignore[misc]
            )
            parts.append(values.meanings[numbers])
        parts.append(np.full(len(clients), kind, np.uint32))
        record = np.column_stack(parts)
        numbers = np.empty(len(clients), np.uint32)
        before = len(self._rows)
        fresh = np.frombuffer(self._rows.fixed(record, 4 * len(parts), numbers), np.uint32)
        if len(self._rows) > len(self._of_row):
            self._of_row = np.concatenate([self._of_row, np.empty(max(len(fresh), len(self._of_row)), np.uint32)])
        self._of_row[before : len(self._rows)] = [
            self._answer(block, int(row if rows is None else rows[row]), int(parts[0][row]), int(clients[row]))
            for row in fresh.tolist()
        ]
        answers = self._of_row[numbers]
        if rows is None:
            out[:] = answers
        else:
            out[rows] = answers
        known = answers != NONE
        self._count(clients, answers) if known.all() else self._count(clients[known], answers[known])

    def _count(self, clients: Numbers, answers: Numbers) -> None:
        pairs = np.empty(len(clients), np.uint32)
        both = np.column_stack([clients, answers])
        self._met.append(both[np.frombuffer(self._pairs.fixed(both, 8, pairs), np.uint32)])
        if len(self._pairs) > len(self._lines):
            more = np.zeros(max(len(self._pairs) - len(self._lines), len(self._lines)), np.int64)
            self._lines = np.concatenate([self._lines, more])
        counts = np.bincount(pairs)
        self._lines[: len(counts)] += counts

    def flush(self) -> None:
        """None; what was counted so far is handed over."""
        met = np.concatenate(self._met).tolist() if self._met else []
        for (client, answer), lines in zip(met, self._lines[: len(met)].tolist(), strict=True):
            self._counted(self._texts[client], answer, lines)
        self._met.clear()
        self._pairs.clear()
        self._lines[:] = 0
        self._addresses.clear()
        self._texts.clear()

    def _leaves(self, block: LineBlock, rows: list[int]) -> list[int]:
        texts = self._log.addresses(block.lines(rows))
        self._texts += texts
        return [*np.frombuffer(address_leaves(self._compiled, texts, len(texts)), np.uint32).tolist()]

    def _answer(self, block: LineBlock, row: int, leaf: int, client: int) -> int:
        if leaf == NONE:
            return NONE
        request = self._log.request(block.line(row)) if self._requests else None
        return self.number(self.decide(self._texts[client], request))

    def _class(self, block: LineBlock, row: int, kind: int, text: int) -> int:
        start, length = int(block.at[text, row]), int(block.nbytes[text, row])
        found = self._meanings.of(bytes(block.data[start : start + length]), block.roles[kind][text - 1])
        return self._classes.setdefault((kind, text, found), len(self._classes))


class Meanings:
    """What rules can tell of a value by itself: equal meanings, and the rest of a request the same, are one decision.

    A value stands for itself where it is long or odd, or read together with others.
    """

    def __init__(self, table: RequestTable | None, mount: str, *, shares: bool) -> None:
        self._table, self._mount = table, mount
        composed = [name for name in (() if table is None else table.names) if name in _COMPOSED]
        together = {part for name in composed for part in headers_of(name)} | {*(SHARE_HEADERS if shares else ())}
        if shares or ":cross_origin_write" in composed:
            together |= {":method", ":path"} if shares else {":method"}
        self._together = frozenset(together)

    def of(self, raw: bytes, roles: Roles) -> Hashable:
        """The meaning of a text as it is written."""
        value = roles.decode(raw)
        found = []
        for name in roles.names:
            found.append((self._request if name == REQUEST else self._named)(name, value, roles.encoding))  # noqa: PERF401
        return tuple(found)

    def _request(self, _: str, value: str, encoding: str) -> Hashable:
        return tuple([(name, self._part(name.decode(), part)) for name, part in request_parts(value, encoding)])

    def _named(self, name: str, value: str, encoding: str) -> Hashable:
        return None if value in {"", "-"} else self._part(name, value_bytes(name, value, encoding))

    def exact(self, name: str, value: bytes) -> Hashable:
        """The meaning of the value of a header, of ":method" or ":path", as requests have it."""
        return self._part(name, value)

    def _part(self, name: str, value: bytes) -> Hashable:
        table = self._table
        if table is None or len(value) > PLAIN_BYTES or name in self._together or _CONTROL.search(value) is not None:
            return value
        text = value.decode("utf-8", "surrogateescape")
        said = text if name[0] == ":" else value
        found: list[Hashable] = []
        for which, asked in enumerate(table.names):
            if asked == name:
                longest = table.longest(which)
                long = longest is not None and len(value) > longest
                found.append((table.value_row(which, said, mount=self._mount), long))
        if name == ":path":
            found.append(table.plan.signal(":path", None, None, text or self._mount, None)[1])
        elif name == ":method":
            found.append(table.plan.signal(":method", None, text, None, None)[1])
        return tuple(found)
