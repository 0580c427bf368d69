"""Consistent probability sampling and latency percentiles, from whole numbers and fractions alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

ONE = 2**56


def threshold(probability: float) -> int:
    """2^56 - p x 2^56, the product rounded half to even."""
    return ONE - round(Fraction(probability) * ONE)


def text(value: int, precision: int) -> str:
    """Hex with `precision` digits behind the leading f's, rounded half up; no trailing zeros."""
    digits = f"{value:014x}"
    kept = len(digits) - len(digits.lstrip("f")) + precision
    if kept < 14:
        unit = 16 ** (14 - kept)
        digits = f"{math.floor(Fraction(value, unit) + Fraction(1, 2)) * unit:014x}"
    return digits.rstrip("0") or "0"


def rate(random: int, own: int, parent: tuple[bool, int | None] | None) -> tuple[bool, int | None]:
    """(sampled, outgoing threshold) of a rate rule; `parent` is its flag and its threshold."""
    if parent is None:
        return (True, own) if random >= own else (False, None)
    flag, theirs = parent
    if theirs is None:
        return flag, None
    return (True, theirs) if random >= theirs else (False, None)


def percentile(latencies: Sequence[int], percent: int) -> int:
    """Nearest rank: the smallest of them that `percent` in a hundred are at or below."""
    rank = math.ceil(Fraction(percent * len(latencies), 100))
    return sorted(latencies)[rank - 1]
