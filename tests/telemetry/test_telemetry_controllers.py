"""Controllers of sampling rates: laws of each step, and a host's workers that share thresholds."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast._core.sampling import NEVER, ClassCounts, RateClasses, export_room
from gobanfast._core.shared import SharedSlots
from gobanfast.rules.controllers import BoostOnError, Controller, Fixed, Sla, Target, sla_rate, threshold_for
from gobanfast.telemetry.controllers import CONTENT, Controllers
from gobanfast.telemetry.sampling import threshold_of

SECOND, MS = 10**9, 10**6
START = 1_000 * SECOND
NUMBERS = st.floats(0, 1e9) | st.just(math.inf)
FRACTIONS = st.floats(0, 1)
COUNTS = st.builds(
    ClassCounts, st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40),
    st.none() | NUMBERS | st.just(math.nan), NUMBERS,
)  # fmt: skip
CONTROLLERS = st.one_of(
    st.builds(Fixed, FRACTIONS), st.builds(Sla, FRACTIONS), st.builds(Target, st.floats(0, 1e6)),
    st.builds(lambda base, over, rest: BoostOnError(base, over, base + rest * (1 - base)), FRACTIONS, FRACTIONS,
              FRACTIONS),
)  # fmt: skip
NOTHING = ClassCounts(0, 0, 0, None, 0.0)


def counted(*, errors: float = 0.0, p99_ms: float | None = 100.0, per_second: float = 100.0) -> ClassCounts:
    return ClassCounts(10_000, int(10_000 * errors), 10_000, p99_ms, per_second)


@given(CONTROLLERS, FRACTIONS, COUNTS, st.floats())
def test_a_step_gives_a_probability(controller: Controller, p: float, counts: ClassCounts, seconds: float) -> None:
    """Whatever was counted and whatever the clock did: from 0 to 1, and a threshold of it."""
    for start in (p, controller.initial):
        found = controller.step(start, counts, seconds)
        assert 0 <= found <= 1
        assert 0 <= threshold_for(found) <= NEVER


@given(CONTROLLERS.filter(lambda controller: not isinstance(controller, Fixed)), FRACTIONS, COUNTS)
def test_a_clock_that_stands_or_goes_back_changes_nothing(
    controller: Controller, p: float, counts: ClassCounts
) -> None:
    for seconds in (0.0, -1.0, -math.inf, math.nan):
        assert p == controller.step(p, counts, seconds)


@pytest.mark.parametrize("controller", [Sla(0.9), Target(5), BoostOnError(0.25)])
def test_a_class_without_traffic_keeps_its_probability(controller: Controller) -> None:
    assert 0.25 == controller.step(0.25, NOTHING, 1.0)


@pytest.mark.parametrize("p", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_what_is_no_number_keeps_nothing(p: float) -> None:
    assert NEVER == threshold_for(p)


def test_more_than_all_is_all() -> None:
    assert 0 == threshold_for(1.0000001)


# ---- sla


@pytest.mark.parametrize(
    ("weight", "p99_ms", "error_rate", "rate"),
    [(0.9, 400, 0.005, 0.01485), (0.9, 400, 0.025, 0.0297), (0.9, 0, 1, 0.0405), (0.1, 1300, 0, 0.001),
     (0.3, 5000, 0, 0.001), (0.1, 500, 0, 0.001), (0.7, 500, 0, 0.007), (0.9, math.inf, 0, 0.0018)],
)  # fmt: skip
def test_the_sla_formula(weight: float, p99_ms: float, error_rate: float, rate: float) -> None:
    """0.01 x weight x clamp(1 - (p99 - 500) / 1000, 0.2, 1.5) x (1 + min(2, 100 x errors)), in [0.001, 1]."""
    assert sla_rate(weight, p99_ms, error_rate) == pytest.approx(rate, rel=1e-12)


@given(FRACTIONS, NUMBERS, FRACTIONS, NUMBERS, FRACTIONS)
def test_sla_is_monotone_and_bounded(weight: float, p99: float, errors: float, p99_2: float, errors_2: float) -> None:
    """Up with errors, down with latency, from 0.001 to 0.045 times the weight (0.0405 for payments)."""
    low, high = sorted((errors, errors_2))
    fast, slow = sorted((p99, p99_2))
    assert sla_rate(weight, slow, low) <= sla_rate(weight, fast, high)
    assert 0.001 <= sla_rate(weight, p99, errors) <= max(0.001, 0.045 * weight * (1 + 1e-12))


def test_sla_takes_what_was_counted() -> None:
    """The rate of the class's p99 and errors; more errors than responses, as of a torn reading, are all of them."""
    assert sla_rate(0.9, 400, 0.02) == Sla(0.9).step(0.5, counted(p99_ms=400, errors=0.02), 1)
    assert sla_rate(0.9, 400, 1) == Sla(0.9).step(0.5, ClassCounts(3, 9, 3, 400.0, 1.0), 1)
    assert sla_rate(0.9, math.inf, 0) == Sla(0.9).step(0.5, counted(p99_ms=math.inf), 1)
    assert 0.5 == Sla(0.9).step(0.5, counted(p99_ms=math.nan), 1)
    assert threshold_of(sla_rate(0.9, 400, 0.02)) == threshold_for(sla_rate(0.9, 400, 0.02))


# ---- target


@pytest.mark.parametrize(
    ("p", "per_second", "expected"),
    [
        (0.001, 0.0, 0.001),  # no traffic
        (0.001, 1_000.0, 0.001),  # 1 a second, as wanted
        (0.001, 1_299.0, 0.001),  # within the tolerance
        (0.001, 701.0, 0.001),
        (0.001, 1_301.0, 1 / 1_301),  # above it: down at once
        (0.5, 1_000.0, 0.001),
        (0.001, 690.0, 1 / 690),  # below: up, by half at most
        (0.001, 100.0, 0.0015),
        (0.9, 0.5, 1.0),
        (1.0, 1e9, 1e-5),  # not below the least
    ],
)
def test_target_is_jaegers(p: float, per_second: float, expected: float) -> None:
    assert Target(1.0).step(p, counted(per_second=per_second), 1) == pytest.approx(expected, rel=1e-12)


def test_target_is_at_least_one_a_minute() -> None:
    assert Target(0).step(0.5, counted(per_second=10), 1) == pytest.approx(1 / 600)


@given(st.floats(0.1, 1e3), st.floats(1e-2, 1e6), st.floats(1e-5, 1))
def test_target_settles(target: float, per_second: float, p: float) -> None:
    """Under steady traffic it reaches its tolerance, or a bound, and stays."""
    counts = counted(per_second=per_second)
    for _ in range(40):
        p = Target(target).step(p, counts, 1)

    assert p == Target(target).step(p, counts, 1)
    assert p in {1.0, 1e-5} or abs(p * per_second - target) <= 0.3 * target


# ---- boost_on_error


def test_boost_doubles_and_halves() -> None:
    """Each second above `over` doubles, up to the cap; each below halves, back to the base."""
    controller = BoostOnError(0.01, cap=0.1)
    p, seen = 0.01, []
    for errors in [0.05, 0.051, 1, 1, 1, 1, 0.05, 0, 0, 0, 0]:
        p = controller.step(p, counted(errors=errors), 1)
        seen.append(p)

    assert seen == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.1, 0.1, 0.05, 0.025, 0.0125, 0.01, 0.01])


def test_boost_from_nothing() -> None:
    """A class that keeps nothing is kept when it fails, and is back at nothing afterwards."""
    controller = BoostOnError(0.0)
    p = 0.0
    for _ in range(20):
        p = controller.step(p, counted(errors=1), 1)
    assert 1 == p
    for _ in range(20):
        p = controller.step(p, counted(errors=0), 1)
    assert 0 == p


@given(FRACTIONS, st.floats(0, 1e6))
def test_boost_takes_at_most_a_second_at_once(p: float, seconds: float) -> None:
    """A step that comes an hour late is one doubling."""
    assert BoostOnError(0.0).step(p, counted(errors=1), seconds) <= max(2 * p, 2e-5)


@pytest.mark.parametrize(
    "wrong",
    [lambda: Fixed(1.5), lambda: Fixed(math.nan), lambda: Sla(-1), lambda: Target(-1), lambda: Target(math.inf),
     lambda: BoostOnError(2), lambda: BoostOnError(0.5, cap=0.4), lambda: BoostOnError(0.5, over=math.nan)],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match="is out of range; give"):
        wrong()


# ---- the workers of a host


def workers(folder: Path, count: int, controllers: dict[str, Controller]) -> list[Controllers]:
    """As many objects, each as a worker has one; each has stepped, so that it has a slot."""
    made = [Controllers(RateClasses(now_ns=START), controllers, name="t", directory=folder) for _ in range(count)]
    for one in made:
        one.step(START)
    return made


def thresholds(made: list[Controllers], name: str) -> list[int]:
    return [one.classes.threshold(name) for one in made]


def test_new_classes_begin_with_their_threshold(tmp_path: Path) -> None:
    """Before any step, and without a thread or a file."""
    before = threading.active_count()
    controllers = Controllers(
        RateClasses(now_ns=START), {"f": Fixed(0.5), "s": Sla(0.9), "t": Target()}, name="t", directory=tmp_path
    )

    assert [threshold_of(p) for p in (0.5, sla_rate(0.9, 500, 0), 0.001)] == [
        controllers.classes.threshold(name) for name in "fst"
    ]
    assert [] == list(tmp_path.iterdir())
    assert before == threading.active_count()


def test_target_is_of_the_host(tmp_path: Path) -> None:
    """Three workers with a hundred roots a second each: one threshold, of a target of three a second for all."""
    made = workers(tmp_path, 3, {"a": Target(3.0)})
    now = START
    for _ in range(40):
        now += SECOND
        for one in made:
            for _ in range(100):
                one.classes.note("a", MS)
            one.classes.note("a", MS, root=False)
            one.step(now)
    found = thresholds(made, "a")

    assert 1 == len(set(found))
    assert 300 * (1 - found[0] / NEVER) == pytest.approx(3, rel=0.31)


def test_errors_of_one_worker_boost_all(tmp_path: Path) -> None:
    made = workers(tmp_path, 3, {"a": BoostOnError(0.01)})
    for _ in range(100):
        made[2].classes.note("a", MS, error=True)
    for second in range(1, 12):
        for one in made:
            one.step(START + second * SECOND)

    assert [0, 0, 0] == thresholds(made, "a")


ALL: dict[str, Controller] = {"f": Fixed(0.5), "s": Sla(0.9), "t": Target(5), "b": BoostOnError(0.01, cap=0.5)}


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    """Back by ten minutes, on by a day: nothing fails, nothing moves by it, and the next second counts as before."""
    (one,) = workers(tmp_path, 1, ALL)
    now = START
    for jump in (-600 * SECOND, 86_400 * SECOND, -1, 0):
        now += jump
        before = thresholds([one], "s"), thresholds([one], "t")
        one.step(now)
        assert before == (thresholds([one], "s"), thresholds([one], "t"))
        for name in ALL:
            one.classes.note(name, 700 * MS, error=True)
        now += SECOND
        one.step(now)

    assert sla_rate(0.9, 700, 1.0) == pytest.approx(one.probability("s"), rel=0.2)
    assert 0.01 < one.probability("b") <= 0.5 == one.probability("f")


def test_a_class_whose_every_response_fails_and_takes_for_ever(tmp_path: Path) -> None:
    """p99 is infinite, and the error rate 1: the formula's least load and greatest boost; the cap of the other."""
    (one,) = workers(tmp_path, 1, ALL)
    for second in range(1, 12):
        for name in ALL:
            for _ in range(10):
                one.classes.note(name, 2**63, error=True)
        one.step(START + second * SECOND)
    counts = one.classes.counts(START + 11 * SECOND)

    assert [(math.inf, 110)] * 4 == [(each.p99_ms, each.errors) for each in counts.values()]
    assert threshold_of(0.01 * 0.9 * 0.2 * 3) == thresholds([one], "s")[0]
    assert threshold_of(0.5) == thresholds([one], "b")[0] == thresholds([one], "f")[0]
    assert 0 < one.probability("t") <= 1


def test_a_class_without_a_response_stays(tmp_path: Path) -> None:
    """Through all the seconds of a minute and more, in all controllers."""
    (one,) = workers(tmp_path, 1, ALL)
    before = {name: one.classes.threshold(name) for name in ALL}
    for second in range(1, 90):
        one.step(START + second * SECOND)

    assert before == {name: one.classes.threshold(name) for name in ALL}


def test_the_lowest_controls_and_the_next_goes_on(tmp_path: Path) -> None:
    """When the first worker is gone, the second controls, from the threshold that was there."""
    made = workers(tmp_path, 2, {"a": BoostOnError(0.01)})
    for one in made:
        one.classes.note("a", MS, error=True)
    made[0].step(START + SECOND)
    made[1].step(START + SECOND)
    assert [threshold_of(0.02)] * 2 == thresholds(made, "a")
    made[0].stop()
    made[1].step(START + 2 * SECOND)

    assert 0.04 == pytest.approx(made[1].probability("a"))


def test_a_worker_that_hangs_controls_no_more(tmp_path: Path) -> None:
    """It lives and has the lowest slot, and has not published for more than ten seconds."""
    made = workers(tmp_path, 2, {"a": BoostOnError(0.01)})
    for second in range(1, 14):
        made[1].classes.note("a", MS, error=True)
        made[1].step(START + second * SECOND)

    assert 0.08 == pytest.approx(made[1].probability("a"))


def test_a_class_that_the_lowest_has_not_is_controlled_by_the_next(tmp_path: Path) -> None:
    """As while workers are reloaded one by one; counts of both are in what both have."""
    first, second = workers(tmp_path, 2, {"a": Fixed(0.5)})
    second.replace({"a": Fixed(0.25), "b": Fixed(0.125)})
    for one in (first, second):
        one.step(START + SECOND)

    assert [threshold_of(0.5), threshold_of(0.125)] == [second.classes.threshold(name) for name in "ab"]
    first.replace({"b": Fixed(0.75)})
    for one in (first, second):
        one.step(START + 2 * SECOND)
    assert [threshold_of(0.25), threshold_of(0.75)] == [second.classes.threshold(name) for name in "ab"]


def test_a_reload_keeps_probabilities(tmp_path: Path) -> None:
    [one] = workers(tmp_path, 1, {"a": BoostOnError(0.01)})
    one.classes.note("a", MS, error=True)
    one.step(START + SECOND)
    one.replace({"b": Fixed(0.5), "a": BoostOnError(0.01)})

    assert [0.02, 0.5] == [one.probability(name) for name in "ab"]
    assert threshold_of(0.02) == one.classes.threshold("a")


@pytest.mark.parametrize("junk", [b"", b"x" * 100, b"\xff" * 32])
def test_junk_in_a_lower_slot_harms_nobody(tmp_path: Path, junk: bytes) -> None:
    made = workers(tmp_path, 1, {"a": Fixed(0.5)})
    [path] = tmp_path.iterdir()
    made[0].stop()
    foreign = SharedSlots(path, content=CONTENT, room=export_room())
    foreign.publish(junk)
    made[0].step(START + SECOND)
    made[0].step(START + 2 * SECOND)

    assert 0 == foreign.slot
    assert threshold_of(0.5) == made[0].classes.threshold("a")


def test_without_a_file_each_is_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder that is not there: one warning, and steps go on; a file that was deleted is made anew."""
    one = Controllers(RateClasses(now_ns=START), {"a": BoostOnError(0.01)}, name="t", directory=tmp_path / "none")
    for second in (0, 1, 2):
        one.classes.note("a", MS, error=True)
        one.step(START + second * SECOND)
    assert threshold_of(0.08) == one.classes.threshold("a")
    assert 1 == len(caplog.records)
    (tmp_path / "none").mkdir()
    one.step(START + 3 * SECOND)
    [path] = (tmp_path / "none").iterdir()
    path.unlink()
    one.step(START + 4 * SECOND)
    assert path.exists()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_killed_worker_is_followed_by_the_next(tmp_path: Path) -> None:
    """Processes with threads: SIGKILL of the one that controls, and the other goes on within two steps."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            first = Controllers(RateClasses(), {"a": Fixed(0.25)}, name="t", directory=tmp_path)
            first.step(time.monotonic_ns())
            first.start()
            os.write(writer, b"x")
            time.sleep(60)
        finally:
            os._exit(0)
    assert b"x" == os.read(reader, 1)
    second = Controllers(RateClasses(), {"a": Fixed(0.5)}, name="t", directory=tmp_path)
    second.step(time.monotonic_ns())
    assert threshold_of(0.25) == second.classes.threshold("a")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    second.step(time.monotonic_ns())

    assert threshold_of(0.5) == second.classes.threshold("a")


def test_a_new_worker_takes_the_thresholds_of_the_host(tmp_path: Path) -> None:
    """As soon as its thread starts."""
    before = Controllers(RateClasses(), {"a": Fixed(0.25)}, name="t", directory=tmp_path)
    before.step(time.monotonic_ns())
    new = Controllers(RateClasses(), {"a": Fixed(0.5)}, name="t", directory=tmp_path)
    new.start()
    wait(lambda: new.classes.threshold("a") == threshold_of(0.25))
    new.stop()


def test_a_step_that_fails_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the next one comes: the thread goes on."""
    monkeypatch.setattr("gobanfast.telemetry.controllers.INTERVAL", 0.01)
    one = Controllers(RateClasses(), {"a": Fixed(0.5)}, name="t", directory=tmp_path)
    failing = iter([True, True, False])

    def tick(now_ns: int) -> None:
        if next(failing, False):
            raise RuntimeError("broken")

    class Classes:
        """As the classes, but for `tick`, which fails twice."""

        def __getattr__(self, name: str) -> object:
            return tick if name == "tick" else getattr(one_classes, name)

    one_classes, one.classes = one.classes, Classes()  # type: ignore[assignment]
    one_classes.set_threshold("a", 7)
    one.start()
    wait(lambda: one_classes.threshold("a") != 7)
    one.stop()

    assert 2 == sum("step failed" in record.message for record in caplog.records)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_the_thread_steps_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second, started by `start` alone; a forked child has a thread of its own."""
    monkeypatch.setattr("gobanfast.telemetry.controllers.INTERVAL", 0.01)
    one = Controllers(RateClasses(), {"a": Fixed(0.5)}, name="t", directory=tmp_path)
    one.start()
    one.start()
    names = [thread.name for thread in threading.enumerate()]
    assert 1 == names.count("gobanfast-rates")
    one.classes.set_threshold("a", 7)
    wait(lambda: one.classes.threshold("a") != 7)
    if not (child := os.fork()):
        one.classes.set_threshold("a", 7)
        for _ in range(500):
            time.sleep(0.01)
            if one.classes.threshold("a") != 7:
                os._exit(0)
        os._exit(1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    one.stop()
    assert "gobanfast-rates" not in [thread.name for thread in threading.enumerate()]
    one.stop()


def wait(condition: object) -> None:
    assert callable(condition)
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it has not happened in 5 s")
