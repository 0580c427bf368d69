"""What a benchmark is made of: subjects that answer, cases that are timed, rows that are recorded."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import median
from time import thread_time_ns
from typing import Any, Literal

from benchmarks.tables import Queries, Table, block_list, fresh, load_table

Kind = Literal["ours", "peer", "yardstick"]
SLOW_SHARE = 10
FEW = 20  # requests that a server may have in its hands at once


def call_each(target: Callable[[str], object], texts: list[str]) -> None:
    for text in texts:
        target(text)


def contains_each(target: Any, texts: list[str]) -> None:
    for text in texts:
        text in target  # noqa: B015


@dataclass(frozen=True)
class Subject:
    """One way of asking one library for the AS of an address."""

    name: str
    kind: Kind
    returns: str
    targets: dict[int, Any]  # family -> what `each` asks
    each: Callable[[Any, list[str]], None] = call_each  # the timed loop
    asn: Callable[[str], int | None] | None = None  # the AS it answers; None: it answers no AS
    slow: bool = False  # asked a tenth of the queries


@dataclass(frozen=True)
class Case:
    """One timed cell: `run(prepare())` does `count` operations; only `run` is timed.

    Where `prepare` returns an iterator, its items are run one by one, each made just before: requests as a server has
    them, in caches that have seen them made. All made up front are read from cold memory, and one that is asked again
    and again from a cache that no server has.
    """

    suite: str
    group: str
    name: str
    kind: Kind
    count: int
    prepare: Callable[[], Any]
    run: Callable[[Any], object]
    returns: str = ""

    def __str__(self) -> str:
        return f"{self.group}:{self.name}"


@dataclass
class Row:
    """One recorded figure: the median of `rounds`, in `unit` per operation."""

    suite: str
    group: str
    name: str
    kind: Kind
    unit: str
    rounds: list[float]
    returns: str = ""
    median: float = field(init=False)
    best: float = field(init=False)

    def __post_init__(self) -> None:
        self.median = median(self.rounds)
        self.best = min(self.rounds)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Data:
    """Everything the suites share in one run, made when first asked for."""

    skipped: dict[str, str] = field(default_factory=dict)

    @cached_property
    def table(self) -> Table:
        return load_table()

    @cached_property
    def queries(self) -> Queries:
        return Queries(self.table)

    @cached_property
    def subjects(self) -> list[Subject]:
        from benchmarks import rivals

        subjects, self.skipped = rivals.load(self.table)
        return subjects

    @cached_property
    def prefix_table(self) -> Any:
        """Our table of the whole routing table, the AS as value."""
        from gobanfast._core.prefix_table import PrefixTable

        return PrefixTable.from_packed(self.table.addresses, self.table.lengths, self.table.values)

    @cached_property
    def block_list(self) -> list[str]:
        return block_list(self.table)


def few(make: Callable[[int], Any], count: int) -> Iterator[list[Any]]:
    """`make(0)`, `make(1)` ... in lists of FEW, each made when it is asked for."""
    for first in range(0, count, FEW):
        yield [make(number) for number in range(first, min(first + FEW, count))]


def spent(case: Case, prepared: Any) -> int:
    """ns of this thread's CPU time that the runs of a case take."""
    total = 0
    for batch in prepared if isinstance(prepared, Iterator) else (prepared,):
        started = thread_time_ns()
        case.run(batch)
        total += thread_time_ns() - started
    return total


def str_case(suite: str, group: str, subject: Subject, family: int, raw: list[bytes]) -> Case:
    """A case that asks `subject` about every text of `raw`, each a str object made just before."""
    asked = raw[: len(raw) // SLOW_SHARE] if subject.slow else raw
    target, each = subject.targets[family], subject.each
    return Case(
        suite, group, subject.name, subject.kind, len(asked),
        prepare=lambda: fresh(asked), run=lambda texts: each(target, texts), returns=subject.returns,
    )  # fmt: skip


def interleave(cases: Iterable[Case], rounds: int) -> list[Row]:
    """Rows of all cases, timed A, B, C, A, B, C, ... so that drift of the machine falls on all alike.

    The clock is CPU time of this thread: wall time on a quiet machine, and on a busy one the time of others is left
    out (what they do to the caches is not).
    """
    listed = list(cases)
    timings: list[list[float]] = [[] for _ in listed]
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for _ in range(rounds):
            for case, timing in zip(listed, timings, strict=True):
                timing.append(spent(case, case.prepare()) / case.count)
    finally:
        gc.enable()
        gc.unfreeze()
    return [
        Row(case.suite, case.group, case.name, case.kind, "ns", timing, case.returns)
        for case, timing in zip(listed, timings, strict=True)
    ]


def timed(benchmark: Any, case: Case, rounds: int = 5) -> None:
    """Hands a case to pytest-benchmark; its figures are per pass, `extra_info` says how many operations that is."""
    benchmark.group = f"{case.suite} {case.group}"
    prepared = case.prepare()
    if isinstance(prepared, Iterator):
        benchmark.extra_info["operations"] = FEW
        benchmark.pedantic(case.run, setup=lambda: ((next(prepared),), {}), rounds=case.count // FEW)
        return
    benchmark.extra_info["operations"] = case.count
    benchmark.pedantic(case.run, setup=lambda: ((case.prepare(),), {}), rounds=rounds)
