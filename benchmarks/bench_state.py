"""Trackers, score, labels and session hashes: one request of one client, in a C loop as the engine does it.

The rivals count requests in a sliding window, from Python, so ours is asked from Python too.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cases import Case, Data, Kind, Row, timed
from benchmarks.floor import noop
from benchmarks.score_attack import GUARDED, KEY, Traffic

SUITE = "state"
CAPTION = "One request noted or scored: ns median (times the no-op call)"
COUNT, CALLS = 100_000, 10_000
PER_MS = 10  # requests a millisecond


def trackers(*, everything: bool) -> Any:
    from gobanfast._core.trackers import Trackers
    from gobanfast.rules.settings import Limit, Surge, TrackerSettings

    settings = TrackerSettings(10_000, Limit(60.0, 50, "ban", 600.0))
    if everything:
        rate, surge = Limit(10.0, 200, "challenge", None), Surge(300, 600.0, 100, "challenge", None)
        settings = replace(settings, request_rate=rate, surge=surge)
    return Trackers(settings, key=KEY)


class Notes:
    """Requests of `clients` in turn; each pass begins where the clock of the last one ended."""

    def __init__(self, clients: np.ndarray[Any, Any], fingerprints: np.ndarray[Any, Any], *, everything: bool) -> None:
        self.clients, self.fingerprints = clients.astype(np.uint32), fingerprints.astype(np.uint64)
        self.trackers, self.now = trackers(everything=everything), 1_000_000

    def prepare(self) -> int:
        self.now += COUNT // PER_MS
        return self.now

    def run(self, now: int) -> int:
        from benchmarks.state_loop import note_each

        return note_each(self.trackers, self.clients, self.fingerprints, now, PER_MS)


def noted(group: str, name: str, notes: Notes) -> Case:
    notes.run(notes.prepare())
    return Case(SUITE, group, name, "ours", COUNT, notes.prepare, notes.run, "bounds")


def scored() -> Iterator[Case]:
    from benchmarks.state_loop import rate_each
    from gobanfast._core.scorer import Scorer

    traffic, scorer = Traffic(1), Scorer(GUARDED, key=KEY)
    asked = [traffic.benign() for _ in range(COUNT)]
    names, fingerprints = (np.array([row[i] for row in asked], np.uint64) for i in (0, 1))
    asns = np.array([row.asn for row in asked], np.uint32)
    for name, learn in (("gobanfast rate", True), ("gobanfast peek", False)):
        run = partial(rate_each, scorer, names, fingerprints, asns)
        yield Case(SUITE, "score", name, "ours", COUNT, partial(bool, learn), run, "score, threshold")


def labelled() -> Iterator[Case]:
    """Whether a session carries a word, among so many labels, and what its hash costs."""
    from benchmarks.state_loop import label_each, session_each
    from gobanfast import BanTable

    generator = np.random.default_rng(2)
    for count in (20_000, 100_000):
        table = BanTable(clock=lambda: 0.0)
        drawn = np.unique(generator.integers(1, 2**63, count, dtype=np.uint64))
        for upper in drawn.tolist():
            table.labels.add(f"session:00000001:{upper:016x}{0:016x}", "revoked", duration=None)
        asked_of = {
            "hit": drawn[generator.integers(0, len(drawn), COUNT)],
            "miss": generator.integers(2**63, 2**64 - 1, COUNT, dtype=np.uint64),
        }
        for kind, asked in asked_of.items():
            run = partial(label_each, table, "revoked", asked)
            yield Case(SUITE, "label", f"{count:,} labels, {kind}", "ours", COUNT, partial(float, 0), run, "words")
    values = generator.integers(48, 58, 32 * COUNT).astype(np.uint8)
    run_hash = partial(session_each, bytes(range(16)), values)
    yield Case(SUITE, "label", "session hash, 32 bytes", "ours", COUNT, partial(int, 32), run_hash, "128 bits")


def called(clients: list[str]) -> Iterator[tuple[str, Kind, Callable[[str], object]]]:
    ours = trackers(everything=True)
    yield "gobanfast Trackers.note", "ours", lambda client: ours.note(client, 1, now=1000.0)
    seen: dict[str, deque[float]] = defaultdict(deque)

    def deques(client: str) -> bool:
        recent = seen[client]
        recent.append(1000.0)
        while recent[0] < 990.0:
            recent.popleft()
        return len(recent) > 200

    yield "dict of deques", "peer", deques

    from limits import RateLimitItemPerSecond, storage, strategies

    window, limit = strategies.MovingWindowRateLimiter(storage.MemoryStorage()), RateLimitItemPerSecond(200, 10)
    yield "limits moving window", "peer", lambda client: window.hit(limit, client)


def call_each(target: Callable[[str], object], items: list[str]) -> None:
    for item in items:
        target(item)


def cases(data: Data) -> Iterator[Case]:
    generator = np.random.default_rng(1)
    texts = [f"198.18.{i >> 8}.{i & 255}" for i in range(2000)] * (CALLS // 2000)
    for group in ("tracker", "score", "label", "request rate from Python"):
        yield Case(
            SUITE, group, "no-op call", "yardstick", CALLS, partial(list, texts), partial(call_each, noop), "None"
        )
    few, many = generator.integers(0, 2000, COUNT), generator.integers(0, 10_000, COUNT)
    one, kinds = np.full(COUNT, 7), np.arange(COUNT) % 50 + 1
    usual = generator.integers(1, 4, COUNT)
    yield noted("tracker", "2,000 clients", Notes(few, usual, everything=False))
    yield noted("tracker", "2,000 clients, all trackers", Notes(few, usual, everything=True))
    yield noted("tracker", "10,000 clients, all trackers", Notes(many, usual, everything=True))
    yield noted("tracker", "one client, 50 fingerprints in turn", Notes(one, kinds, everything=True))
    flood = generator.integers(0, 2**32, COUNT)
    yield noted("tracker", "flood, each request a new client", Notes(flood, flood | 1, everything=True))
    yield from scored()
    yield from labelled()
    random.Random(1).shuffle(texts)
    try:
        for name, kind, target in called(texts):
            run = partial(call_each, target)
            yield Case(SUITE, "request rate from Python", name, kind, CALLS, partial(list, texts), run, "bool")
    except ImportError as error:
        data.skipped["state limits"] = str(error)


def facts(data: Data) -> list[Row]:
    from gobanfast._core.scorer import Scorer

    sizes = {
        "10,000 clients, distinct fingerprints": trackers(everything=False).nbytes,
        "10,000 clients, all trackers": trackers(everything=True).nbytes,
        "score, one window": Scorer(GUARDED).nbytes,
        "score, a window for each host": Scorer(replace(GUARDED, scope="host")).nbytes,
    }
    return [Row(SUITE, "bytes", name, "ours", "bytes", [float(nbytes)]) for name, nbytes in sizes.items()]


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
