"""Controllers of sampling rates: pure steps from a class's last minute to a probability, and their thread.

A step sees the state that the step before left, the class's counts over all workers of the host, and the seconds since;
it answers with the next state. Numbers that are none (a percentile of nothing, a clock that stood still) leave the
probability as it is, and none of them reaches a threshold.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gobanfast._core.sampling import NEVER, ClassCounts, RateClasses, export_room, probability_of, threshold_of
from gobanfast._core.shared import SharedSlots
from gobanfast._core.shared_file import shared_path
from gobanfast._errors import GobanError
from gobanfast._fork import watch_forks

log = logging.getLogger("gobanfast.telemetry")

CONTENT = b"gbf rates 1"
INTERVAL = 1.0

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


class Controllers:
    """The rate classes of a host's workers, one step a second.

    Each worker publishes thresholds and counts in a slot of its own. A class is controlled by the worker in the lowest
    slot, of those that live and have published it in the last ten seconds, over the counts of all; the others take its
    threshold. There is no election: when it dies, the next one is the lowest, and goes on from the same threshold.

    Args:
        classes: whose thresholds are set; the classes in it that have no controller are left alone.
        controllers: by name of a class.
        name: of the service, in the name of the file that its workers share; other services need another one.
        directory: of that file; None: /dev/shm.
    Source: csrc/DESIGN.md, "Sampling".
    """

    def __init__(
        self,
        classes: RateClasses,
        controllers: Mapping[str, Controller],
        *,
        name: str,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self.classes = classes
        self._path = shared_path(name, directory)
        self._slots: SharedSlots | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._last: float | None = None
        self._failing = False
        self._live: tuple[dict[str, Controller], dict[str, float]] = ({}, {})  # one reference: a step sees either
        self.replace(controllers)
        watch_forks(self)

    def replace(self, controllers: Mapping[str, Controller]) -> dict[str, int]:
        """Other controllers, as after a reload; the number of each class. Classes that stay keep their probability."""
        before = self._live[1]
        p = {name: before.get(name, controller.initial) for name, controller in controllers.items()}
        numbers = self.classes.place({name: threshold_for(value) for name, value in p.items()})
        self._live = dict(controllers), p
        return numbers

    def probability(self, name: str) -> float:
        """The probability of a class."""
        return self._live[1][name]

    def step(self, now_ns: int) -> None:
        """One step, at `now_ns` of CLOCK_MONOTONIC: windows, thresholds, and what others see of them."""
        seconds = INTERVAL if self._last is None else (now_ns - self._last) / 1e9
        self._last = now_ns
        self.classes.tick(now_ns)
        slots = self._shared()
        theirs = [] if slots is None else [(slot, payload) for slot, _, payload in slots.read() if slot != slots.slot]
        taken: dict[str, int] = {}
        for slot, payload in theirs:  # by slot: the first that has a class controls it
            if slots is not None and (slots.slot is None or slot < slots.slot):
                taken = {**self.classes.thresholds(now_ns, payload), **taken}
        controllers, p = self._live
        for name in taken.keys() & controllers.keys():
            p[name] = probability_of(taken[name])
            self.classes.set_threshold(name, taken[name])
        counts = self.classes.counts(now_ns, [payload for _, payload in theirs], without=taken)
        for name in counts.keys() & controllers.keys():
            p[name] = controllers[name].step(p[name], counts[name], seconds)
            self.classes.set_threshold(name, threshold_for(p[name]))
        if slots is not None:
            slots.publish(self.classes.export(now_ns))

    def start(self) -> None:
        """Starts the thread, once. Its first step comes at once: a new worker takes the thresholds of the host."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="gobanfast-rates", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread and leaves the slot; thresholds stay as they are."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join()
        if self._slots is not None:
            self._slots.close()
            self._slots = None

    def before_fork(self) -> None:
        """See `ForkAware`."""

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`. A child has a thread and a slot of its own."""
        if child:
            running, self._thread = self._thread is not None, None
            self._stop = threading.Event()
            self._slots = self._last = None
            if running:
                self.start()

    def _run(self) -> None:
        stop = self._stop
        while not stop.is_set():
            try:
                self.step(time.monotonic_ns())
            except Exception:
                log.exception("sampling rates: step failed; thresholds stay as they are")
            stop.wait(INTERVAL)

    def _shared(self) -> SharedSlots | None:
        """The shared file, opened anew when it was deleted or cut short; None: without it each worker is by itself."""
        try:
            if self._slots is None or not self._slots.current:
                self._slots = SharedSlots(self._path, content=CONTENT, room=export_room())
                self._slots.publish(b"")
            self._failing = False
        except (GobanError, OSError) as error:
            self._slots = None
            if not self._failing:
                log.warning("sampling rates are not shared by the workers of this host: %s", error)
            self._failing = True
        return self._slots
