"""Rate classes: latency histograms over a sliding minute, thresholds, and what workers exchange of them."""

from __future__ import annotations

import math
import os
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast._core.sampling import MAX_CLASSES, NEVER, ClassCounts, RateClasses, export_room
from oracle import sampling as oracle

SECOND, MS = 10**9, 10**6
START = 1_000 * SECOND
LOW, HIGH = 2**16, 2**36
ERROR = 1 / 32 + 1e-9  # of a percentile, and the test's own rounding
NOTHING = ClassCounts(0, 0, 0, None, 0.0)
LATENCIES = st.lists(
    st.integers(LOW, HIGH - 1) | st.integers(16, 35).flatmap(lambda e: st.integers(2**e, 2**e + 3)), min_size=1
)


def one_class(name: str = "a") -> RateClasses:
    classes = RateClasses(now_ns=START)
    classes.place({name: NEVER})
    return classes


@given(LATENCIES)
def test_percentiles_are_the_exact_ones_but_for_a_32nd(latencies: list[int]) -> None:
    """The 99th percentile by nearest rank, within the stated relative error."""
    classes = one_class()
    for ns in latencies:
        classes.note("a", ns)

    expected = oracle.percentile(latencies, 99) / MS
    found = classes.counts(START + SECOND)["a"].p99_ms

    assert found is not None
    assert abs(found - expected) <= ERROR * expected


def test_the_percentile_is_the_99th() -> None:
    """One slow response in a hundred is above it, two are not."""
    classes = one_class()
    for ns in [10 * MS] * 99 + [20_000 * MS]:
        classes.note("a", ns)
    assert classes.counts(START)["a"].p99_ms == pytest.approx(10, rel=ERROR)
    classes.note("a", 20_000 * MS)
    assert classes.counts(START)["a"].p99_ms == pytest.approx(20_000, rel=ERROR)


def test_ends_of_the_range() -> None:
    """What is faster than 66 us counts as that; what takes 69 s and more takes for ever; nothing has no percentile."""
    classes = one_class()
    assert NOTHING == classes.counts(START)["a"]
    classes.note("a", 0)
    classes.note("a", LOW)
    assert classes.counts(START)["a"].p99_ms == pytest.approx(LOW / MS, rel=ERROR)
    for ns in (HIGH, 2**63, 2**64 - 1):
        classes.note("a", ns)
    assert math.inf == classes.counts(START)["a"].p99_ms


@given(
    st.lists(
        st.tuples(
            st.integers(0, 25 * SECOND), st.sampled_from(["a", "b"]), st.integers(1, 60_000), st.booleans(),
            st.booleans(),
        ),
        max_size=60,
    )
)  # fmt: skip
def test_the_minute_slides_in_windows_of_ten_seconds(noted: list[tuple[int, str, int, bool, bool]]) -> None:
    """A response counts while its ten seconds are among the last six, with its error and its root."""
    classes = RateClasses(now_ns=START)
    classes.place({"a": 0, "b": 0})
    now, seen = START, []
    for wait, name, ms, error, root in noted:
        now += wait
        classes.tick(now)
        classes.note(name, ms * MS, error=error, root=root)
        seen.append((now, name, ms * MS, error, root))
        for each in ("a", "b"):
            last = [item for item in seen if item[1] == each and now // (10 * SECOND) - item[0] // (10 * SECOND) < 6]
            counts = classes.counts(now)[each]
            assert (len(last), sum(item[3] for item in last), sum(item[4] for item in last)) == counts[:3]
            span = max(1, (now - max(START, (now // (10 * SECOND) - 5) * 10 * SECOND)) / SECOND)
            assert counts.per_second == pytest.approx(counts.roots / span)


def test_clocks_that_jump() -> None:
    """Back: nothing changes. Ahead by an hour: nothing is left."""
    classes = one_class()
    classes.note("a", MS)
    for now in (0, START - 500 * SECOND):
        classes.tick(now)
        assert 1 == classes.counts(now)["a"].responses
    classes.tick(START + 3600 * SECOND)
    assert NOTHING == classes.counts(START + 3600 * SECOND)["a"]


def test_classes_keep_their_place_and_state_over_a_reload() -> None:
    """A class that stays keeps number, threshold and counts; a new one begins with the threshold given."""
    classes = RateClasses(now_ns=START)
    assert {"a": 0, "b": 1} == classes.place({"a": 5, "b": 6})
    classes.set_threshold("b", 7)
    classes.note("b", MS)

    assert {"b": 1, "c": 2} == classes.place({"b": 100, "c": 101})
    assert ("b", "c") == classes.names
    assert (7, 101) == (classes.threshold("b"), classes.threshold("c"))
    assert [1, 0] == [counts.responses for counts in classes.counts(START).values()]


def test_a_thousand_classes_and_no_more() -> None:
    """When there is no place left, one that the ruleset does not name is given up, its counts with it."""
    classes = RateClasses(now_ns=START)
    first = classes.place({f"first-{i}": 0 for i in range(MAX_CLASSES)})
    for name in first:
        classes.note(name, MS)
    kept = {f"first-{i}": 1 for i in range(10)}
    second = classes.place({**kept, **{f"second-{i}": 2 for i in range(MAX_CLASSES - 10)}})

    assert sorted(first.values()) == sorted(second.values()) == list(range(MAX_CLASSES))
    assert {name: first[name] for name in kept} == {name: second[name] for name in kept}
    assert 10 == sum(counts.responses for counts in classes.counts(START).values())
    with pytest.raises(ValueError, match="1001 rate classes; at most 1000"):
        classes.place({str(i): 0 for i in range(MAX_CLASSES + 1)})
    assert 8_100_000 > classes.nbytes


@pytest.mark.parametrize("threshold", [-1, 2**56 + 1, 2**64])
def test_what_is_no_threshold_is_refused(threshold: int) -> None:
    classes = one_class()
    for call in (lambda: classes.place({"b": threshold}), lambda: classes.set_threshold("a", threshold)):
        with pytest.raises(ValueError, match="out of range"):
            call()
    assert ("a",) == classes.names
    assert NEVER == classes.threshold("a")


@given(st.lists(LATENCIES, min_size=2, max_size=4))
def test_workers_together_are_one(workers: list[list[int]]) -> None:
    """The counts of all workers are those of one that had seen everything, for the classes that are here."""
    everything, parts = one_class(), []
    for latencies in workers:
        part = RateClasses(now_ns=START)
        part.place({"x": 9, "a": 5})
        part.note("x", MS)
        for ns in latencies:
            part.note("a", ns, error=ns % 2 == 1)
            everything.note("a", ns, error=ns % 2 == 1)
        parts.append(part)
    now = START + 5 * SECOND
    others = [part.export(now) for part in parts]

    expected, found = everything.counts(now)["a"], one_class().counts(now, others)

    assert {"a"} == found.keys()
    assert expected[:4] == found["a"][:4]
    assert found["a"].per_second == pytest.approx(expected.per_second)
    assert {"a": 5} == one_class().thresholds(now, others[0])
    assert expected == everything.counts(now, [one_class("b").export(now)])["a"]


def test_old_news_is_no_news() -> None:
    """A worker that has published nothing for ten seconds hangs: it neither counts nor controls."""
    classes = one_class()
    classes.note("a", MS)
    payload = classes.export(START)

    assert {"a": NEVER} == one_class().thresholds(START + 10 * SECOND, payload)
    assert {} == one_class().thresholds(START + 10 * SECOND + 1, payload)
    assert NOTHING == one_class().counts(START + 10 * SECOND + 1, [payload])["a"]


@given(st.data())
def test_any_bytes_from_another_process_are_read(data: st.DataObject) -> None:
    """Cut, lengthened or with other bytes in it: what cannot be read does not count, and nothing is raised."""
    classes = one_class()
    classes.note("a", MS)
    payload = bytearray(classes.export(START))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.integers(0, 255))
    found = bytes(payload[: data.draw(st.integers(0, len(payload)))]) + data.draw(st.binary(max_size=30))

    for junk in (found, bytes(payload), b"", b"\xff" * 32, struct.pack("<4Q", START, 0, 2**61, 2**62)):
        counts = classes.counts(START, [junk])["a"]
        assert counts.responses >= 1
        assert all(0 <= threshold <= NEVER for threshold in classes.thresholds(START, junk).values())


def test_what_is_exported_has_room() -> None:
    classes = RateClasses(now_ns=START)
    for name in classes.place({str(i): 0 for i in range(MAX_CLASSES)}):
        classes.note(name, MS)

    assert export_room() == len(classes.export(START))


def test_threads_lose_no_response() -> None:
    """Four threads note while a fifth turns the windows and reads."""
    classes, done = one_class(), threading.Event()

    def note() -> None:
        for i in range(20_000):
            classes.note("a", i * 1000, error=i % 2 == 0)

    def turn() -> None:
        now = START
        while not done.is_set():
            now += 10 * SECOND if now < START + 50 * SECOND else 0
            classes.tick(now)
            classes.counts(now)

    threads = [threading.Thread(target=note) for _ in range(4)]
    reader = threading.Thread(target=turn)
    for thread in [*threads, reader]:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()

    assert (80_000, 40_000, 80_000) == classes.counts(START + 50 * SECOND)["a"][:3]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_counts_for_itself() -> None:
    """It begins with nothing counted and the thresholds of its parent."""
    classes = one_class()
    classes.set_threshold("a", 77)
    classes.note("a", MS)
    if not (child := os.fork()):
        os._exit(0 if (classes.counts(START)["a"], classes.threshold("a")) == (NOTHING, 77) else 1)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert 1 == classes.counts(START)["a"].responses
