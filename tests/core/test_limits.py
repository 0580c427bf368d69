"""Counts of limits: as exact as a dict's while there is room, never above the limit over workers, whoever is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import FormatError
from gobanfast._core.limits import LimitTable
from gobanfast._core.shared_file import shared_limits
from oracle.limits import Bucket, Window

STEPS = st.tuples(
    st.sampled_from(["take", "take", "take", "look", "count", "give", "clear"]),
    st.sampled_from([b"a", b"b", b"c", b""]),
    st.integers(1, 4),
    st.integers(0, 3000),
)


@given(limit=st.integers(1, 12), window=st.integers(1, 5000), steps=st.lists(STEPS, max_size=60))
def test_a_window_counts_as_a_dict_does(limit, window, steps):
    table, oracle, now = LimitTable(None, capacity=64), Window(limit, window), 1000
    for what, key, cost, passed in steps:
        now += passed
        expected = oracle.step(what, key, cost, now)

        admitted, tracked, left, wait, reset = table.step(
            what, key, limit, window / 1000, cost=cost, name="n", now=now / 1000
        )

        assert expected == (admitted, left, round(wait * 1000), round(reset * 1000))
        assert tracked or what != "take"


@given(
    limit=st.integers(1, 10**9), window=st.integers(1, 86_400_000), burst=st.integers(1, 12),
    steps=st.lists(STEPS, max_size=60),
)  # fmt: skip
def test_a_bucket_fills_as_fractions_do(limit, window, burst, steps):
    burst = min(burst, limit)
    table, oracle, now = LimitTable(None, capacity=64), Bucket(limit, window, burst), 1000
    for what, key, cost, passed in steps:
        now += passed
        expected = oracle.step(what, key, cost, now)

        admitted, _, left, wait, reset = table.step(
            what, key, limit, window / 1000, burst=burst, cost=cost, name="n", now=now / 1000
        )

        assert expected == (admitted, left, round(wait * 1000), round(reset * 1000))


@pytest.mark.parametrize(("limit", "window"), [(1, 1.0), (1, 86400.0), (10**9, 1.0), (10**9, 86400.0)])
def test_the_smallest_and_largest_limits(limit, window):
    """A limit lets in as many as it says, one by one or at once, and all of it comes back when its window ends."""
    table = LimitTable(None, capacity=8)

    first = table.step("take", b"k", limit, window, cost=limit, now=5.0)
    second = table.step("take", b"k", limit, window, now=5.0)
    later = table.step("take", b"k", limit, window, now=5.0 + window)

    assert (True, True, 0, 0.0, window) == first
    assert (False, True, 0, window, window) == second
    assert (True, True, limit - 1, 0.0, window) == later


def test_keys_limits_and_windows_are_counted_apart():
    table = LimitTable(None, capacity=64)
    assert table.step("take", b"k", 1, 60, name="a", now=1.0)[0]

    assert not table.step("take", b"k", 1, 60, name="a", now=1.0)[0]
    assert table.step("take", b"l", 1, 60, name="a", now=1.0)[0]
    assert table.step("take", b"k", 1, 60, name="b", now=1.0)[0]
    assert table.step("take", b"k", 1, 61, name="a", now=1.0)[0]
    assert table.step("take", b"k", 2, 60, name="a", now=1.0)[0], "another limit goes on with the count"
    assert not table.step("take", b"k", 2, 60, name="a", now=1.0)[0]


@pytest.mark.parametrize("burst", [0, 3])
def test_a_clock_that_goes_back_locks_nobody_out_for_longer_than_a_window(burst):
    table = LimitTable(None, capacity=8)
    for _ in range(3):
        table.step("take", b"k", 3, 60, burst=burst, now=50_000.0)

    admitted, _, _, wait, _ = table.step("take", b"k", 3, 60, burst=burst, now=10.0)

    assert not admitted
    assert wait <= 60
    assert table.step("take", b"k", 3, 60, burst=burst, now=71.0)[0]


@pytest.mark.parametrize("burst", [0, 100])
def test_a_worker_that_was_slow_between_clock_and_count_lets_no_more_in(burst):
    """Its time is before that of others; what it is refused at ends no window sooner, and fills no bucket."""
    table, admitted = LimitTable(None, capacity=8), 0
    for i in range(3000):
        now = 100.0 + i / 1000
        admitted += table.step("take", b"k", 100, 1.0, burst=burst, now=now)[0]
        for late in (0.003, 0.2):
            admitted += table.step("take", b"k", 100, 1.0, burst=burst, now=now - late)[0]

    assert admitted <= 3 * 100 + (burst or 0)


def test_a_flood_of_keys_forgets_no_key_that_used_up_half():
    """Every key of a flood is new; a client near its limit stays counted, and what was given away is told."""
    table = LimitTable(None, capacity=512, seed=b"12345678")
    known = [b"client %d" % i for i in range(64)]
    for key in known:
        for _ in range(3):
            assert table.step("take", key, 5, 60, now=1.0)[0]

    for i in range(20_000):
        assert table.step("take", b"flood %d" % i, 5, 60, now=2.0)[0]

    for key in known:
        assert [True, True, False] == [table.step("take", key, 5, 60, now=3.0)[0] for _ in range(3)]
    assert table.stats()["evicted"] > 10_000


def test_keys_without_room_are_let_in_and_told():
    table = LimitTable(None, capacity=8)
    for i in range(8):
        table.step("take", b"%d" % i, 1, 60, now=1.0)

    for _ in range(3):
        assert (True, False) == table.step("take", b"new", 1, 60, now=1.0)[:2]
    assert {"evicted": 0, "untracked": 3} == table.stats()


@pytest.mark.parametrize(
    ("limit", "window", "burst", "why"),
    [
        (0, 60, 0, "limit"),
        (10**9 + 1, 60, 0, "limit"),
        (5, 0, 0, "window"),
        (5, 86401, 0, "window"),
        (5, 60, 6, "burst"),
    ],
)
def test_limits_out_of_range_are_refused(limit, window, burst, why):
    with pytest.raises(ValueError, match=why):
        LimitTable(None).step("take", b"", limit, window, burst=burst, now=1.0)


# ---- workers of a host ----


def take_many(path, times, queue, burst):
    table = LimitTable(path, capacity=512)
    queue.put(sum(table.step("take", b"k", 50, 3600, burst=burst, now=100.0)[0] for _ in range(times)))


@pytest.mark.parametrize("burst", [0, 50])
def test_one_limit_over_eight_workers(tmp_path, burst):
    """Eight processes that come at once let in as many as one would: the limit, and not one more."""
    context = multiprocessing.get_context("spawn")
    path, queue = tmp_path / "limits", context.Queue()
    holder = LimitTable(path, capacity=512)
    workers = [context.Process(target=take_many, args=(path, 400, queue, burst)) for _ in range(8)]
    for worker in workers:
        worker.start()
    admitted = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)

    assert 50 == sum(admitted)
    assert not holder.step("look", b"k", 50, 3600, burst=burst, now=100.0)[0]


def test_a_killed_worker_stops_nobody_and_loses_no_count(tmp_path):
    code = """
        import sys
        from gobanfast._core.limits import LimitTable
        table = LimitTable(sys.argv[1], capacity=64)
        for i in range(3):
            table.step("take", b"k", 5, 3600, now=1.0)
        print("ready", flush=True)
        while True:
            table.step("take", b"other", 10**9, 3600, now=1.0)
    """
    table = LimitTable(tmp_path / "limits", capacity=64)
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "limits")], stdout=subprocess.PIPE
    )
    assert worker.stdout.readline() == b"ready\n"
    worker.send_signal(signal.SIGKILL)
    worker.communicate()

    assert [True, True, False] == [table.step("take", b"k", 5, 3600, now=1.0)[0] for _ in range(3)]
    assert table.step("take", b"other", 10**9, 3600, now=1.0)[0]


def test_a_forked_child_counts_with_its_parent(tmp_path):
    for path in (tmp_path / "limits", None):
        table = LimitTable(path, capacity=64)
        child = os.fork()
        if child == 0:
            try:
                table.step("take", b"k", 1, 3600, now=1.0)
            finally:
                os._exit(0)
        os.waitpid(child, 0)

        assert (path is None) == table.step("take", b"k", 1, 3600, now=1.0)[0], "memory of a process is its own"


def test_a_file_that_nobody_uses_begins_empty_and_goes_away(tmp_path):
    path = tmp_path / "limits"
    first = LimitTable(path, capacity=64)
    first.step("take", b"k", 1, 3600, now=1.0)
    second = LimitTable(path, capacity=64)
    assert not second.step("take", b"k", 1, 3600, now=1.0)[0]
    del first
    assert path.exists()
    assert not second.step("take", b"k", 1, 3600, now=1.0)[0]
    del second
    assert not path.exists()

    assert LimitTable(path, capacity=64).step("take", b"k", 1, 3600, now=1.0)[0]


def test_what_a_killed_run_left_counts_no_more(tmp_path):
    path = tmp_path / "limits"
    code = "import os, sys; from gobanfast._core.limits import LimitTable; t = LimitTable(sys.argv[1], capacity=64)\n"
    code += "t.step('take', b'k', 1, 3600, now=1.0); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.exists()

    assert LimitTable(path, capacity=64).step("take", b"k", 1, 3600, now=1.0)[0]


@pytest.mark.parametrize("left", [b"", b"of another release", b"x" * 100_000])
def test_a_file_of_another_format_that_nobody_uses_is_made_anew(tmp_path, left):
    """Else one killed run with another capacity would keep all later workers from counting together."""
    path = tmp_path / "limits"
    path.write_bytes(left)
    path.chmod(0o600)
    first, second = LimitTable(path, capacity=64), LimitTable(path, capacity=64)

    assert first.step("take", b"k", 1, 3600, now=1.0)[0]
    assert not second.step("take", b"k", 1, 3600, now=1.0)[0]


def test_a_file_of_another_size_is_refused(tmp_path):
    table = LimitTable(tmp_path / "limits", capacity=64)

    with pytest.raises(FormatError, match="not a shared file of this content, size and release"):
        LimitTable(tmp_path / "limits", capacity=128)
    assert table.capacity == 64


def test_engines_of_one_process_count_apart_and_with_those_of_other_workers(tmp_path):
    """The first engine of a worker for a file counts with the first of another one, the second with the second."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: []\n")
    first, second = shared_limits(str(rules), tmp_path), shared_limits(str(rules), tmp_path)
    code = "import sys; from gobanfast._core.shared_file import shared_limits\n"
    code += "print(shared_limits(*sys.argv[1:])); print(shared_limits(*sys.argv[1:]))"

    told = subprocess.run(
        [sys.executable, "-c", code, str(rules), str(tmp_path)], check=True, capture_output=True, text=True
    )

    assert [first, second] == told.stdout.split()
    assert first != second
    assert Path(first).parent == tmp_path
    assert shared_limits(None) is None
    assert shared_limits("<text>") is None
