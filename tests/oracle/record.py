"""What record rules decide, read off the rules one by one: no bits, no thresholds in C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

RARE = 1 << 56


@dataclass(frozen=True)
class Came:
    """What a trusted client sent: a trace id, whether it said sampled, its `th` and `rv`."""

    trace_id: str
    sampled: bool | None
    threshold: int | None = None
    random: int | None = None


@dataclass(frozen=True)
class Kept:
    """The answer: the deciding rule, whether it is kept, the `th` that goes on."""

    rule: str | None
    sampled: bool
    threshold: int | None


def threshold(probability: float) -> int:
    """2^56 less p x 2^56, rounded to the nearest, ties to even."""
    return RARE - round(Fraction(probability) * RARE)


def decide(rules: Sequence[dict[str, Any]], matching: set[str], outcome: str, came: Came | None, drawn: str) -> Kept:
    """The first of `rules` whose other conditions hold (`matching`) and that does not ask for another outcome.

    Args:
        drawn: the trace id of a new trace.
    """
    for rule in rules:
        asked = rule.get("outcome")
        if rule["id"] in matching and (asked is None or outcome in asked):
            break
    else:
        return Kept(None, False, None if came is None else came.threshold)
    if rule["action"] == "never":
        return Kept(rule["id"], False, None)
    decided = came is not None and came.sampled is not None
    if rule["action"] == "always":
        return Kept(rule["id"], True, None if decided else 0)
    given = came.random if came is not None and came.random is not None else None
    trace_id = drawn if came is None else came.trace_id
    random = int(trace_id[-14:], 16) if given is None else given
    if decided and came is not None:
        if came.threshold is None:
            return Kept(rule["id"], bool(came.sampled), None)
        kept = random >= came.threshold
        return Kept(rule["id"], kept, came.threshold if kept else None)
    limit = threshold(rule["probability"])
    kept = random >= limit
    return Kept(rule["id"], kept, limit if kept else None)
