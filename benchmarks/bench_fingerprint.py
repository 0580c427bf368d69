"""XXH3 beside the xxhash package, one Python call each."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import xxhash

from gobanfast import _fingerprint

SIZES = (64, 256, 1024, 4096, 16384)
SUBJECTS: dict[str, Callable[[bytes], int]] = {
    "64 gobanfast": _fingerprint.xxh3_64,
    "64 xxhash": xxhash.xxh3_64_intdigest,
    "128 gobanfast": _fingerprint.xxh3_128,
    "128 xxhash": xxhash.xxh3_128_intdigest,
}


@pytest.mark.parametrize("nbytes", SIZES)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_hash(benchmark: Any, subject: str, nbytes: int) -> None:
    """One hash of `nbytes` bytes; compare subjects of the same width inside a group."""
    data = random.Random(nbytes).randbytes(nbytes)
    width = subject.split(maxsplit=1)[0]
    benchmark.group = f"xxh3-{width} {nbytes} bytes"

    assert SUBJECTS[f"{width} xxhash"](data) == benchmark(SUBJECTS[subject], data)
