"""Is this client banned? Tables of 0 to 1,000,000 bans, asked with addresses that are on them and that are not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from time import monotonic, thread_time_ns
from typing import Any

import numpy as np

from benchmarks.cases import Case, Data, Row, Subject, call_each, contains_each, str_case, timed
from benchmarks.tables import QUERIES, SEED

SUITE = "bans"
CAPTION = "Bans: ns median (times the no-op call)"
SIZES = (0, 1_000, 100_000, 1_000_000)
HOUR = 3600.0
FILLING = "1,000,000 bans made"


def cases(data: Data) -> Iterator[Case]:
    for size in SIZES:
        subjects = list(_subjects(addresses(size)))
        for kind in ("miss", "hit") if size else ("miss",):
            raw = [text.encode() for text in asked(size, kind)]
            for subject in subjects:
                yield str_case(SUITE, f"{size:,} bans, {kind}", subject, 4, raw)
    from benchmarks.floor import Noop

    raw = [text.encode() for text in asked(100_000, "miss")]
    group = "100,000 bans at 4 lengths of prefix, miss"
    yield str_case(SUITE, group, Subject("no-op call", "yardstick", "None", {4: Noop().method}), 4, raw)
    ladder = _table(addresses(100_000))
    for i in range(1000):
        for bits in (24, 20, 16):
            ladder.ban(
                f"{200 + i // 256}.{i % 256 >> (4 if bits == 16 else 0)}.{16 * (i % 16) * (bits > 16)}.0/{bits}",
                duration=HOUR,
            )
    yield str_case(SUITE, group, Subject("gobanfast lookup", "ours", "None", {4: ladder.lookup}), 4, raw)
    yield _once("gobanfast ban", lambda: _table(addresses(1_000_000)))
    yield _once("dict", lambda: _dict(addresses(1_000_000)))


def facts(data: Data) -> list[Row]:
    """Bytes a ban, and how long one look-up and one write may take while a million bans end."""
    keys = addresses(1_000_000)
    bans = _table(keys)
    rows = [Row(SUITE, "bytes a ban", "gobanfast", "ours", "bytes", [bans.nbytes / len(bans)])]
    plain = _dict(keys)
    nbytes = sys.getsizeof(plain) + sum(sys.getsizeof(key) + sys.getsizeof(value) for key, value in plain.items())
    rows.append(Row(SUITE, "bytes a ban", "dict, the expiry only", "peer", "bytes", [nbytes / len(plain)]))
    started = thread_time_ns()
    ended = bans.purge(now=monotonic() + 2 * HOUR)
    rows.append(Row(SUITE, "purge", "gobanfast", "ours", "ns", [(thread_time_ns() - started) / ended]))
    return rows


def addresses(count: int) -> list[str]:
    """Distinct IPv4 addresses below 100.0.0.0, in random order."""
    drawn = np.random.default_rng(SEED).permutation(
        np.unique(np.random.default_rng(SEED).integers(0, 100 << 24, 2 * count))
    )
    return [_text(int(number)) for number in drawn[:count]]


def asked(count: int, kind: str) -> list[str]:
    random = np.random.default_rng(SEED + 1)
    if kind == "hit":
        banned = addresses(count)
        return [banned[i] for i in random.integers(0, count, QUERIES).tolist()]
    return [_text(number) for number in random.integers(100 << 24, 200 << 24, QUERIES).tolist()]


def _text(number: int) -> str:
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _subjects(keys: list[str]) -> Iterator[Subject]:
    from benchmarks.floor import Noop

    bans = _table(keys)
    yield Subject("no-op call", "yardstick", "None", {4: Noop().method})
    yield Subject("gobanfast in", "ours", "bool", {4: bans}, contains_each)
    yield Subject("gobanfast lookup", "ours", "a Ban", {4: bans.lookup}, call_each)
    yield Subject("dict of str, expiry compared", "peer", "bool", {4: _dict(keys)}, _dict_each)
    try:
        yield Subject("cachetools.TTLCache in", "peer", "bool", {4: _ttl_cache(keys)}, contains_each)
    except ImportError:
        return


def _table(keys: list[str]) -> Any:
    from gobanfast import BanTable

    bans = BanTable()
    for key in keys:
        bans.ban(key, duration=HOUR)
    return bans


def _dict(keys: list[str]) -> dict[str, float]:
    return {key: monotonic() + HOUR for key in keys}


def _dict_each(bans: dict[str, float], texts: list[str]) -> None:
    get, clock = bans.get, monotonic
    for text in texts:
        expires = get(text)
        expires is not None and expires > clock()


def _ttl_cache(keys: list[str]) -> Any:
    from cachetools import TTLCache

    cache: Any = TTLCache(maxsize=max(1, len(keys)), ttl=HOUR)
    for key in keys:
        cache[key] = True
    return cache


def _once(name: str, run: Callable[[], object]) -> Case:
    return Case(
        SUITE, FILLING, name, "ours" if "gobanfast" in name else "peer", 1_000_000, lambda: None, lambda _: run()
    )


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
