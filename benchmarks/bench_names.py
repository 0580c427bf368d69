"""Names asked of suffix tables of 1k, 100k and 1M real names, and of a mixed table; build, load and size.

Queries are fresh str objects in every pass: 20,000 distinct names that hit, 20,000 that miss, 500 hot ones in rotation.
Real names come from GOBANFAST_DATA; without it, made-up ones of the same shape stand in.
"""

from __future__ import annotations

import gzip
import os
import random
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from time import thread_time_ns
from typing import Any

from benchmarks.cases import Case, Data, Row, timed
from benchmarks.rivals import names as rivals
from benchmarks.tables import fresh

SUITE = "names"
CAPTION = "Names: ns median (times the no-op call)"
SIZES = (1_000, 100_000, 1_000_000)
RIVAL_SIZES = (1_000, 1_000_000)
QUERIES = 20_000
HOT = 500
SEED = 20261122


def _read(name: str) -> list[str]:
    folder = os.environ.get("GOBANFAST_DATA")
    if not folder:
        return []
    return gzip.decompress((Path(folder) / name).read_bytes()).decode().split()


def _made_up(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    parts = ["ad", "track", "cdn", "shop", "news", "metrics", "static", "api", "mail", "login"]
    ends = ["com", "net", "org", "top", "xyz", "info", "co.uk", "de"]
    made: dict[str, None] = {}
    while len(made) < count:
        labels = [
            generator.choice(parts) + f"{generator.randrange(10**6):x}" for _ in range(generator.choice((1, 1, 2)))
        ]
        made[".".join([*labels, generator.choice(ends)])] = None
    return list(made)


@cache
def blocked() -> list[str]:
    """About a million distinct names, shuffled."""
    names = list(dict.fromkeys(_read("block-names.txt.gz"))) or _made_up(SIZES[-1], SEED)
    random.Random(SEED).shuffle(names)
    return names


@cache
def queries(size: int) -> dict[str, list[bytes]]:
    """Names for a table of the first `size` names: hit, miss, hot."""
    generator = random.Random(SEED + size)
    listed = blocked()[:size]
    known = set(listed)
    benign = _read("benign-names.txt.gz") or _made_up(60_000, SEED + 1)
    misses = [name for name in benign if not _covered(known, name)]
    hit = [generator.choice(("", "www.", "a.b.")) + generator.choice(listed) for _ in range(QUERIES)]
    miss = generator.sample(misses, QUERIES)
    hot = generator.sample(hit, HOT) * (QUERIES // HOT)
    return {kind: [name.encode() for name in names] for kind, names in (("hit", hit), ("miss", miss), ("hot", hot))}


def _covered(known: set[str], name: str) -> bool:
    labels = name.split(".")
    return any(".".join(labels[first:]) in known for first in range(len(labels)))


def _asking(group: str, name: str, kind: Any, ask: rivals.Ask, raw: list[bytes]) -> Case:
    def run(texts: list[str]) -> None:
        for text in texts:
            ask(text)

    return Case(SUITE, group, name, kind, len(raw), prepare=lambda: fresh(raw), run=run)


def cases(data: Data) -> Iterator[Case]:
    from benchmarks.floor import Noop

    for size in SIZES:
        asked = queries(size)
        listed = blocked()[:size]
        for kind in asked:
            yield _asking(f"{size} {kind}", "no-op call", "yardstick", Noop().method, asked[kind])
        for name, ask in (
            rivals.load(listed) if size in RIVAL_SIZES else [("gobanfast NameTable.lookup", rivals.gobanfast(listed))]
        ):
            if isinstance(ask, ImportError):
                data.skipped[f"names {name}"] = str(ask)
                continue
            ours = name.startswith("gobanfast")
            for kind, raw in asked.items():
                slow = not ours and name in {"adblock", "hyperscan", "google_re2_set"}
                yield _asking(
                    f"{size} {kind}", name, "ours" if ours else "peer", ask, raw[: QUERIES // 10] if slow else raw
                )
    yield from _mixed_cases(data)


@cache
def mixed() -> list[tuple[str, int]]:
    """5,000 exact, 2,500 one-label and 2,500 suffix patterns, 500 globs and classes."""
    names = blocked()
    patterns = [
        *names[:5000],
        *("*." + name for name in names[5000:7500]),
        *("." + name for name in names[7500:10_000]),
    ]
    return [(pattern, number) for number, pattern in enumerate([*patterns, *globs()])]


@cache
def globs() -> list[str]:
    """500 globs and classes: the real in-label globs first, then classes made from listed names."""
    from gobanfast.names import parse_pattern

    found = []
    for text in _read("wildcards-bounty.txt.gz"):
        try:
            if parse_pattern(text).kind == "glob":
                found.append(text)
        except ValueError:
            continue
    shapes = ("*.{0}[0-9]+.{1}", "{0}-[a-z0-9]{{2,8}}.{1}", "*{0}*.{1}", "cdn[0-9]+.{0}.{1}")
    for index, name in enumerate(blocked()[10_000:11_000]):
        head, _, tail = name.partition(".")
        found.append(shapes[index % 4].format(head, tail))
    return found[:500]


def _mixed_cases(data: Data) -> Iterator[Case]:
    from benchmarks.floor import Noop
    from gobanfast._core.name_table import NameTable

    table = NameTable(mixed())
    generator = random.Random(SEED)
    literal = [("a" if text[0] in "*." else "") + text.removeprefix("*") for text, _ in mixed()[:10_000]]
    globbed = [
        text.replace("**", "a.b").replace("*", "x").replace("?", "y").replace("[0-9]+", "42") for text in globs()
    ]
    drawn = (generator.choice(literal if generator.random() < 0.8 else globbed) for _ in range(2 * QUERIES))
    hits = [name for name in drawn if name in table][:QUERIES]
    misses = [name for name in (queries(1000)["miss"]) if name.decode() not in table]
    peers = list(rivals.load_mixed(mixed(), set(globs())))
    for kind, raw in (("hit", [name.encode() for name in hits]), ("miss", misses)):
        yield _asking(f"mixed {kind}", "no-op call", "yardstick", Noop().method, raw)
        yield _asking(f"mixed {kind}", "gobanfast NameTable.lookup", "ours", table.lookup, raw)
        for name, ask in peers:
            if isinstance(ask, ImportError):
                data.skipped[f"names mixed {name}"] = str(ask)
            else:
                yield _asking(f"mixed {kind}", name, "peer", ask, raw[: QUERIES // 10])


def _timed_ms(work: Any, rounds: int = 5) -> list[float]:
    times = []
    for _ in range(rounds):
        started = thread_time_ns()
        kept = work()
        times.append((thread_time_ns() - started) / 1e6)
        del kept
    return times


def numbered(patterns: list[str]) -> Iterator[tuple[str, int]]:
    return zip(patterns, range(len(patterns)), strict=True)


def facts(data: Data) -> list[Row]:
    """Build and load times, bytes per pattern, by size."""
    from gobanfast._core.name_table import NameTable

    rows = []

    def row(group: str, name: str, unit: str, rounds: list[float]) -> None:
        rows.append(Row(SUITE, group, name, "ours", unit, rounds))

    for size in (1_000, 10_000, 100_000, 1_000_000):
        patterns = ["." + name for name in blocked()[:size]]
        table = NameTable(numbered(patterns))
        bare = NameTable(numbered(patterns), text=False)
        row(f"{size} suffixes", "build", "ms", _timed_ms(lambda: NameTable(numbered(patterns))))  # noqa: B023
        row(f"{size} suffixes", "bytes per pattern", "bytes", [table.nbytes / len(patterns)])
        row(f"{size} suffixes", "bytes per pattern, text=False", "bytes", [bare.nbytes / len(patterns)])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "names.gbf"
            table.save(path)
            row(f"{size} suffixes", "load, verified", "ms", _timed_ms(lambda: NameTable.load(path)))  # noqa: B023
    table = NameTable(mixed())
    row("mixed", "build", "ms", _timed_ms(lambda: NameTable(mixed())))
    row("mixed", "bytes per pattern", "bytes", [table.nbytes / len(table)])
    return rows


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
