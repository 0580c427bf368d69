"""Arithmetic of consistent probability sampling: thresholds, their text in the tracestate, decisions of record rules.

For tables and tools; what a request pays is `csrc/state/gbf_sampling.h`. After OpenTelemetry's "TraceState: Probability
Sampling".
"""

from __future__ import annotations

from dataclasses import dataclass

from gobanfast._core.sampling import (
    NEVER,
    adjusted_count,
    follow,
    parse_ot,
    parse_random,
    parse_threshold,
    probability_of,
    random_of,
    round_threshold,
    threshold_of,
    threshold_text,
)

__all__ = [
    "NEVER",
    "Parent",
    "Sampling",
    "adjusted_count",
    "decide",
    "parse_ot",
    "parse_random",
    "parse_threshold",
    "probability_of",
    "random_of",
    "round_threshold",
    "threshold_of",
    "threshold_text",
]


@dataclass(frozen=True, slots=True)
class Parent:
    """The parent of a trace context: its flag, and its `th` where there is one."""

    sampled: bool
    threshold: int | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a record rule decides, and what goes on: the flag and `th` (None: erased, or never known)."""

    sampled: bool
    threshold: int | None
    root: bool

    @property
    def text(self) -> str | None:
        """The value of `th`."""
        return None if self.threshold is None else threshold_text(self.threshold)


def decide(action: str, threshold: int, *, random: int, parent: Parent | None = None) -> Sampling:
    """A record rule's decision on a trace.

    Args:
        action: "rate", which follows the parent; "always" or "never", which beat it.
        threshold: of the rate class, for traces that begin here.
        random: R, from `rv` (`parse_ot`) or the trace id (`random_of`).
    """
    if parent is None:
        return Sampling(*follow(action, threshold, random=random))
    return Sampling(
        *follow(
            action, threshold, random=random, parent=True, sampled=parent.sampled, parent_threshold=parent.threshold
        )
    )
