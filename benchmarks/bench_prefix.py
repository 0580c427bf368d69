"""Single lookups: one str in, the AS of the longest prefix out, over the whole routing table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.cases import Case, Data, Subject, str_case, timed
from benchmarks.tables import fresh

SUITE = "prefix"
CAPTION = "Single lookups over the whole table: ns median (times the no-op call / times `dict.get`)"
GROUPS = (
    "v4_mix", "v4_zipf", "v4_uniform", "v4_prefix", "v4_hot", "v6_mix", "v6_zipf", "v6_uniform", "v6_prefix", "v6_hot",
)  # fmt: skip
CHECKED = 2_000


def cases(data: Data) -> Iterator[Case]:
    for group in GROUPS:
        family = int(group[1])
        raw = data.queries.raw(group)
        yield str_case(SUITE, group, dict_get(data, group), family, raw)
        for subject in data.subjects:
            yield str_case(SUITE, group, subject, family, raw)


def dict_get(data: Data, group: str) -> Subject:
    """The yardstick: an exact hit in a dict of 100,000 distinct addresses of the same kind.

    All keys share one value, so the yardstick never waits for a cold answer object.
    """
    table = dict.fromkeys(fresh(data.queries.keys(group)), 1)
    return Subject("dict.get", "yardstick", "the stored object", {4: table.get, 6: table.get})


def disagreements(data: Data) -> list[str]:
    """Subjects that answer other than the slow lookup, one line each: speed of a wrong answer is no result."""
    lines = []
    for group in ("v4_mix", "v6_mix"):
        texts = fresh(data.queries.raw(group)[:CHECKED])
        expected = [data.table.lookup(text) for text in texts]
        for subject in data.subjects:
            if subject.asn is not None:
                wrong = [t for t, asn in zip(texts, expected, strict=True) if subject.asn(t) != asn]
                if wrong:
                    lines.append(f"{group}: {subject.name} differs on {len(wrong)} of {CHECKED}, first {wrong[0]}")
    return lines


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
