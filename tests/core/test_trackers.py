"""Trackers: exact while there is room, never forgetful when there is none, and of one size for ever."""

from __future__ import annotations

import ipaddress
import os
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gobanfast._core.trackers import Exemption, Trackers
from gobanfast.rules.rule import PrefixList
from gobanfast.rules.settings import Limit, Surge, TrackerSettings
from oracle.trackers import OracleTrackers

LIMIT, RATE = 5, 12
ALL = TrackerSettings(
    8, Limit(60.0, LIMIT, "ban", 600.0), Limit(16.0, RATE, "challenge", None), Surge(300, 600.0, 6, "challenge", None)
)
DISTINCT = TrackerSettings(10_000, Limit(60.0, 50, "ban", 600.0))
START = 1_000_000  # milliseconds


def fixed(tracking: TrackerSettings) -> Trackers:
    """Trackers whose hash key is the same in every run."""
    return Trackers(tracking, key=b"trackers of the tests")


class Exact(RuleBasedStateMachine):
    """Eight clients in one set of eight entries: nothing is ever short, so every count is exact."""

    clients = st.sampled_from([f"198.51.100.{i}" for i in range(4)] + [f"2001:db8:0:{i}::" for i in range(4)])

    @initialize()
    def begin(self) -> None:
        self.tracked, self.oracle, self.now = fixed(ALL), OracleTrackers(ALL), START

    @rule(step=st.sampled_from([0, 1, 900, 1000, 15_000, 59_999, 60_000, 660_000]) | st.integers(0, 70_000))
    def wait(self, step: int) -> None:
        self.now += step

    @rule(client=clients, fingerprints=st.lists(st.integers(0, 8), min_size=1, max_size=12))
    def come(self, client: str, fingerprints: list[int]) -> None:
        for fingerprint in fingerprints:
            peeked = self.tracked.peek(client, fingerprint, now=self.now / 1000)
            answer = self.tracked.note(client, fingerprint, now=self.now / 1000)
            self.oracle.note(client, fingerprint, self.now)

            assert self.oracle.distinct(client, self.now) == answer.distinct == answer.distinct_most
            assert self.oracle.requests(client, self.now) == answer.requests == answer.requests_most
            assert self.oracle.surge(client, self.now) == (answer.surge_now, answer.surge_base)
            assert self.oracle.tripped(client, self.now) == set(answer.tripped)
            assert answer == peeked._replace(tracked=True)

    @invariant()
    def bounded(self) -> None:
        assert self.tracked.stats()["evicted"] == self.tracked.stats()["refused"] == 0


TestExact = Exact.TestCase
TestExact.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 29), st.integers(0, 9), st.sampled_from([0, 10, 2000, 30_000])), max_size=300
    )
)
def test_nothing_is_forgotten_and_nothing_is_made_up(steps: list[tuple[int, int, int]]) -> None:
    """Thirty clients in room for eight: the true counts are never below what is known, nor above what is possible."""
    tracked, oracle, now = fixed(ALL), OracleTrackers(ALL), START
    for number, fingerprint, step in steps:
        now += step
        client = f"192.0.2.{number}"
        answer = tracked.note(client, fingerprint, now=now / 1000)
        oracle.note(client, fingerprint, now)
        distinct, requests = oracle.distinct(client, now), oracle.requests(client, now)

        assert answer.distinct <= distinct <= answer.distinct_most
        assert answer.requests <= requests <= answer.requests_most
        if not answer.tripped:
            assert distinct <= LIMIT
            assert requests <= RATE


@given(gaps=st.lists(st.integers(0, 1500), min_size=1, max_size=60))
def test_a_rate_is_counted_over_nearly_its_window(gaps: list[int]) -> None:
    """Never more requests than came within the window, never fewer than within fifteen sixteenths of it."""
    tracked, oracle, now = fixed(ALL), OracleTrackers(ALL), START
    for gap in gaps:
        now += gap
        oracle.note("192.0.2.1", 0, now)
        counted = tracked.note("192.0.2.1", now=now / 1000).requests

        assert oracle.within("192.0.2.1", now, 15_000) <= counted <= oracle.within("192.0.2.1", now, 16_000)


def test_fifty_is_the_limit() -> None:
    """50 distinct fingerprints in 60 s are fine, the 51st trips, and 60 s after the first it would not."""
    tracked = fixed(DISTINCT)
    for i in range(50):
        assert tracked.note("192.0.2.1", i + 1, now=100 + i).tripped == ()

    assert tracked.peek("192.0.2.1", 51, now=159.999).tripped == ("distinct_fingerprints",)
    assert tracked.peek("192.0.2.1", 51, now=160).tripped == ()


@pytest.mark.parametrize("limit", [1, 2, 5, 65_534])
def test_a_limit_of_requests_lets_in_as_many(limit: int) -> None:
    """`limit` requests within the window come in, the next one trips; 17/16 of the window later all have gone."""
    tracked = fixed(TrackerSettings(8, request_rate=Limit(16.0, limit, "challenge", None)))
    answers = [tracked.note("192.0.2.1", now=100) for _ in range(limit + 1)]

    assert limit + 1 == answers[-1].requests
    assert [()] == list({answer.tripped for answer in answers[:-1]})
    assert ("request_rate",) == answers[-1].tripped
    assert ("request_rate",) == tracked.note("192.0.2.1", now=115.999).tripped
    assert (1, ()) == ((later := tracked.note("192.0.2.1", now=132)).requests, later.tripped)


def random_address(generator: random.Random) -> str:
    return str(ipaddress.IPv6Address((0x2001 << 112) | generator.getrandbits(64) << 48))


def test_a_flood_of_addresses_makes_nobody_forgotten() -> None:
    """A client at the limit trips at the next fingerprint, whatever number of clients came between."""
    tracked, generator = fixed(DISTINCT), random.Random(1)
    size = tracked.nbytes
    for i in range(50):
        tracked.note("192.0.2.1", i + 1, now=100)
    for _ in range(100_000):
        tracked.note(random_address(generator), generator.getrandbits(64), now=101)

    assert tracked.note("192.0.2.1", 51, now=102).tripped == ("distinct_fingerprints",)
    assert tracked.stats()["evicted"] > 50_000
    assert size == tracked.nbytes


def test_a_client_that_begins_during_a_flood_is_caught() -> None:
    """Two thousand one-time clients between any two of its requests delay the 51st fingerprint by a few."""
    tracked, generator = fixed(DISTINCT), random.Random(2)
    for _ in range(20_000):
        tracked.note(random_address(generator), 1, now=99)
    for i in range(70):
        for _ in range(2000):
            tracked.note(random_address(generator), 1, now=100 + i / 2)
        answer = tracked.note("192.0.2.1", i + 1, now=100 + i / 2)
        assert i < 50 or answer.tripped
        if "distinct_fingerprints" in answer.tripped:
            break

    assert "distinct_fingerprints" in answer.tripped


def test_a_flood_of_fingerprints_needs_no_memory() -> None:
    """One client with endless fingerprints is counted to one above the limit; its neighbours are untouched."""
    tracked = fixed(DISTINCT)
    size = tracked.nbytes
    tracked.note("192.0.2.2", 1, now=100)
    for i in range(100_000):
        answer = tracked.note("192.0.2.1", i + 1, now=100 + i / 1e5)

    assert (51, 51) == (answer.distinct, answer.distinct_most)
    assert tracked.note("192.0.2.2", 2, now=101).distinct == 2
    assert size == tracked.nbytes


def test_saturation_is_said() -> None:
    """When every entry is hot a newcomer gets none; it is counted all the same, until nobody can vouch for it."""
    tracked = fixed(ALL)
    for number in range(8):
        for i in range(LIMIT):
            tracked.note(f"192.0.2.{number}", i + 1, now=100)
    answers = [tracked.note("198.51.100.1", i + 1, now=101) for i in range(LIMIT + 1)]

    assert [False] * (LIMIT + 1) == [answer.tracked for answer in answers]
    assert [()] * LIMIT + [("saturated",)] == [answer.tripped for answer in answers]
    assert (LIMIT + 1, 1) == (tracked.stats()["refused"], tracked.stats()["unsure"])


def test_an_idle_entry_makes_room() -> None:
    """After the longest window a client has nothing left to forget."""
    tracked = fixed(ALL)
    for number in range(8):
        for i in range(LIMIT):
            tracked.note(f"192.0.2.{number}", i + 1, now=100)

    assert tracked.note("198.51.100.1", 1, now=161).tracked
    assert (9, 0) == (tracked.stats()["admitted"], tracked.stats()["evicted"])


def test_a_clock_that_goes_back_makes_nobody_idle() -> None:
    """An hour back, entries stay as live as they were: hot ones are not given away."""
    tracked = fixed(ALL)
    for number in range(8):
        for i in range(LIMIT):
            tracked.note(f"192.0.2.{number}", i + 1, now=10_000)

    assert not tracked.note("198.51.100.1", 1, now=6400).tracked
    assert tracked.note("192.0.2.0", LIMIT + 1, now=6400).tripped == ("distinct_fingerprints",)


def test_a_forgotten_client_starts_anew() -> None:
    """What an operator forgives is gone from the entry."""
    tracked = fixed(ALL)
    for i in range(LIMIT):
        tracked.note("192.0.2.1", i + 1, now=100)

    assert tracked.forget("192.0.2.1")
    assert not tracked.forget("192.0.2.1")
    assert tracked.note("192.0.2.1", 1, now=100).tripped == ()


def test_a_client_is_a_prefix() -> None:
    """IPv4 in whatever form is one client; IPv6 addresses are one client within the given prefix."""
    tracked = Trackers(ALL, ipv6_client=56)
    for address in ("192.0.2.1", "::ffff:192.0.2.1", "64:ff9b::192.0.2.1"):
        four = tracked.note(address, now=100).requests
    for address in ("2001:db8::1", "2001:db8:0:ff::1", "2001:db8:0:100::1"):
        six = tracked.note(address, now=100).requests

    assert (3, 1) == (four, six)


def test_time_that_goes_back_counts_as_the_last() -> None:
    """A clock that jumps back neither empties a window nor fills it for ever."""
    tracked, oracle = fixed(ALL), OracleTrackers(ALL)
    generator = random.Random(3)
    latest = 0
    for _ in range(2000):
        now = START + generator.choice([0, 5000, 40_000, 200_000])
        latest = max(latest, now)
        fingerprint = generator.randrange(9)
        oracle.note("192.0.2.1", fingerprint, now)
        answer = tracked.note("192.0.2.1", fingerprint, now=now / 1000)

        assert oracle.distinct("192.0.2.1", latest) == answer.distinct


def test_the_same_key_replays_the_same() -> None:
    """Answers under pressure depend on the requests, their times and the key alone."""
    generator = random.Random(4)
    steps = [(random_address(generator), generator.getrandbits(64), i / 100) for i in range(5000)]
    first, second = (Trackers(ALL, key=b"replay") for _ in range(2))

    assert [first.note(a, f, now=n) for a, f, n in steps] == [second.note(a, f, now=n) for a, f, n in steps]


@pytest.mark.parametrize(("capacity", "expected"), [(1, 8), (8, 8), (9, 16), (10_000, 10_000)])
def test_memory_is_what_capacity_says(capacity: int, expected: int) -> None:
    """Whole sets of eight; ten thousand clients with every tracker on take less than 8 MB."""
    tracking = TrackerSettings(
        capacity, Limit(60.0, 50, "ban", 600.0), Limit(10.0, 200, "challenge", None), Surge(300, 600.0, 100, "ban", 1.0)
    )
    tracked = Trackers(tracking)

    assert expected == tracked.capacity
    assert tracked.nbytes < expected * 800


def test_threads_lose_no_request() -> None:
    """Requests that many threads note about one client are all counted."""
    tracked = fixed(TrackerSettings(8, request_rate=Limit(3600.0, 60_000, "ban", 1.0)))

    def hammer() -> None:
        for _ in range(5000):
            tracked.note("192.0.2.1", now=100)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert tracked.note("192.0.2.1", now=100).requests == 20_001


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_tracks_on() -> None:
    """The child has what the parent counted: nothing was being changed when the fork came."""
    tracked = fixed(ALL)
    tracked.note("192.0.2.1", now=100)
    child = os.fork()
    if child == 0:
        os._exit(tracked.note("192.0.2.1", now=100).requests)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 2
    assert tracked.note("192.0.2.1", now=100).requests == 2


def test_settings_that_do_not_fit_are_refused() -> None:
    """Limits out of range raise, and so does tracking nothing."""
    with pytest.raises(ValueError, match="nothing is tracked"):
        Trackers(TrackerSettings(8))
    with pytest.raises(ValueError, match="limit of distinct fingerprints is out of range"):
        Trackers(TrackerSettings(8, Limit(60.0, 2000, "ban", 1.0)))
    with pytest.raises(ValueError, match="ipv6_client=65"):
        Trackers(DISTINCT, ipv6_client=65)
    with pytest.raises(ValueError, match="address 'x' is not valid"):
        fixed(DISTINCT).note("x", now=1)


@given(data=st.data())
def test_exemptions_equal_a_scan(data: st.DataObject) -> None:
    """An address is exempt when a prefix covers it or its AS is listed."""
    nets = data.draw(st.lists(st.builds(
        lambda low, bits: ipaddress.ip_network((0x0A000000 | low >> (32 - bits) << (32 - bits), bits)),
        st.integers(0, 0xFFFF), st.integers(16, 32),
    ), max_size=6))  # fmt: skip
    asns = data.draw(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)).map(lambda p: (p[0], p[0] + p[1]))))
    packed = b"".join(b"\0" * 10 + b"\xff\xff" + net.network_address.packed for net in nets)
    exemption = Exemption(asns, PrefixList(packed, bytes(96 + net.prefixlen for net in nets)))
    address = ipaddress.ip_address(0x0A000000 | data.draw(st.integers(0, 0x1FFFF)))
    asn = data.draw(st.integers(0, 40))
    expected = any(address in net for net in nets) or any(first <= asn <= last for first, last in asns)

    assert expected == exemption.covers(str(address), asn)
