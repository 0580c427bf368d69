"""The follower: what the kernel drops is what the table bans, after whatever happened; who is never dropped."""

from __future__ import annotations

import random
import struct
import time
from ipaddress import ip_address, ip_network

import numpy as np
import pytest

from gobanfast import AsnTable, Engine, Ruleset
from gobanfast.frontends.kernel import guards
from gobanfast.frontends.kernel.bpf import KernelError
from gobanfast.frontends.kernel.daemon import Follower, RefusedError
from gobanfast.frontends.kernel.maps import GROUPS, Entry, key_text
from gobanfast.frontends.kernel.plan import prefixes_of, range_prefixes
from gobanfast.frontends.kernel.report import exposition
from gobanfast.frontends.kernel.xdp import VALUE
from kernel_lab import key, lone_drops, needs_bpf, verdict_of

NEAR = 0.05  # seconds from an end in which either answer is right
ASNS = {"198.51.2.0/23": 64500, "198.51.3.64/26": 64501, "2001:db8:0:3::/64": 64500}


def networks() -> AsnTable:
    keys = [key(text) for text in ASNS]
    return AsnTable.from_arrays(
        b"".join(packed for packed, _ in keys), bytes(bits for _, bits in keys), np.array([*ASNS.values()], np.uint32)
    )


def engine_of(*rules: str) -> Engine:
    text = "rules:\n" + "".join(f"  - {rule}\n" for rule in rules) if rules else "rules: []\n"
    return Engine(Ruleset.from_text(text, asn=networks()))


@pytest.fixture
def drops():
    needs_bpf()
    made = lone_drops(capacity=4096)
    made.attach, made.present, made.lost = lambda: None, lambda: True, list
    yield made
    made.close()


def follower(engine: Engine, drops, **options) -> Follower:
    """One that has started, and whose host has no addresses."""
    options = {"capacity": 4096, "host": frozenset, "sessions": frozenset, **options}
    made = Follower(engine, drops, **options)
    made.start()
    return made


def caught_up(made: Follower) -> None:
    """Takes in all there is."""
    made.step(0)


def held(drops) -> dict[str, float]:
    """Keys that are in the kernel, and their ends in Unix seconds (infinite: for good)."""
    found = {}
    shift = drops.clock.shift()
    for group in GROUPS:
        target = drops.maps[group]
        for keys, values in target.items():
            for i in range(len(keys) // target.key_bytes):
                packed = keys[i * target.key_bytes : (i + 1) * target.key_bytes]
                end = VALUE.unpack_from(values, i * VALUE.size)[0]
                found[text_of(group, packed)] = float("inf") if end == 2**64 - 1 else end / 1e9 - shift
    return found


def text_of(group: str, packed: bytes) -> str:
    if group in {"host4", "host6"}:
        return str(ip_address(packed))
    if group == "client6":
        return f"{ip_address(packed + bytes(8))}/64"
    (bits,) = struct.unpack_from("<I", packed)
    return f"{ip_address(packed[4:])}/{bits}"


def is_net(text: str) -> bool:
    return "/" in text and not (":" in text and text.endswith("/64"))


def expected_keys(engine: Engine) -> set[str]:
    """Brute force: every ban in force that no wider prefix outlasts; those of an AS are of its prefixes."""
    ends: dict[str, float] = {}
    for ban in engine.bans():
        if ban.key.startswith("gh2:"):
            continue
        end = float("inf") if ban.expires is None else ban.expires
        keys = [ban.key]
        if ban.key.startswith("AS"):
            keys = [key_text(found) for found in prefixes_of({int(ban.key[2:])}, engine.ruleset.asn)]
        for text in keys:
            ends[text] = max(end, ends.get(text, 0.0))
    nets = {text: ip_network(text) for text in ends}
    return {
        text
        for text, net in nets.items()
        if not any(
            is_net(wider) and other.version == net.version and other.prefixlen < net.prefixlen
            and net.subnet_of(other) and ends[wider] >= ends[text]
            for wider, other in nets.items()
        )
    }  # fmt: skip


def random_key(draw: random.Random) -> str:
    """Of a world so small that everything covers everything."""
    kind = draw.random()
    if kind < 0.03:
        return draw.choice(["AS64500", "AS64501"])
    if kind < 0.06:
        return f"gh2:{draw.randrange(4):032x}"
    if draw.random() < 0.6:
        bits = draw.choice([32] * 12 + [31, 30, 28, 26, 25, 24, 23, 22, 20])
        base = int(ip_address("198.51.0.0")) + draw.choice([0, 256, 512, 768]) + draw.randrange(256) // 8 * 8
        return str(ip_network((base, bits), strict=False)).removesuffix("/32")
    bits = draw.choice([128] * 5 + [64] * 5 + [96, 60, 56, 48, 40])
    base = int(ip_address("2001:db8::")) + (draw.randrange(4) << 64) + draw.randrange(6)
    return str(ip_network((base, bits), strict=False)).removesuffix("/128")


def random_address(draw: random.Random) -> str:
    if draw.random() < 0.6:
        return str(ip_address(int(ip_address("198.51.0.0")) + draw.randrange(1024) // 8 * 8))
    return str(ip_address(int(ip_address("2001:db8::")) + (draw.randrange(4) << 64) + draw.randrange(6)))


ALLOWS = (
    "{id: a, when: {prefix: 198.51.1.0/26}, action: allow}",
    "{id: b, when: {asn: 64501}, action: allow}",
    "{id: c, when: {prefix: [198.51.2.8/32, '2001:db8:0:1::/64']}, action: allow}",
    "{id: d, when: {prefix: 198.51.0.0/22, asn: 64500}, action: allow}",
)


def dropped_by(engine: Engine, address: str) -> bool | None:
    """Whether the engine bans it, by the table alone; None so near an end that either is right."""
    answer = engine.peek(address)
    now = engine.ban_table.offset + time.monotonic()
    for ban in engine.bans():
        if ban.expires is not None and abs(ban.expires - now) < NEAR:
            return None
    return answer.action == "ban"


@pytest.mark.parametrize(("seed", "steps"), [(1, 10_000), (2, 1500), (3, 1500)])
def test_kernel_set_equals_the_table(drops, seed, steps):
    """After any bans, unbans, extensions, expiries, swaps of allow rules and crashes of the follower the program drops
    the addresses that the engine bans; and once it has looked at the whole, exactly the entries that are needed."""
    draw = random.Random(seed)
    engine = engine_of()
    made = follower(engine, drops)
    asked = compared = 0
    for step in range(steps):
        act = draw.random()
        if act < 0.55:
            text = random_key(draw)
            duration = draw.choice([None, 0.2, 0.5, 3600, 3600 + draw.random(), 7200, 86400])
            engine.ban_table.ban(text, duration=duration, by=draw.choice(["manual", "rule", "tracker", "import"]))
        elif act < 0.9:
            present = [ban.key for ban in engine.bans()]
            if present:
                engine.ban_table.unban(draw.choice(present), maker=draw.choice(["manual", "store"]))
        elif act < 0.98:
            present = [ban for ban in engine.bans() if ban.expires is not None]
            if present:
                ban = draw.choice(present)
                engine.ban_table.extend(ban.key, expires=ban.expires + draw.choice([0.1, 100, 4000]))
        elif act < 0.99:
            chosen = [rule for rule in ALLOWS if draw.random() < 0.4]
            text = "rules:\n" + "".join(f"  - {rule}\n" for rule in chosen) if chosen else "rules: []\n"
            engine.swap(Ruleset.from_text(text, asn=engine.ruleset.asn))
        elif act < 0.995:
            engine.on_swap.clear()  # as if it was killed: maps stay, all else is gone
            drops._allowed = None
            made = follower(engine, drops)
        if step % draw.choice([1, 5, 30]) == 0:
            caught_up(made)
            for _ in range(3):
                address = random_address(draw)
                wanted = dropped_by(engine, address)
                asked += 1
                if wanted is not None:
                    compared += 1
                    found = verdict_of(drops, address)
                    assert (wanted, step, address) == (found, step, address)
    assert compared > asked / 2
    caught_up(made)
    made._reconcile()
    while any(ban.expires is not None and abs(ban.expires - time.time()) < 1 for ban in engine.bans()):
        time.sleep(0.1)
    made._reconcile()
    assert expected_keys(engine) == set(held(drops))


def test_a_prefix_takes_the_place_of_its_hosts(drops):
    """A /24 replaces its 50 host entries at once, and they come back when it is lifted."""
    engine = engine_of()
    made = follower(engine, drops)
    for i in range(50):
        engine.ban(f"203.0.113.{i}", duration=600)
    caught_up(made)
    assert 50 == len(held(drops))
    engine.ban("203.0.113.0/24", duration=3600)
    caught_up(made)
    assert {"203.0.113.0/24"} == set(held(drops))
    engine.ban("203.0.113.7", duration=7200)  # longer than the prefix
    engine.ban("203.0.113.77", duration=60)
    caught_up(made)
    assert {"203.0.113.0/24", "203.0.113.7"} == set(held(drops))
    engine.unban("203.0.113.3")
    engine.unban("203.0.113.0/24")
    caught_up(made)
    assert {f"203.0.113.{i}" for i in range(50) if i != 3} | {"203.0.113.77"} == set(held(drops))


def test_a_wide_prefix_takes_their_place_soon(drops):
    """A /12 and an IPv6 /48 do so when the feed is quiet."""
    engine = engine_of()
    made = follower(engine, drops)
    for i in range(5):
        engine.ban(f"203.0.{i}.1", duration=600)
        engine.ban(f"2001:db8:7:{i}::/64", duration=600)
    engine.ban("203.0.0.0/12", duration=3600)
    engine.ban("2001:db8:7::/48", duration=3600)
    end = time.monotonic() + 30
    wanted = {"203.0.0.0/12", "2001:db8:7::/48"}
    while set(held(drops)) != wanted and time.monotonic() < end:
        made.step(0.1)
    assert wanted == set(held(drops))


def test_restart_leaves_what_is_right(drops):
    """A new follower removes what was lifted meanwhile, adds what came, and touches nothing else: hits stay."""
    engine = engine_of()
    follower(engine, drops)
    engine.ban("203.0.113.1", duration=600)
    engine.ban("203.0.113.2", duration=600)
    first = follower(engine, drops)
    caught_up(first)
    assert verdict_of(drops, "203.0.113.1")
    engine.unban("203.0.113.2")
    engine.ban("203.0.113.3", duration=600)
    drops.generation += 1
    follower(engine, drops)
    assert {"203.0.113.1", "203.0.113.3"} == set(held(drops))
    assert {key("203.0.113.1"): 1, key("203.0.113.3"): 0} == drops.hits([key("203.0.113.1"), key("203.0.113.3")])


def test_unread_store_lifts_nothing(drops):
    """While the store was not read since the start, what an earlier process put into the kernel stays."""

    class Sync:
        store = type("Store", (), {"uri": "sqlite:bans.db"})
        read = False

        def ready(self, timeout):
            return self.read

    drops.put({key("203.0.113.1"): Entry(float("inf"), 1)})
    engine = engine_of()
    engine.sync = Sync()
    made = follower(engine, drops)
    made.step(0)
    assert {"203.0.113.1"} == set(held(drops))
    Sync.read = True
    end = time.monotonic() + 30
    while held(drops) and time.monotonic() < end:
        made.step(0.1)
    assert {} == held(drops)


def test_full_set_keeps_the_longest():
    """Of more bans than there is room for the kernel has those that last longest; how many are not there is known."""
    needs_bpf()
    drops = lone_drops(capacity=20)
    drops.attach, drops.present, drops.lost = lambda: None, lambda: True, list
    try:
        engine = engine_of()
        made = follower(engine, drops, capacity=20)
        for i in range(30):
            engine.ban(f"203.0.113.{i}", duration=1000 + 100 * (i * 7 % 30))
        end = time.monotonic() + 30
        made.step(0)
        while made.plan.stale and time.monotonic() < end:
            made.step(0.1)
        longest = sorted(engine.bans(), key=lambda ban: -ban.expires)[:20]
        assert {ban.key for ban in longest} == set(held(drops))
        assert made.plan.left_out == 10
        assert "gobanfast_kernel_left_out 10" in exposition(drops.status(), made)
        for ban in longest[:10]:
            engine.unban(ban.key)
        made.step(0)
        made._reconcile()
        assert {ban.key for ban in engine.bans()} == set(held(drops))
        assert made.plan.left_out == 0
    finally:
        drops.close()


def test_unban_and_allow_reach_the_kernel_in_one_step(drops):
    """A lift and a swap of rules wake the follower: no waiting for a tick."""
    engine = engine_of()
    made = follower(engine, drops)
    engine.ban("203.0.113.9", duration=600)
    caught_up(made)
    assert verdict_of(drops, "203.0.113.9")
    engine.swap(
        Ruleset.from_text("rules:\n  - {id: vip, when: {prefix: 203.0.113.9/32}, action: allow}\n", asn=networks())
    )
    caught_up(made)
    assert not verdict_of(drops, "203.0.113.9")
    engine.swap(Ruleset.from_text("rules: []\n", asn=networks()))
    caught_up(made)
    assert verdict_of(drops, "203.0.113.9")
    engine.unban("203.0.113.9")
    caught_up(made)
    assert not verdict_of(drops, "203.0.113.9")


def test_host_and_sessions_are_allowed(drops):
    """Own addresses, gateways, resolvers and trust pass whole; administrators at their ports."""
    engine = Engine(Ruleset.from_text("trust: [192.0.2.0/28]\nrules: []\n"))
    for text in ("192.0.2.5", "203.0.113.53", "203.0.113.99"):
        engine.ban(text, duration=600, wide=True)
    follower(engine, drops, host=lambda: frozenset({key("203.0.113.53")}), direct=True,
             sessions=lambda: frozenset({key("203.0.113.99")[0]}))  # fmt: skip

    assert [False, False, True] == [verdict_of(drops, text) for text in ("192.0.2.5", "203.0.113.53", "203.0.113.99")]


def test_proxies_elsewhere_refuse(drops):
    """With proxies of other hosts in trust nothing drops; with one on this host it does."""
    with pytest.raises(RefusedError, match=r"trust: names proxies on other hosts \(192.0.2.0/28\).*--doctor"):
        follower(Engine(Ruleset.from_text("trust: [192.0.2.0/28]\nrules: []\n")), drops)
    here = Engine(Ruleset.from_text("trust: [127.0.0.0/8]\nrules: []\n"))
    follower(here, drops, host=lambda: frozenset({key("127.0.0.0/8")}))


def test_rules_out_of_sight_refuse(drops):
    """An allow rule on more than the address refuses, by its id, until it is named; so does one that comes later."""
    path = "{id: hooks, when: {path: /hooks/**}, action: allow}"
    engine = engine_of(path)
    engine.ban("203.0.113.9", duration=600)
    with pytest.raises(RefusedError, match="--ignore-allow hooks"):
        follower(engine, drops)
    made = follower(engine, drops, ignore_allow=frozenset({"hooks"}))
    assert verdict_of(drops, "203.0.113.9")
    engine.swap(Ruleset.from_text("rules:\n  - {id: late, when: {method: GET}, action: allow}\n"))
    made.step(0)
    assert not verdict_of(drops, "203.0.113.9")


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        ("prefix: 192.0.2.0/24", {"192.0.2.0/24"}),
        ("asn: 64500", {"198.51.2.0/24", "198.51.3.0/26", "198.51.3.128/25", "2001:db8:0:3::/64"}),
        ("prefix: 198.51.3.0/24, asn: 64500", {"198.51.3.0/26", "198.51.3.128/25"}),
        ("asn_name: '^AS64501'", {"198.51.3.64/26"}),
        ("prefix: 192.0.2.0/24, sni: a.example", None),
        ("outside: 192.0.2.0/24", None),
        ("prefix: 192.0.2.0/24, not: {asn: 64500}", None),
    ],
)
def test_allow_rules_that_packets_show(rule, seen):
    """Address, prefix and AS, alone or together, are prefixes; whatever else a rule asks for is out of sight."""
    engine = engine_of(f"{{id: r, when: {{{rule}}}, action: allow}}")
    found, unseen = guards.allow_rules(engine.ruleset, engine.ruleset.asn)

    assert (seen or set(), [] if seen else ["r"]) == ({key_text(each) for each in found}, unseen)


def test_shadow_allow_rules_are_none():
    """A rule in shadow allows nobody."""
    engine = engine_of("{id: r, when: {prefix: 192.0.2.0/24}, action: allow, mode: shadow}")

    assert (frozenset(), []) == guards.allow_rules(engine.ruleset, None)


def test_range_prefixes_cover_a_range():
    """Prefixes of a range are disjoint, and together the range."""
    draw = random.Random(5)
    for _ in range(200):
        first = draw.randrange(1 << 10)
        last = first + draw.randrange(1 << 10)
        covered = []
        for packed, bits in range_prefixes(first, last):
            start = int.from_bytes(packed, "big")
            covered += range(start, start + (1 << (128 - bits)))
        assert list(range(first, last + 1)) == covered


def test_utmp_peers_are_of_sessions_alone():
    """Of a utmp file the peers of user processes count, both families, and nothing of damaged records."""

    def record(kind: int, words: bytes) -> bytes:
        return struct.pack(
            "<hxxi32s4s32s256shhiii16s20s", kind, 1, b"pts/0", b"0", b"root", b"h", 0, 0, 1, 0, 0, words, b""
        )

    four = bytes([203, 0, 113, 9]) + bytes(12)
    six = ip_address("2001:db8::9").packed
    data = record(7, four) + record(8, bytes([203, 0, 113, 10]) + bytes(12)) + record(7, six) + record(7, bytes(16))

    assert [key("203.0.113.9")[0], six] == list(guards.utmp_peers(data + b"half a record"))


def test_mode_reset_is_of_nftables():
    """XDP cannot answer packets, and says so."""
    from gobanfast.frontends.kernel.xdp import XdpDrops

    with pytest.raises(KernelError, match=r"reset.*--nft"):
        XdpDrops.make(("lo",), capacity=16, mode="reset")


@pytest.mark.parametrize(
    ("findings", "counts", "problem"),
    [
        ([], {"requests": 20}, None),
        ([("no-trust", "note")], {"requests": 500, "chains": 3}, None),
        ([], {"requests": 19}, "19 requests, and needs 20"),
        ([], {}, "0 requests"),
        ([], {"requests": 500, "believed": 1}, "1 of 500 requests came through proxies"),
        ([("one-peer", "warning")], {"requests": 500}, "one-peer: what; advice"),
        ([("asn-stale", "warning")], {"requests": 500}, None),
    ],
)
def test_doctor_proves_that_clients_connect_directly(monkeypatch, findings, counts, problem):
    """Only a Doctor that has seen enough requests, none through proxies, and nothing that hides clients."""
    pytest.importorskip("typer")
    from gobanfast.cli.kernel import _proved
    from gobanfast.frontends.doctor import Finding

    found = [Finding(code, severity, "what", "advice") for code, severity in findings]
    monkeypatch.setattr("gobanfast.frontends.doctor.consult", lambda *_: found)
    monkeypatch.setattr("gobanfast.frontends.doctor.consulted", lambda *_: counts)
    if problem is None:
        assert _proved("http://127.0.0.1/")
    else:
        with pytest.raises(RefusedError, match=problem):
            _proved("http://127.0.0.1/")
