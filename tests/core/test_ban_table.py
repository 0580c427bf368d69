"""BanTable against a dict that asks every ban: answers, expiry, escalation, full tables, clocks."""

from __future__ import annotations

import ipaddress
import random
import re
import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gobanfast import Ban, BanTable
from gobanfast._core.enums import MAKERS
from gobanfast.bans import client_key
from gobanfast.rules.settings import Escalation
from oracle import bans as oracle

FINGERPRINTS = [f"gh2:{digit * 32}" for digit in "0f"]
CLIENTS = ["203.0.113.7", "2001:db8::/64", "2001:db8::/56", "2001:db8::/48", "64:ff9b::/64"]
ADDRESSES = st.sampled_from(
    ["203.0.113.7", "203.0.113.8", "203.0.114.7", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2001:db8:1::1",
     "64:ff9b::cb00:7107", "2002:cb00:7107::1", "2001::cb00:7101:0:fffe:34ff:8ef8",
     "64:ff9b::1:0:0", "::ffff:203.0.113.7", "::",
     "0.0.0.0"]  # noqa: S104 - an address like any other
).map(ipaddress.ip_address)  # fmt: skip
REQUESTS = st.builds(
    oracle.Request, st.none() | ADDRESSES, st.sampled_from([0, 64500, 64501]), st.none() | st.sampled_from(FINGERPRINTS)
)
KEYS = st.one_of(
    st.builds(
        lambda address, bits: oracle.text(oracle.prefix(address, min(bits, address.max_prefixlen))),
        ADDRESSES.map(oracle.canonical),
        st.sampled_from([128, 128, 64, 56, 48, 32, 32, 31, 24, 20, 16, 8, 1, 0]),
    ),
    st.sampled_from(["AS64500", "AS64501", *FINGERPRINTS]),
    st.builds(lambda print_, at: f"{print_}@{at}", st.sampled_from(FINGERPRINTS), st.sampled_from(CLIENTS)),
)
TIMES = st.integers(1, 20_000).map(lambda ms: ms / 1000)  # whole milliseconds, so that the dict's sums are exact enough
BY = st.sampled_from(["manual", "rule", "tracker", "import", "store"])
DAY = 86_400.0


def table(**arguments: object) -> BanTable:
    """A table whose engine time is Unix time, and whose clock nobody reads."""
    return BanTable(clock=lambda: 0.0, offset=0.0, **arguments)  # type: ignore[arg-type]


def whole(seconds: float) -> float:
    """The nearest whole millisecond."""
    return round(seconds * 1000) / 1000


class Agreement(RuleBasedStateMachine):
    """Whatever is called in whatever order, the table answers as the dict does, at the millisecond."""

    @initialize(escalate=st.sampled_from([None, Escalation(2.0, 60.0, 0.0, 30.0), Escalation(1.5, 5.0, 0.0, 5.0)]))
    def make(self, escalate: Escalation | None) -> None:
        self.now = 1_000_000.0
        self.table = table(capacity=1000, escalate=escalate)
        self.model = oracle.Table()
        if escalate:
            self.model = oracle.Table(escalate.factor, escalate.cap, escalate.memory)
        _, self.first = self.table.changes()
        self.cursors = [self.first] * 3

    @rule(by=TIMES | st.just(0.0))
    def wait(self, by: float) -> None:
        self.now = whole(self.now + by)

    @rule(key=KEYS, duration=TIMES | st.none(), reason=st.sampled_from(["", "a", "b"]), by=BY)
    def ban(self, key: str, duration: float | None, reason: str, by: str) -> None:
        expected = self.model.ban(key, duration, reason, reason or None, by, self.now)

        assert expected == self.table.ban(
            key, duration=duration, reason=reason, rule=reason or None, by=by, now=self.now
        )

    @rule(
        key=KEYS, after=st.integers(-5_000, 20_000), count=st.integers(1, 9), permanent=st.booleans(), by=BY, maker=BY
    )
    def put(self, key: str, after: int, count: int, permanent: bool, by: str, maker: str) -> None:
        expires = None if permanent else whole(self.now + after / 1000)
        ban = Ban(key, "put", "there", whole(self.now - 7.5), expires, count, by)
        self.model.put(ban, maker, self.now)

        assert self.table.put(ban, maker=maker, now=self.now)

    @rule(key=KEYS, after=TIMES | st.none(), maker=BY)
    def extend(self, key: str, after: float | None, maker: str) -> None:
        expires = None if after is None else whole(self.now + after)
        expected = self.model.extend(key, expires, maker, self.now)

        assert expected == self.table.extend(key, expires=expires, maker=maker, now=self.now)

    @rule(key=KEYS, maker=BY)
    def unban(self, key: str, maker: str) -> None:
        assert self.model.unban(key, maker, self.now) == self.table.unban(key, maker=maker, now=self.now)

    @rule(reader=st.integers(0, 2), limit=st.integers(1, 9), skip=st.none() | BY)
    def follow(self, reader: int, limit: int, skip: str | None) -> None:
        """Each of several readers is told of what happened since it last asked, in order, and nothing else."""
        since = self.cursors[reader]
        told, self.cursors[reader] = self.table.changes(since, limit=limit, skip=skip)
        until = min(since + limit, self.first + len(self.model.events))
        events = self.model.events[since - self.first : until - self.first]

        assert until == self.cursors[reader]
        assert told is not None
        assert [event for event in events if event.maker != skip] == [
            oracle.Event(change.event, change.ban, change.maker, change.at) for change in told
        ]
        assert {"ban"} >= {change.kind for change in told}
        assert all(since < change.position <= until for change in told)

    @rule()
    def purge(self) -> None:
        self.table.purge(now=self.now)

        assert len(self.model.bans(self.now)) == len(self.table)

    @rule(key=KEYS, ahead=st.just(0.0) | TIMES)
    def get(self, key: str, ahead: float) -> None:
        """A look ahead changes nothing."""
        assert self.model.get(key, self.now + ahead) == self.table.get(key, now=self.now + ahead)

    @rule(request=REQUESTS)
    def lookup(self, request: oracle.Request) -> None:
        address = None if request.address is None else str(request.address)
        expected = self.model.lookup(request, self.now)

        assert expected == self.table.lookup(address, asn=request.asn, fingerprint=request.fingerprint, now=self.now)

    @invariant()
    def same_bans(self) -> None:
        if hasattr(self, "table"):
            found = list(self.table.bans(now=self.now))

            assert self.model.bans(self.now) == {ban.key: ban for ban in found}
            assert len({ban.key for ban in found}) == len(found)


Agreement.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TestAgreement = Agreement.TestCase


@given(
    bans=st.dictionaries(KEYS, TIMES | st.none(), max_size=25),
    requests=st.lists(REQUESTS, min_size=1, max_size=10),
    now=TIMES,
)
def test_lookup_asks_every_key(bans: dict[str, float | None], requests: list[oracle.Request], now: float) -> None:
    """Every key of a request is asked for, embedded addresses too; the ban that lasts longest answers."""
    ours, model = table(), oracle.Table()
    for key, duration in bans.items():
        ours.ban(key, duration=duration, now=0.0)
        model.ban(key, duration, "", None, "manual", 0.0)

    for request in requests:
        address = None if request.address is None else request.address.exploded
        expected = model.lookup(request, now)

        assert expected == ours.lookup(address, asn=request.asn, fingerprint=request.fingerprint, now=now)


def test_a_client_s_ban_finds_the_client() -> None:
    """What `client_key` names is banned by that key, with a fingerprint or without."""
    for address in ["203.0.113.7", "2001:db8::1", "64:ff9b::cb00:7107", "2002:cb00:7107::1"]:
        bans = table()
        bans.ban(client_key(address), duration=10, now=0)
        bans.ban(f"{FINGERPRINTS[0]}@{client_key(address)}", duration=20, now=0)

        assert client_key(address) == getattr(bans.lookup(address, now=0), "key", None)
        assert f"{FINGERPRINTS[0]}@{client_key(address)}" == getattr(
            bans.lookup(address, fingerprint=FINGERPRINTS[0], now=0), "key", None
        )
        assert bans.lookup("203.0.114.7", fingerprint=FINGERPRINTS[0], now=0) is None


@pytest.mark.parametrize("duration", [0.001, 0.0004, 1.0, 1.001, 0.1, 3600.0, 31_536_000.0])
@pytest.mark.parametrize("start", [0.0, 0.1, 1_000.001, 1_764_000_000.123, -5.0])
def test_expiry_is_exact_to_the_millisecond(duration: float, start: float) -> None:
    """A ban holds in every millisecond before start + duration and in none after; parts of one are rounded up."""
    bans = table()
    ban = bans.ban("192.0.2.1", duration=duration, now=start)
    last = round(start * 1000) + max(1, round(duration * 1000)) - 1

    assert ban is not None
    assert (last + 1) / 1000 == ban.expires
    assert bans.lookup("192.0.2.1", now=last / 1000) == ban
    assert bans.lookup("192.0.2.1", now=(last + 1) / 1000) is None


def test_permanent_bans_do_not_end() -> None:
    """`duration=None`, infinity and centuries are for good."""
    bans = table()
    for number, duration in enumerate([None, float("inf"), 7e10]):
        bans.ban(f"192.0.2.{number}", duration=duration, now=0)

    assert [None] * 3 == [ban.expires for ban in bans.bans(now=5.9e10)]
    assert 0 == bans.purge(now=5.9e10)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_clock_jumps_change_no_ban(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """The wall clock is read once, when the table is made: setting it ends no ban, moves none and lengthens none."""
    import time

    engine, wall = [50.0], [1_764_000_000.0]
    monkeypatch.setattr(time, "time", lambda: wall[0])
    bans = BanTable(clock=lambda: engine[0])
    made = [bans.ban(f"192.0.2.{i}", duration=60 + i) for i in range(100)]
    wall[0] += jump

    assert 1_764_000_000.0 - 50.0 == bans.offset
    assert made == sorted(bans.bans(), key=lambda ban: ban.expires or 0)
    assert 0 == bans.purge()
    engine[0] += 59.999
    assert 100 == len(list(bans.bans()))
    engine[0] += 0.001
    assert 1 == bans.purge()
    assert bans.get("192.0.2.0") is None
    assert 1_764_000_061.0 == getattr(bans.get("192.0.2.1"), "expires", None)


def test_bans_travel_between_tables() -> None:
    """What one table hands out another with another clock takes over, and ends it at the same Unix time."""
    here = BanTable(clock=lambda: 10.0, offset=1_764_000_000.0)
    there = BanTable(clock=lambda: 900.0, offset=1_763_999_110.5)  # half a second ahead
    here.ban("2001:db8::/56", duration=61.5, reason="why", rule="r", by="rule")

    for ban in here.bans():
        assert there.put(ban)
    assert list(here.bans()) == list(there.bans())
    assert there.get("2001:db8::/56", now=900 + 60.999) is not None
    assert there.get("2001:db8::/56", now=900 + 61) is None


def test_each_ban_in_a_row_lasts_longer() -> None:
    """1, 2, 4, 8 times what was asked, up to the cap; by hand it is as asked; after `memory` seconds it is 1 again."""
    bans = table(escalate=Escalation(factor=2.0, cap=3600.0, jitter=0.0, memory=DAY))
    now, lengths = 0.0, []
    for _ in range(9):
        ban = bans.ban("192.0.2.1", duration=60, by="tracker", now=now)
        assert ban is not None
        assert ban.expires is not None
        lengths.append(ban.expires - now)
        now = ban.expires + DAY - 0.001

    assert [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0, 3600.0] == pytest.approx(lengths)
    by_hand = bans.ban("192.0.2.1", duration=60, now=now)
    assert (10, now + 60) == (by_hand and by_hand.count, pytest.approx(by_hand and by_hand.expires))
    later = bans.ban("192.0.2.1", duration=60, by="rule", now=now + 60 + DAY)
    assert (1, now + 120 + DAY) == (later and later.count, pytest.approx(later and later.expires))
    longer = bans.ban("192.0.2.2", duration=7200, by="rule", now=now)
    assert now + 7200 == pytest.approx(longer and longer.expires)  # more than the cap, as asked


def test_a_ban_in_force_counts_once() -> None:
    """Two threads that ban the same client at the same moment do not make it the second time in a row."""
    bans = table(escalate=Escalation(jitter=0.0))
    for _ in range(3):
        bans.ban("192.0.2.1", duration=60, by="rule", now=0)

    assert Ban("192.0.2.1", "", None, 0.0, 60.0, 1, "rule") == bans.get("192.0.2.1", now=0)


def test_unban_forgets() -> None:
    """A key that was lifted starts again at one."""
    bans = table(escalate=Escalation(jitter=0.0))
    bans.ban("192.0.2.1", duration=60, by="rule", now=0)
    bans.unban("192.0.2.1", now=1)

    assert 1 == getattr(bans.ban("192.0.2.1", duration=60, by="rule", now=2), "count", 0)


def test_jitter_is_random_and_repeatable() -> None:
    """A later ban in a row takes up to `jitter` more, evenly spread; the same seed draws the same, in any order."""
    escalate = Escalation(factor=2.0, cap=DAY, jitter=0.1, memory=DAY)

    def lengths(keys: list[int], seed: int | None) -> dict[int, float]:
        bans, found = table(escalate=escalate, seed=seed), {}
        for key in keys:
            bans.ban(f"198.51.100.{key}", duration=100, by="rule", now=0)
            second = bans.ban(f"198.51.100.{key}", duration=100, by="rule", now=100)
            found[key] = (second.expires if second and second.expires else 0.0) - 100
        return found

    one = lengths(list(range(200)), seed=1)
    assert one == lengths(list(range(199, -1, -1)), seed=1)
    assert one != lengths(list(range(200)), seed=2)
    assert lengths([1], None) != lengths([1], None)
    assert all(200 <= length < 220 for length in one.values())
    assert [40] * 5 == pytest.approx(
        [sum(204 + 4 * i - 4 <= n < 204 + 4 * i for n in one.values()) for i in range(5)], abs=22
    )


def test_full_table_refuses_and_says_so() -> None:
    """By default a flood of bans changes nothing about the ones in force: it is refused, counted and seen."""
    bans = table(capacity=100)
    kept = [bans.ban(f"10.0.0.{i}", duration=60, now=0) for i in range(100)]

    assert bans.saturated
    assert [None] * 1000 == [bans.ban(f"10.1.{i // 250}.{i % 250}", duration=None, now=1) for i in range(1000)]
    assert not bans.put(Ban("AS64500", expires=500.0), now=1)
    assert bans.ban("10.0.0.5", duration=90, now=1) is not None  # no new key
    assert bans.put(Ban("10.0.0.6", expires=500.0), now=1)
    assert 98 == sum(ban in kept for ban in bans.bans(now=1))
    assert 1001 == bans.stats()["refused"]
    assert bans.ban("10.2.0.1", duration=60, now=60) is not None  # ended ones made room
    assert not bans.saturated


def test_full_table_may_evict_the_soonest_to_end() -> None:
    """`on_full="evict"`: the ban that ends first gives way to one that ends later; permanent ones never do."""
    bans = table(capacity=50, on_full="evict")
    for i in range(50):
        bans.ban(f"10.0.0.{i}", duration=None if i < 10 else 1000 - i, now=0)

    assert bans.ban("10.1.0.0", duration=900, now=0) is None  # ends before all others
    for i in range(40):
        before = set(bans.bans(now=0))
        bans.ban(f"10.1.0.{i}", duration=2000 + i, now=0)
        (gone,) = before - set(bans.bans(now=0))
        assert min(ban.expires for ban in before if ban.expires) == gone.expires
    assert {f"10.0.0.{i}" for i in range(10)} == {ban.key for ban in bans.bans(now=5e9)}
    assert 40 == bans.stats()["evicted"]


def test_memory_of_ended_bans_gives_way_first() -> None:
    """A full table forgets ended bans, the oldest first, before it refuses or evicts one that holds."""
    bans = table(capacity=10, escalate=Escalation(jitter=0.0, memory=DAY))
    for i in range(10):
        bans.ban(f"10.0.0.{i}", duration=1 + i, by="rule", now=0)
    for i in range(5):
        assert bans.ban(f"10.1.0.{i}", duration=60, by="rule", now=20) is not None

    assert [2] * 5 == [
        getattr(bans.ban(f"10.0.0.{i}", duration=60, by="rule", now=20), "count", 0) for i in range(5, 10)
    ]
    assert bans.ban("10.0.0.0", duration=60, by="rule", now=20) is None
    assert {"bans": 10, "remembered": 0} == {key: bans.stats()[key] for key in ("bans", "remembered")}


def test_policy_can_change() -> None:
    """`configure` holds for bans made afterwards, as after a reload of the rules."""
    bans = table(capacity=1)
    bans.ban("10.0.0.1", duration=60, now=0)
    assert bans.ban("10.0.0.2", duration=90, now=0) is None
    bans.configure(on_full="evict", escalate=Escalation(jitter=0.0))

    assert bans.ban("10.0.0.2", duration=90, by="rule", now=0) is not None
    assert 180.0 + 90 == getattr(bans.ban("10.0.0.2", duration=90, by="rule", now=90), "expires", None)


def test_reasons_beyond_the_room_are_counted_and_come_back() -> None:
    """65,535 texts at a time; those of bans that went make room, and a reason that found none is counted."""
    bans = table()
    for i in range(65_535):
        bans.ban(f"10.0.{i >> 8}.{i & 255}", duration=60 if i < 100 else None, reason=f"reason {i}", now=0)
    bans.ban("10.9.0.1", duration=None, reason="one more", now=1)

    assert "" == getattr(bans.get("10.9.0.1", now=1), "reason", None)
    assert "reason 99" == getattr(bans.get("10.0.0.99", now=1), "reason", None)
    assert (65_535, 1) == (bans.stats()["texts"], bans.stats()["texts_lost"])
    bans.purge(now=60)
    for i in range(4096):
        bans.ban("10.9.0.2", duration=60 + i, reason=f"later {i}", now=60)
    assert "later 4095" == getattr(bans.get("10.9.0.2", now=60), "reason", None)
    assert "reason 100" == getattr(bans.get("10.0.0.100", now=60), "reason", None)
    assert 4096 == bans.stats()["texts_lost"]


def test_a_reason_known_before_stays_the_bans_own_when_its_rule_needs_room() -> None:
    """Room for the rule's text is made of texts that no ban names; the reason of the ban being made is none of them."""
    bans = table()
    for i in range(65_535):
        bans.ban("10.0.0.1", duration=60 + i, reason=f"reason {i}", now=0)
    bans.unban("10.0.0.1", now=0)
    made = bans.ban("10.0.0.2", duration=60, reason="reason 65534", rule="new", now=0)
    bans.ban("10.0.0.3", duration=60, reason="other", now=0)

    assert ("reason 65534", "new") == (getattr(made, "reason", None), getattr(made, "rule", None))
    assert "reason 65534" == getattr(bans.get("10.0.0.2", now=0), "reason", None)


def test_long_reasons_are_cut() -> None:
    """The first 200 characters of a reason are kept: texts have a budget, too."""
    bans = table()

    assert "x" * 200 == getattr(bans.ban("10.0.0.1", duration=1, reason="x" * 1000, now=0), "reason", None)


def test_growth_and_churn_lose_nothing() -> None:
    """Through every size of the index, up and down and up, exactly what was banned and not lifted is found."""
    bans, keys, draw = table(capacity=40_000), set[str](), random.Random(1)
    for goal in (40_000, 100, 30_000):
        while len(keys) < goal:
            key = str(ipaddress.IPv4Address(draw.getrandbits(32)))
            assert bans.ban(key, duration=None, now=0) is not None
            keys.add(key)
        while len(keys) > goal:
            assert bans.unban(keys.pop(), now=0) is not None

        assert keys == {ban.key for ban in bans.bans(now=0)}
        assert all(bans.lookup(key, now=0) is not None for key in keys)
    assert (
        sum(bans.lookup(str(ipaddress.IPv4Address(draw.getrandbits(32))), now=0) is not None for _ in range(9999)) <= 2
    )


def test_capacity_one() -> None:
    """The smallest table works."""
    bans = table(capacity=1)

    assert bans.ban("2001:db8::/64", duration=1, now=0) is not None
    assert bans.ban("AS64500", duration=1, now=0) is None
    assert bans.lookup("2001:db8::9", now=0) is not None
    assert bans.ban("AS64500", duration=1, now=1) is not None


MISUSE = [
    (lambda: BanTable(capacity=0), "capacity=0 is not 1 to 16777215"),
    (lambda: BanTable(on_full="drop"), "on_full='drop' is not one of refuse, evict"),  # type: ignore[arg-type]
    (lambda: BanTable(escalate=Escalation(factor=0.5)), "does not fit; factor is 1 to 1000, jitter 0 to 1"),
    (lambda: table().ban("10.0.0.1", duration=0), "duration 0 is not a positive number of seconds; None is for good"),
    (lambda: table().ban("10.0.0.1", duration=float("nan")), "duration nan is not a positive number"),
    (
        lambda: table().ban("10.0.0.1", duration=1, by="me"),
        "by='me' is not one of manual, rule, tracker, import, store",
    ),
    (lambda: table().ban("10.0.0.1/8", duration=1), "prefix '10.0.0.1/8' has host bits set; write 10.0.0.0/8"),
    (lambda: table().get("nobody"), "ban key 'nobody' is not valid"),
    (lambda: table().get("10.0.0.1", now=float("nan")), "now=nan is no time in seconds"),
]


@pytest.mark.parametrize(("call", "message"), MISUSE)
def test_misuse_says_what_to_write(call, message: str) -> None:
    """Arguments that cannot be meant are refused with their value."""
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_requests_without_a_readable_address_are_asked_about_the_rest() -> None:
    """An address text that is none bans nobody by address, and is no error."""
    bans = table()
    bans.ban("0.0.0.0/0", duration=1, now=0)
    bans.ban("AS64500", duration=1, now=0)

    assert [None, None, "AS64500"] == [
        getattr(bans.lookup(address, asn=asn, now=0), "key", None)
        for address, asn in [("", 0), ("1.2.3", 64501), ("nonsense", 64500)]
    ]


def test_order_of_expiry_is_kept_by_purge() -> None:
    """However long the backlog, each purge ends all that is over at its time and nothing else."""
    bans, draw = table(), random.Random(2)
    ends = [draw.randint(1, 5_000) for _ in range(5_000)]
    for i, end in enumerate(ends):
        bans.ban(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", duration=end / 1000, now=0)

    for before, now in pairwise(range(0, 5_500, 500)):
        assert sum(before < end <= now for end in ends) == bans.purge(now=now / 1000)
        assert sum(now < end for end in ends) == len(bans)


def test_packed_is_all_bans_in_columns() -> None:
    """`packed` has every ban of an address or prefix with its bits, end and maker; others as they are."""
    table = BanTable(capacity=100, clock=lambda: 0.0, offset=1000.0)
    made = {
        "192.0.2.7": ("00000000000000000000ffffc0000207", 128, 1010.0, "manual"),
        "192.0.2.0/24": ("00000000000000000000ffffc0000200", 120, float("inf"), "rule"),
        "2001:db8::1": ("20010db8000000000000000000000001", 128, 1020.5, "tracker"),
        "2001:db8::/64": ("20010db8000000000000000000000000", 64, 1030.0, "import"),
    }
    for key, (_, _, end, by) in made.items():
        table.put(Ban(key, "", None, 1000.0, None if end == float("inf") else end, 1, by))
    table.ban("AS64500", duration=5)
    table.ban(f"gh2:{7:032x}", duration=5)
    addresses, bits, ends, makers, others = table.packed()
    rows = {
        (addresses[16 * i : 16 * i + 16].hex(), bits[i], struct.unpack_from("<d", ends, 8 * i)[0], MAKERS[makers[i]])
        for i in range(len(bits))
    }
    assert set(made.values()) == rows
    assert {"AS64500", f"gh2:{7:032x}"} == {ban.key for ban in others}
    assert bytes([120]) == table.packed(now=2000.0)[1]  # the one for good
