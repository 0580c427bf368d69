"""Thread that steps the controllers of sampling rates once a second, over all workers of a host."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gobanfast._core.sampling import RateClasses, export_room, probability_of
from gobanfast._core.shared import SharedSlots
from gobanfast._core.shared_file import shared_path
from gobanfast._digest import blake2b
from gobanfast._errors import GobanError
from gobanfast._fork import watch_forks
from gobanfast.rules.compile.record import controllers_of
from gobanfast.rules.controllers import Controller, Fixed, threshold_for

if TYPE_CHECKING:
    from gobanfast.engine import Engine
    from gobanfast.rules import Ruleset

log = logging.getLogger("gobanfast.telemetry")

_starting = threading.Lock()  # two frontends of one engine may have their first requests at once
CONTENT = b"gbf rates 1"
INTERVAL = 1.0


class Controllers:
    """The rate classes of a host's workers, one step a second.

    Each worker publishes thresholds and counts in a slot of its own. A class is controlled by the worker in the lowest
    slot, of those that live and have published it in the last ten seconds, over the counts of all; the others take its
    threshold. There is no election: when it dies, the next one is the lowest, and goes on from the same threshold.

    Args:
        classes: whose thresholds are set; the classes in it that have no controller are left alone.
        controllers: by name of a class.
        fixed: thresholds of classes that have none, by name.
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
        fixed: Mapping[str, int] | None = None,
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
        self.replace(controllers, fixed)
        watch_forks(self)

    def replace(self, controllers: Mapping[str, Controller], fixed: Mapping[str, int] | None = None) -> dict[str, int]:
        """Other controllers, as after a reload; the number of each class. Classes that stay keep their probability."""
        before = self._live[1]
        p = {name: before.get(name, controller.initial) for name, controller in controllers.items()}
        numbers = self.classes.place({**(fixed or {}), **{name: threshold_for(value) for name, value in p.items()}})
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
            thread = threading.Thread(target=self._run, name="gobanfast-rates", daemon=True)
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """Ends the thread and leaves the slot; thresholds stay as they are."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join()
        if self._slots is not None:
            self._slots.close()
            self._slots = None

    def let_go(self) -> None:
        """Has the thread end soon, without waiting: nobody is left who samples."""
        self._stop.set()

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


class RateControl:
    """What controls the rate classes of an engine while its rules come and go; workers that read one file share it.

    Attributes:
        controllers: None while no rule has a controller that does more than say a probability.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.controllers: Controllers | None = None
        engine.on_swap.append(self._follow)
        self._follow(None)

    def _follow(self, _: object) -> None:
        snapshot = self._engine.snapshot
        records = snapshot.compiled.records
        given = {
            name: controller
            for name, controller in controllers_of(snapshot.ruleset.rules).items()
            if not isinstance(controller, Fixed)
        }
        if records is None or snapshot.rates is None or not (given or self.controllers):
            return
        fixed = {name: records.thresholds[name] for name in records.fixed}
        if self.controllers is not None:
            self.controllers.replace(given, fixed)
            self._start(self.controllers)  # if it could not before
            return
        name = service_name(snapshot.ruleset)
        self.controllers = Controllers(snapshot.rates, given, fixed=fixed, name=name)
        weakref.finalize(self._engine, self.controllers.let_go).atexit = False
        self._start(self.controllers)

    def _start(self, controllers: Controllers) -> None:
        try:
            controllers.start()
        except RuntimeError:  # no room for a thread: no request and no swap fails by what it is sampled with
            log.exception("sampling rates are not controlled, and stay as they are until the next swap of rules")


def control_rates(engine: Engine) -> None:
    """Has the rate classes of an engine controlled from now on, in a thread of its own where that takes one; once."""
    with _starting:
        if engine.rate_control is None:
            engine.rate_control = RateControl(engine)


def service_name(ruleset: Ruleset) -> str:
    """What names the file that workers share: the path of their rules, or the rules themselves where they have none."""
    path = ruleset.source
    told = os.path.realpath(path) if os.path.exists(path) else ruleset.content_hash
    return f"rates-{blake2b(told.encode(errors='surrogateescape'), digest_size=8).hexdigest()}"
