"""XXH3 beside the xxhash package, one Python call each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.cases import Case, Data, Kind, timed

SUITE = "fingerprint"
CAPTION = "XXH3 of one bytes object: ns median"
SIZES = (64, 256, 1024, 4096, 16384)
COUNT = 20_000

Hash = Callable[[bytes], int]


def hash_each(target: Hash, items: list[bytes]) -> None:
    for item in items:
        target(item)


def cases(data: Data) -> Iterator[Case]:
    import xxhash

    from gobanfast._core import xxh3

    subjects: list[tuple[str, Kind, Hash]] = [
        ("gobanfast XXH3-64", "ours", xxh3.xxh3_64),
        ("gobanfast XXH3-128", "ours", xxh3.xxh3_128),
        ("xxhash XXH3-64", "peer", xxhash.xxh3_64_intdigest),
        ("xxhash XXH3-128", "peer", xxhash.xxh3_128_intdigest),
    ]
    for nbytes in SIZES:
        items = [random.Random(nbytes).randbytes(nbytes)] * COUNT
        for name, kind, target in subjects:
            run = partial(hash_each, target)
            yield Case(SUITE, f"{nbytes} bytes", name, kind, COUNT, partial(list, items), run, "int")


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
