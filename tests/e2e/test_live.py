"""The whole decision: rules, bans, trackers and score in their order, against the oracle; threads, forks, clocks.

Past 500 lines, because all of it is one order, told of by one oracle."""

from __future__ import annotations

import ipaddress
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gobanfast import Decision, Engine, GobanError, Ruleset, fingerprint
from gobanfast._core.headers import HeaderPlan
from oracle.live import OracleEngine
from oracle.requests import OracleRequest
from oracle.rules import OracleNetworks, OracleRule, OracleSignals
from rules_fakes import FakeAsnTable

# More requests for a long run by hand: 200,000 take some minutes.
REQUESTS = int(os.environ.get("GOBANFAST_REQUESTS", "4000"))
EACH = 400  # requests for one ruleset

NETWORKS = OracleNetworks((("10.0.0.0/8", 1), ("10.7.0.0/16", 2), ("192.0.2.0/24", 3), ("2001:db8::/32", 4)))
CLIENTS = (
    *(f"10.{a}.0.{b}" for a in (0, 7) for b in range(1, 9)), "192.0.2.1", "192.0.2.2", "198.51.100.4",
    "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.2", "2002:a00:3::1",
)  # fmt: skip
NAMES = (None, "www.example", "api.example", "x.evil.example", "WWW.example.", "a..b", "www.exarnple", "evi1.example")
HOSTS = (b"www.example", b"WWW.example.:443", b"api.example", b"x.evil.example", b"evil-.example", b"192.0.2.1", b"a b")
AGENTS = (b"curl/8.5.0", b"Mozilla/5.0 (X11) Firefox/150.0", b"sqlmap/1.8", b"Googlebot/2.1")
CERTIFICATE = ("www.example", "*.evil.example")
JA4S = (
    *[None] * 6, "t13d1516h2_8daaf6152771_02713d6af862", "q13i0310h3_55b375c5d22e_cd85d2d88918", "t13d1516h2_8daaf6"
)  # fmt: skip
PATHS = ("/", "/wp-login.php", "/api/v1/items", "/.env")
DAY = 86400.0


def some_rules(rng: random.Random) -> list[OracleRule]:
    """A handful of rules over everything that CLIENTS, NAMES, AGENTS and PATHS differ in."""
    found = []
    for number in range(rng.randint(1, 7)):
        conditions: dict[str, Any] = {
            "prefix": tuple(rng.sample(["10.0.0.0/29", "10.7.0.0/16", "2001:db8::/64", "192.0.2.1/32"], 2)),
            "asn": tuple((number, number) for number in rng.sample([1, 2, 3, 4], 2)),
            "sni": tuple(rng.sample(["*.evil.example", "www.example", "absent", "malformed"], 2)),
            "ja4_prefix": tuple(rng.sample(["t13d15", "q13i", "t12"], 2)),
            "header": {"user-agent": {"contains": rng.choice(["sqlmap", "curl", "bot"])}},
            "path": {"prefix": rng.choice(["/wp-", "/.e", "/api/"])},
            "outside": tuple(rng.sample(["10.0.0.0/29", "10.0.0.0/8", "2001:db8::/32", "192.0.2.0/24"], 2)),
            "crawler": (rng.choice(["googlebot", "bingbot", "any"]),),
            "lookalike": tuple(rng.sample(["www.example", "evil.example"], rng.choice([1, 2]))),
            "sni_host": tuple(rng.sample(["agree", "coalesced", "differ", "unknown"], rng.choice([1, 2]))),
        }
        kept = rng.sample(sorted(conditions), rng.choice([1, 1, 2]))
        action = rng.choice(["allow", "challenge", "ban", "ban", "log"])
        signals = set(kept) - {"prefix", "outside", "asn"}
        stored = rng.choice([None, 5.0, 60.0]) if action == "ban" and signals else None
        found.append(
            OracleRule(
                f"r{number}", action, rng.choice(["enforce"] * 4 + ["shadow"]), rng.choice([1, 100]), stored=stored,
                key=rng.choice(["client", "fingerprint", "client_fingerprint"]), names=CERTIFICATE,
                weigh=rng.choice([None, 0.2, 0.5, 1.0]) if action == "log" else None,
                **{name: conditions[name] for name in kept},
            )
        )  # fmt: skip
    return [rule if rule.mode == "enforce" else replace(rule, stored=None) for rule in found]


def sections(rng: random.Random) -> dict[str, Any]:
    """Settings with limits low enough to be reached."""
    found: dict[str, Any] = {}
    if rng.random() < 0.7:
        found["trackers"] = {
            "distinct_fingerprints": {"window": "20s", "limit": 4, "action": "ban", "for": "30s"},
            "request_rate": {"window": "16s", "limit": 25, "action": rng.choice(["ban", "challenge"])},
            "exempt": {"asn": [3]},
        }
        if found["trackers"]["request_rate"]["action"] == "ban":
            found["trackers"]["request_rate"]["for"] = "20s"
    if rng.random() < 0.5:
        found["score"] = {"min_samples": 20, "window": 50, "asn_risk": {"AS4": 0.9}}
    return found


def as_text(rules: list[OracleRule], found: dict[str, Any]) -> str:
    """The rules file."""
    entries = []
    for rule in rules:
        when: dict[str, Any] = {}
        for name in ("prefix", "outside", "crawler", "sni", "ja4_prefix", "lookalike", "sni_host"):
            if getattr(rule, name) is not None:
                when[name] = list(getattr(rule, name))
        if rule.asn is not None:
            when["asn"] = [first for first, _ in rule.asn]
        for name in ("header", "path"):
            if getattr(rule, name) is not None:
                when[name] = getattr(rule, name)
        entry = {"id": rule.id, "when": when, "action": rule.action, "mode": rule.mode, "priority": rule.priority}
        if rule.stored is not None:
            entry |= {"for": f"{rule.stored:g}s", "key": rule.key}
        if rule.weigh is not None:
            entry["weigh"] = rule.weigh
        entries.append(entry)
    return yaml.safe_dump({"rules": entries, "names": list(CERTIFICATE), **found})


def some_requests(rng: random.Random, count: int) -> Iterator[tuple[str | None, OracleSignals, float]]:
    """Requests of clients some of whom come again and again; times go on by milliseconds."""
    now = 1_000_000
    for _ in range(count):
        now += rng.choice([0, 1, 40, 400, 2_500])
        address = None if rng.random() < 0.02 else CLIENTS[min(int(rng.expovariate(0.25)), len(CLIENTS) - 1)]
        headers = None
        if rng.random() < 0.9:
            agent = rng.choice(AGENTS) + (b" %d" % rng.randint(0, 5) if rng.random() < 0.3 else b"")
            headers = ((b"host", rng.choice(HOSTS)), (b"user-agent", agent), (b"accept", b"*/*"))
        request = OracleRequest(headers, "GET", rng.choice(PATHS))
        yield address, OracleSignals(rng.choice(NAMES), None, request, rng.choice(JA4S)), now / 1000


def given(signals: OracleSignals) -> dict[str, Any]:
    """Keyword arguments for `decide`."""
    request = signals.request
    headers = None if request.headers is None else list(request.headers)
    return {
        "sni": signals.sni, "ja4": signals.ja4, "headers": headers, "method": request.method, "path": request.path
    }  # fmt: skip


def make_engine(text: str) -> Engine:
    return Engine(Ruleset.from_text(text, asn=FakeAsnTable(NETWORKS)))  # type: ignore[arg-type]


def test_decisions_equal_the_slow_engine() -> None:
    """Action, what decided and its name are those of the oracle, request by request, and so are the bans at the end."""
    causes = set()
    for seed in range(max(1, REQUESTS // EACH)):
        rng = random.Random(seed)
        rules, found = some_rules(rng), sections(rng)
        engine = make_engine(as_text(rules, found))
        slow = OracleEngine(rules, NETWORKS, engine.ruleset.settings)
        for turn, (address, signals, now) in enumerate(some_requests(rng, EACH)):
            said = engine.decide(address, now=now, **given(signals))
            headers = signals.request.headers
            hashed = None if headers is None else fingerprint(list(headers))
            shape = None if headers is None else HeaderPlan().shape(list(headers))
            expected = slow.decide(address, signals, hashed, now, shape)
            assert expected == (said.action, said.cause, said.rule), (seed, turn, address, signals)
            assert (hashed, shape) == (said.fingerprint, said.shape)
            causes.add(said.cause)
            if said.cause == "score" and turn % 3 == 0:
                assert slow.vouch(address, signals, hashed, now, shape) == engine.vouch(said, now=now)
        assert set(slow.bans.bans(now)) == {ban.key for ban in engine.bans(now=now)}
    assert {"none", "rule", "ban", "tracker", "unparsable", "score"} == causes or REQUESTS < 4000


def test_peek_answers_and_changes_nothing() -> None:
    """`peek` says what `decide` says next, however often it is asked, and leaves no trace."""
    rng = random.Random(7)
    rules, found = some_rules(rng), sections(random.Random(1)) | sections(random.Random(2))
    engine = make_engine(as_text(rules, found))
    for address, signals, now in some_requests(rng, 300):
        before = engine.ban_table.stats()
        peeked = [engine.peek(address, now=now, **given(signals)) for _ in range(2)]
        assert before == engine.ban_table.stats()
        said = engine.decide(address, now=now, **given(signals))
        assert {(said.action, said.cause, said.rule, said.score)} == {
            (d.action, d.cause, d.rule, d.score) for d in peeked
        }


def test_a_replay_gives_the_same_decisions() -> None:
    """The same requests at the same times into another engine, or into one loaded from disk: the same decisions."""
    rng = random.Random(3)
    text = as_text(some_rules(rng), sections(random.Random(1)))
    asked = list(some_requests(rng, 400))

    def run(engine: Engine) -> list[tuple[Any, ...]]:
        found = [engine.decide(address, now=now, **given(signals)) for address, signals, now in asked]
        return [(d.action, d.cause, d.rule, d.reason, d.ban, d.score) for d in found]

    assert run(make_engine(text)) == run(make_engine(text))


def test_a_replay_after_saving_and_loading(tmp_path: Any) -> None:
    """A compiled ruleset decides as the one it was saved from, live state and all."""
    rng = random.Random(5)
    engine = make_engine(as_text(some_rules(rng), sections(random.Random(1))))
    engine.ruleset.save(tmp_path / "rules.gbf")
    loaded = Engine.load(tmp_path / "rules.gbf")
    for address, signals, now in some_requests(rng, 300):
        one = engine.decide(address, now=now, **given(signals))
        other = loaded.decide(address, now=now, **given(signals))
        assert (one.action, one.cause, one.rule, one.ban) == (other.action, other.cause, other.rule, other.ban)


ORDER = """
rules:
- {id: office, when: {prefix: 192.0.2.0/28}, action: allow}
- {id: probe, when: {path: {prefix: /wp-}}, action: ban, for: 1h, reason: probing}
- {id: noisy, when: {prefix: 10.0.0.0/24}, action: ban, for: 1h}
"""


def test_allow_masks_a_ban_and_lifts_nothing() -> None:
    """A banned client inside an allow rule comes in; without the rule its ban holds again."""
    engine = make_engine(ORDER)
    engine.ban("192.0.2.0/24", duration="1h", reason="noise")

    assert ("allow", "rule") == ((d := engine.decide("192.0.2.1")).action, d.cause)
    assert ("ban", "ban", "noise", "192.0.2.0/24") == (
        (d := engine.decide("192.0.2.200")).action, d.cause, d.reason, d.ban
    )  # fmt: skip
    engine.swap(Ruleset.from_text("rules: [{id: x, when: {prefix: 8.8.8.8/32}, action: ban}]"))
    assert "ban" == engine.decide("192.0.2.1").cause
    assert engine.unban("192.0.2.0/24") is not None
    assert "none" == engine.decide("192.0.2.1").cause


def test_times_are_whole_milliseconds() -> None:
    """A ban of an hour is over an hour later, whatever floating point makes of either time: the nearest counts."""
    engine = make_engine(ORDER)
    for number in range(2000):
        begin = 1_021_513 + number * 4_637_000 + number
        said = [engine.decide("198.51.100.7", path="/wp-x", now=(begin + later) / 1000) for later in (0, 3_599_999)]
        assert ["rule", "ban"] == [d.cause for d in said], number
        assert "none" == engine.decide("198.51.100.7", now=(begin + 3_600_000) / 1000).cause, number


def test_only_a_rule_that_asks_for_more_than_the_address_stores_a_ban() -> None:
    """`for:` on a rule about addresses stays a matter of the rule; on a path it bans the client, told by the feed."""
    engine = make_engine(ORDER)
    _, cursor = engine.ban_table.changes()

    assert ("rule", None) == ((d := engine.decide("10.0.0.7")).cause, d.ban)
    assert ("rule", "198.51.100.7") == ((d := engine.decide("198.51.100.7", path="/wp-login.php")).cause, d.ban)
    assert ("ban", "probe", "probing") == ((d := engine.decide("198.51.100.7", path="/")).cause, d.rule, d.reason)
    assert ("rule", "2001:db8::/64") == ((d := engine.decide("2001:db8::1", path="/wp-x")).cause, d.ban)
    assert "ban" == engine.decide("2001:db8::ffff").cause
    told, _ = engine.ban_table.changes(cursor)
    assert told is not None
    assert [("add", "rule", "198.51.100.7", "probe"), ("add", "rule", "2001:db8::/64", "probe")] == [
        (change.event, change.maker, change.ban.key, change.ban.rule) for change in told
    ]


def test_a_full_table_says_so() -> None:
    """With `on_full: refuse` a ban that finds no room is an error for the caller, and counted for rules."""
    engine = make_engine("bans: {capacity: 2}\n" + ORDER)
    for address in ("198.51.100.1", "198.51.100.2"):
        engine.ban(address, duration=60)

    with pytest.raises(GobanError, match=r"198\.51\.100\.3 is not banned: the table is full with 2 bans"):
        engine.ban("198.51.100.3", duration=60)
    assert ("ban", None) == ((d := engine.decide("198.51.100.4", path="/wp-x")).action, d.ban)
    assert 2 == engine.ban_table.stats()["refused"]


def test_fifty_fingerprints_ban_one_client_and_no_other() -> None:
    """The default limit: the 51st distinct fingerprint in a minute bans a client, and not its neighbour."""
    engine = make_engine(
        "rules: [{id: x, when: {prefix: 8.8.8.8/32}, action: ban}]\ntrackers: {distinct_fingerprints: {}}"
    )
    causes = []
    for number in range(53):
        headers = [(b"user-agent", b"tool/%d" % number)]
        causes.append(engine.decide("198.51.100.7", headers=headers, now=1000 + number).cause)

    assert ["none"] * 50 + ["tracker", "ban", "ban"] == causes
    assert "none" == engine.decide("198.51.100.8", headers=headers, now=1053).cause
    assert "none" == engine.decide("198.51.100.7", headers=headers, now=1050 + 601).cause


def test_a_client_that_is_unbanned_starts_anew() -> None:
    """Lifting a ban by hand makes the trackers forget, or the next request would bring it back."""
    engine = make_engine(
        "rules: [{id: x, when: {prefix: 8.8.8.8/32}, action: ban}]\n"
        "trackers: {request_rate: {window: 60s, limit: 2, action: ban, for: 1h}}"
    )
    causes = [engine.decide("2001:db8::1", now=1000).cause for _ in range(4)]

    assert ["none", "none", "tracker", "ban"] == causes
    assert engine.unban("2001:db8::/64", now=1001) is not None
    assert ["none", "none", "tracker"] == [engine.decide("2001:db8::2", now=1001).cause for _ in range(3)]


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_wall_clock_changes_nothing(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bans expire by the engine's clock: an hour either way on the wall ends none, and makes none longer."""
    import time

    clock = [100.0]
    engine = Engine(Ruleset.from_text(ORDER), clock=lambda: clock[0])
    engine.ban("198.51.100.7", duration=60)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)

    clock[0] = 159.0
    assert "ban" == engine.decide("198.51.100.7").cause
    clock[0] = 160.1
    assert "none" == engine.decide("198.51.100.7").cause


def test_counts_add_up_over_swaps() -> None:
    """Decisions by cause and action, and by rule, go on over a swap; `peek` is not counted."""
    engine = make_engine(ORDER)
    for _ in range(3):
        engine.decide("10.0.0.7")
        engine.peek("10.0.0.7")
    engine.swap(make_engine(ORDER).ruleset)
    engine.decide("10.0.0.7")
    engine.decide("8.8.8.8")

    assert {("rule", "ban"): 4, ("none", "allow"): 1} == engine.decided()
    assert {"noisy": 4} == engine.hits()


def flood(address_of: Callable[[random.Random], str]) -> float:
    """How much less usual an ordinary request is after 20,000 of an attacker among 200 ordinary ones."""
    text = "rules: [{id: x, when: {prefix: 8.8.8.8/32}, action: ban}]\nscore: {}"
    engine, rng = Engine(Ruleset.from_text(text), clock=lambda: 1000.0, seed=b"flood"), random.Random(11)

    def ordinary() -> Decision:
        kind = rng.randrange(40)
        headers = [(b"user-agent", b"browser/%d" % kind)]
        return engine.decide(
            f"198.51.{rng.randrange(2)}.{rng.randrange(256)}", sni=f"{kind % 5}.example", headers=headers
        )

    for _ in range(5000):
        ordinary()
    asked: dict[str, Any] = {"sni": "3.example", "headers": [(b"user-agent", b"browser/3")]}
    before = engine.peek("198.51.0.1", **asked).score
    for turn in range(20_000):
        engine.decide(address_of(rng), sni="0.example", headers=[(b"user-agent", b"browser/0")])
        if turn % 100 == 0:
            ordinary()
    return engine.peek("198.51.0.1", **asked).score - before


@pytest.mark.parametrize(
    "address_of",
    [
        lambda rng: "203.0.113.7",
        lambda rng: f"2001:db8:7:{rng.randrange(65536):x}::1",
        lambda rng: f"64:ff9b::203.0.113.{rng.randrange(7)}",
    ],
    ids=["one address", "every /64 of a /48", "seven behind NAT64"],
)
def test_a_flood_makes_nobody_unusual(address_of: Callable[[random.Random], str]) -> None:
    """A flood that is never challenged, from one client or from all networks of one customer, leaves the scores of
    others as they were."""
    assert flood(address_of) < 0.02


VOUCHED = """
rules: [{id: x, when: {prefix: 198.51.100.0/24}, action: challenge}]
score: {asn_risk: {AS1: 0.0}}
"""


def test_a_new_client_is_challenged_until_it_was_vouched_for() -> None:
    """A fingerprint without a server name, from a network nobody knows, is challenged for ever while nobody vouches; a
    few solved challenges make it usual, for a client that never solved one too."""
    engine = make_engine(VOUCHED)
    usual, new = ([(b"user-agent", agent)] for agent in (b"Firefox", b"Newcomer"))
    for _ in range(400):
        assert "none" == engine.decide("10.0.0.1", sni="www.example", headers=usual).cause

    asked = [engine.decide("203.0.113.7", headers=new) for _ in range(300)]
    solved = 0
    while engine.peek("203.0.113.9", headers=new).cause == "score":
        assert engine.vouch(engine.decide(f"203.0.113.{10 + solved}", headers=new))
        solved += 1

    assert {"score"} == {d.cause for d in asked}
    assert 1 <= solved <= 10
    assert "none" == engine.decide("203.0.113.9", headers=new).cause
    assert "score" == engine.decide("203.0.113.9", headers=[(b"user-agent", b"Another")]).cause


WEIGHED = """
names: [www.example]
rules:
- {id: odd, when: {sni_host: differ}, action: log, weigh: 0.3, reason: two names}
- {id: probe, when: {path: {prefix: /wp-}}, action: log, weigh: 0.4}
- {id: trial, when: any, action: log, weigh: 1, mode: shadow}
- {id: gone, when: any, action: log, weigh: 1, mode: "off"}
- {id: plain, when: {path: {prefix: /wp-}}, action: log}
- {id: banned, when: {path: /.env}, action: ban}
score: {asn_risk: {AS1: 0.0}}
"""


def test_log_rules_add_to_the_score(tmp_path: Path) -> None:
    """Whatever a condition can say is an input of the score: by its weight, up to one; explained, kept in a compiled
    file, and of no effect on what is learned."""
    engine = make_engine(WEIGHED)
    engine.ruleset.save(tmp_path / "rules.gbf")
    for one in (engine, Engine.load(tmp_path / "rules.gbf")):
        headers = [(b"host", b"www.example"), (b"user-agent", b"Firefox")]
        for _ in range(400):
            one.decide("10.0.0.1", sni="www.example", headers=headers)
        other = [(b"host", b"other.example"), (b"user-agent", b"Firefox")]
        usual = one.peek("10.0.0.1", sni="www.example", headers=headers)
        differs = one.peek("10.0.0.1", sni="www.example", headers=other)
        both = one.decide("10.0.0.1", sni="www.example", headers=other, path="/wp-login.php")
        unusual = one.decide("203.0.113.1", sni="new.example", headers=other[:1], path="/wp-login.php")
        banned = one.peek("10.0.0.1", sni="www.example", headers=other, path="/.env")

        assert ("none", "none", "score", "score") == (usual.cause, differs.cause, both.cause, unusual.cause)
        assert [usual.score + 0.3, usual.score + 0.7, 1.0] == pytest.approx([differs.score, both.score, unusual.score])
        assert (usual.coverage, usual.threshold) == (both.coverage, both.threshold)
        assert (("odd", "probe", "plain"), ("trial",)) == (both.logged, one.peek("10.0.0.1", path="/").shadow)
        assert "log by rule 'odd' at <string>:4:3 (two names); adds 0.3 to the score" in one.explain(both)
        assert 1 == one.explain(differs).count("to the score")
        assert ("rule", None) == (banned.cause, banned.score)
        assert "to the score" not in one.explain(banned)


def test_who_triggers_log_rules_does_not_move_the_threshold() -> None:
    """What rules add is held against the threshold and not learned: a flood of it leaves the threshold that the same
    requests leave without it, even where flagged ones are learned."""
    text = WEIGHED.replace("score: {", "score: {learn: all, floor: 0.1, ceiling: 1.0, max_step: 0.1, ")
    engines = [make_engine(text.replace("weigh: 0.4", f"weigh: {weigh}")) for weigh in (0.001, 0.9)]
    scores: list[list[float | None]] = [[], []]
    for found, engine in zip(scores, engines, strict=True):
        for turn in range(3000):
            path = "/wp-login.php" if turn % 3 else "/"
            found.append(engine.decide("10.0.0.1", sni=f"n{turn % 7}.example", path=path).score)
    light, heavy = (engine.peek("10.0.0.1", path="/") for engine in engines)

    assert max(score or 0 for score in scores[0][-300:]) < 0.5 < max(score or 0 for score in scores[1][-300:])
    assert (light.score, light.threshold) == (heavy.score, heavy.threshold)
    assert (light.threshold or 1) < 0.5


def test_one_client_teaches_once_in_five_minutes() -> None:
    """A solution that is shown again and again, by one address or from all over its /64, is learned once; other clients
    are not held up, nor is the same one later."""
    engine = make_engine(VOUCHED)
    for turn in range(400):
        engine.decide("10.0.0.1", sni="www.example", now=turn)

    def learned(address: str | None, now: float) -> bool:
        scored = engine.decide(address, sni=f"new{now}.example", now=now)
        assert "score" == scored.cause
        return engine.vouch(scored, now=now)

    assert [True, False, False, True] == [learned("203.0.113.7", now) for now in (1000, 1000.5, 1299.9, 1300)]
    assert [True, False] == [learned(address, 1301) for address in ("2001:db8::1", "2001:db8::ffff")]
    assert [True, False] == [learned("203.0.113.8", 1302), learned("::ffff:203.0.113.8", 1303)]
    assert [True, False] == [learned(None, now) for now in (1304, 1305)]


def test_vouching_counts_once_and_for_challenges_of_the_score_alone() -> None:
    """A decision is learned once, by whatever rules are in force then; one of another cause, or not scored, never."""
    engine = make_engine(VOUCHED)
    usual = [engine.decide("10.0.0.1", sni="www.example") for _ in range(400)][-1]
    scored, ruled = engine.decide("203.0.113.7", sni="odd.example"), engine.decide("198.51.100.7")

    assert ("score", "rule", "none") == (scored.cause, ruled.cause, usual.cause)
    assert (False, False) == (engine.vouch(ruled), engine.vouch(usual))
    engine.swap(make_engine(VOUCHED.replace("id: x", "id: y")).ruleset)
    before = engine.peek("203.0.113.7", sni="odd.example").score
    assert (True, False) == (engine.vouch(scored), engine.vouch(scored))
    assert before > (engine.peek("203.0.113.7", sni="odd.example").score or 0)
    engine.swap(make_engine(ORDER).ruleset)
    assert not engine.vouch(scored)
    assert not make_engine(ORDER).vouch(engine.decide("8.8.8.8"))
    with pytest.raises(TypeError):
        engine.vouch(None)  # type: ignore[arg-type]


def test_threads_decide_ban_swap_and_read_at_once() -> None:
    """While four threads decide, one bans and lifts and one swaps: no error, no lost ban, decisions of one ruleset."""
    text = ORDER + "trackers: {request_rate: {window: 10s, limit: 60000, action: challenge}}\nscore: {}\n"
    engine = make_engine(text)
    one = engine.ruleset
    other = make_engine(text.replace("reason: probing", "reason: other")).ruleset
    stop = threading.Event()
    errors: list[Exception] = []
    reasons: set[str | None] = set()
    left: set[str] = set()

    def work(number: int) -> None:
        rng = random.Random(number)
        try:
            for _ in range(3000):
                if stop.is_set():
                    return
                headers = [(b"user-agent", b"tool/%d" % rng.randint(0, 9))]
                d = engine.decide(
                    f"198.51.{number}.{rng.randint(0, 255)}", sni="www.example", headers=headers, path="/"
                )
                assert d.action in {"allow", "challenge"}, d
                reasons.add(
                    engine.decide(f"203.{number}.{rng.randint(0, 255)}.{rng.randint(0, 255)}", path="/wp-x").reason
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to say so
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(90):
            key = f"192.88.{turn % 60}.1"
            left.add(engine.ban(key, duration=600).key)
            if turn % 3 == 0 and engine.unban(key) is not None:
                left.discard(key)
            engine.swap(other if turn % 2 else one)
            fresh = engine.decide(f"100.64.0.{turn}", path="/wp-x").reason
            assert fresh == ("other" if turn % 2 else "probing")
            assert engine.decided()
            assert engine.hits().keys() <= {"probe", "noisy", "office"}
            if turn % 30 == 0:
                assert all(ban.key for ban in engine.bans())
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert [] == errors
    assert {"probing", "other"} >= reasons
    assert left == {ban.key for ban in engine.bans() if ban.by == "manual"}


def test_a_forked_child_has_the_bans_of_its_parent() -> None:
    """Live state is plain memory: what was banned before the fork is banned in the child."""
    engine = make_engine(ORDER)
    engine.ban("198.51.100.7", duration=60)
    child = os.fork()
    if child == 0:
        fine = engine.decide("198.51.100.7").cause == "ban" and engine.ban("8.8.8.8", duration=5) is not None
        os._exit(0 if fine else 1)

    assert (child, 0) == os.waitpid(child, 0)
    assert "none" == engine.decide("8.8.8.8").cause


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8::1", "192.0.2.1", "64:ff9b::10.0.0.7"])
def test_a_packed_address_is_decided_as_its_text(address: str) -> None:
    """4 or 16 bytes get the decision of the text, live state and all; other lengths are misuse."""
    engine = make_engine(ORDER)
    packed = ipaddress.ip_address(address).packed
    one, other = engine.decide_packed(packed, path="/wp-x"), make_engine(ORDER).decide(address, path="/wp-x")

    assert (other.action, other.cause, other.rule, other.ban) == (one.action, one.cause, one.rule, one.ban)
    if len(packed) == 4:
        mapped = bytes(10) + b"\xff\xff" + packed
        assert engine.peek(address).cause == engine.decide_packed(mapped).cause
    with pytest.raises(ValueError, match="not 5"):
        engine.decide_packed(b"12345")
