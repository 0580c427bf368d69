"""Controllers of sampling rates: pure steps from a class's last minute to a probability.

A step sees the state that the step before left, the class's counts over all workers of the host, and the seconds since;
it answers with the next state. Numbers that are none (a percentile of nothing, a clock that stood still) leave the
probability as it is, and none of them reaches a threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gobanfast._core.sampling import NEVER, threshold_of

if TYPE_CHECKING:
    from gobanfast._core.sampling import ClassCounts

# The SLA formula
SLA_BASE, SLA_FLOOR, SLA_CAP = 0.01, 0.001, 1.0
SLA_WEIGHT = 0.3  # of a class that says nothing; for others 0.9 (payment), 0.7 (login) and 0.1 (health) are usual
SLA_NEUTRAL_MS = 500.0

# Jaeger's adaptive sampling
TARGET_TOLERANCE, TARGET_RISE, TARGET_INITIAL, TARGET_LEAST = 0.3, 0.5, 0.001, 1 / 60
FLOOR = 1e-5  # what a controller does not go below by itself


class Controller(Protocol):
    """A rate class's way from counts to a probability. Immutable: what changes is `p`."""

    @property
    def initial(self) -> float:
        """The probability before the first step."""

    def step(self, p: float, counts: ClassCounts, seconds: float) -> float:
        """The next probability, from 0 to 1, after `p`.

        Args:
            counts: the class's last minute, over the workers of the host.
            seconds: since the last step; what is not above 0 changes nothing.
        """


@dataclass(frozen=True, slots=True)
class Fixed:
    """The probability that the rules give."""

    probability: float

    def __post_init__(self) -> None:
        _check("probability", self.probability, 0, 1)

    @property
    def initial(self) -> float:
        """See `Controller`."""
        return self.probability

    def step(self, p: float, counts: ClassCounts, seconds: float) -> float:  # noqa: ARG002
        """See `Controller`."""
        return self.probability


@dataclass(frozen=True, slots=True)
class Sla:
    """The SLA formula: more for weight and errors, less for latency. From 0.001 to 0.0405 for a weight of 0.9."""

    weight: float = SLA_WEIGHT

    def __post_init__(self) -> None:
        _check("weight", self.weight, 0, 1)

    @property
    def initial(self) -> float:
        """That of a class at 500 ms without errors."""
        return sla_rate(self.weight, SLA_NEUTRAL_MS, 0.0)

    def step(self, p: float, counts: ClassCounts, seconds: float) -> float:
        """See `Controller`. A class without responses keeps its probability."""
        errors = _error_rate(counts)
        if errors is None or counts.p99_ms is None or math.isnan(counts.p99_ms) or not seconds > 0:
            return p
        return sla_rate(self.weight, counts.p99_ms, errors)


@dataclass(frozen=True, slots=True)
class Target:
    """So many sampled traces a second on this host, as Jaeger's adaptive sampling does it.

    Jaeger counts the traces that were sampled; what is counted here are all roots, and p times that is the same without
    the lag of a minute. A class without roots keeps its probability. `per_second` below 1/60 is 1/60.
    """

    per_second: float = 1.0

    def __post_init__(self) -> None:
        _check("per_second", self.per_second, 0, 1e9)

    @property
    def initial(self) -> float:
        """See `Controller`."""
        return TARGET_INITIAL

    def step(self, p: float, counts: ClassCounts, seconds: float) -> float:
        """See `Controller`. Down at once, up by at most half of `p`."""
        target = max(self.per_second, TARGET_LEAST)
        expected = p * counts.per_second
        if not (0 < expected < math.inf and seconds > 0) or abs(expected - target) / target < TARGET_TOLERANCE:
            return p
        wanted = p * (target / expected)
        return min(1.0, max(FLOOR, min(wanted, p * (1 + TARGET_RISE))))


@dataclass(frozen=True, slots=True)
class BoostOnError:
    """Doubles each second in which the error rate exceeds `over`, up to `cap`; halves back to `base` below."""

    base: float
    over: float = 0.05
    cap: float = 1.0

    def __post_init__(self) -> None:
        _check("probability", self.base, 0, 1)
        _check("over", self.over, 0, 1)
        _check("cap", self.cap, self.base, 1)

    @property
    def initial(self) -> float:
        """See `Controller`."""
        return self.base

    def step(self, p: float, counts: ClassCounts, seconds: float) -> float:
        """See `Controller`. A step that comes late counts as one second. Without responses there are no errors."""
        if not seconds > 0:
            return p
        factor: float = 2.0 ** min(seconds, 1.0)
        if (_error_rate(counts) or 0.0) > self.over:
            return min(self.cap, max(p, FLOOR) * factor)
        return max(self.base, p / factor) if p > FLOOR else self.base


def sla_rate(weight: float, p99_ms: float, error_rate: float) -> float:
    """The rate of the SLA formula.

    Args:
        weight: of the class, from 0 to 1.
        p99_ms: inf is a class whose responses take for ever.
        error_rate: from 0 to 1.
    """
    load = _clamp(1 - (p99_ms - 500) / 1000, 0.2, 1.5)
    boost = 1 + min(2, 100 * error_rate)
    return _clamp(SLA_BASE * weight * load * boost, SLA_FLOOR, SLA_CAP)


def _clamp(x: float, low: float, high: float) -> float:
    return max(low, min(high, x))


def _error_rate(counts: ClassCounts) -> float | None:
    """None without responses. No more errors than responses: the counts are read while they change."""
    return min(counts.errors, counts.responses) / counts.responses if counts.responses else None


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN is neither
        raise ValueError(f"{name} {value} is out of range; give {low:g} to {high:g}")


def threshold_for(p: float) -> int:
    """The threshold of a controller's probability; NEVER for what is no number."""
    return threshold_of(min(p, 1.0)) if 0 < p < math.inf else NEVER
