"""Engine and Decision: the compiled answer against the oracle, misuse, threads, fork and reload."""

from __future__ import annotations

import gc
import ipaddress
import os
import sys
import tempfile
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import Engine, RuleError, Ruleset
from gobanfast._core.address import parse_address
from gobanfast._core.block import cpu_levels
from gobanfast._core.compiled_rules import CompiledRules
from gobanfast._core.engine_core import EngineCore
from gobanfast.rules.settings import Settings
from oracle.rules import OracleNetworks, OracleRule, decide
from rules_fakes import FakeAsnTable
from rules_strategies import addresses, as_text, networks, rule_lists

NONE = 0xFFFFFFFF


def expected_decision(rules: list[OracleRule], address: str | None, table: OracleNetworks) -> tuple[object, ...]:
    """Action, rule, AS, shadow rules that would have won, log rules; `unparsable` is left at challenge."""
    winner, shadow, logged = decide(rules, address, table)
    order = [rule.id for rule in sorted(rules, key=lambda rule: (rule.action != "allow", rule.priority))]
    actions = {rule.id: rule.action for rule in rules}
    before = shadow if winner is None else [name for name in shadow if order.index(name) < order.index(winner)]
    action = "allow" if winner is None else actions[winner]
    return action, winner, (table.lookup(address) or None) if address else None, tuple(before), tuple(logged)


@settings(max_examples=40)
@given(rules=rule_lists(), table=networks, asked=st.lists(addresses, min_size=1, max_size=12))
def test_decisions_equal_asking_every_rule(rules: list[OracleRule], table: OracleNetworks, asked: list[str]) -> None:
    """Every kernel's decide, peek and decide_many give the decision of the slow scan, a mapped address that of IPv4."""
    with tempfile.TemporaryDirectory() as directory:
        source = str(Path(directory) / "rules.yaml")
        ruleset = Ruleset.from_text(as_text(rules, Path(directory)), source=source, asn=FakeAsnTable(table))  # type: ignore[arg-type]
    for level in cpu_levels():
        compiled = CompiledRules(ruleset.rules, unparsable="challenge", kernel=level, **ruleset.overlay.arguments())
        engine = EngineCore(compiled, Settings())
        leaves = memoryview(bytearray(4 * len(asked))).cast("I")
        engine.leaves(asked, leaves)
        for address, leaf in zip(asked, leaves, strict=True):
            plain = ipaddress.ip_address(address)
            unmapped = str(getattr(plain, "ipv4_mapped", None) or plain)
            expected = expected_decision(rules, unmapped, table)
            for decision in (engine.decide(address), engine.peek(address), engine.decision(leaf)):
                seen = decision.action, decision.rule, decision.asn, decision.shadow, decision.logged
                assert expected == seen
        packed = b"".join(parse_address(address) or b"" for address in asked)
        again = memoryview(bytearray(4 * len(asked))).cast("I")
        engine.leaves(packed, again)
        assert leaves.tolist() == again.tolist()
        absent = engine.decide(None)
        assert expected_decision(rules, None, table) == (
            absent.action,
            absent.rule,
            absent.asn,
            absent.shadow,
            absent.logged,
        )


RULES = """
unparsable: {unparsable}
rules:
  - {{id: office, when: {{prefix: 192.0.2.0/24}}, action: allow}}
  - {{id: spam, when: {{prefix: [192.0.2.0/25, 198.51.100.0/24]}}, action: ban, for: 1h, reason: spam}}
  - {{id: google, when: {{asn: 15169}}, action: challenge, mode: shadow}}
  - {{id: noted, when: {{prefix: 198.51.100.0/24}}, action: log}}
"""


@pytest.fixture
def engine() -> Engine:
    return Engine(Ruleset.from_text(RULES.format(unparsable="challenge"), source="rules.yaml"))


def test_decision_says_what_and_why(engine: Engine) -> None:
    """Each part of a decision, for a ban, an allow that beats a ban, a shadow rule and a log rule."""
    ban, allow, shadow = (engine.decide(text) for text in ("198.51.100.7", "192.0.2.1", "8.8.8.8"))

    assert ("ban", "spam", "spam", 3600, None, (), ("noted",)) == (
        ban.action, ban.rule, ban.reason, ban.duration, ban.asn, ban.shadow, ban.logged)  # fmt: skip
    assert ("allow", "office", ("office", "spam")) == (allow.action, allow.rule, allow.matched)
    assert ("allow", None, None, 15169, ("google",)) == (
        shadow.action,
        shadow.rule,
        shadow.reason,
        shadow.asn,
        shadow.shadow,
    )
    assert "<Decision ban address='198.51.100.7' cause='rule' rule='spam' reason='spam' asn=None>" == repr(ban)


@pytest.mark.parametrize("policy", ["allow", "challenge", "ban"])
@pytest.mark.parametrize("text", ["", "1.2.3", "01.2.3.4", "x" * 1_000_000, "1.2.3.4\0", "ü", "\ud800", "8.8.8.8 "])
def test_malformed_address_is_decided_by_policy(policy: str, text: str) -> None:
    """A text that is not an address gets the `unparsable` action and says so; it never raises."""
    engine = Engine(Ruleset.from_text(RULES.format(unparsable=policy)))

    decision = engine.decide(text)

    assert (policy, None, "malformed-address", None) == (decision.action, decision.rule, decision.reason, decision.asn)


def test_rules_for_everything_decide_about_malformed_addresses_too() -> None:
    """A rule without address conditions holds for a text that is not one; policy is what is left."""
    engine = Engine(Ruleset.from_text("rules:\n  - {id: closed, when: any, action: ban, reason: closed}\n"))

    assert [("ban", "closed"), ("ban", "closed")] == [
        (d.action, d.rule) for d in (engine.decide("?"), engine.decide(None))
    ]


def test_misuse_raises(engine: Engine) -> None:
    """Only misuse raises: other types, leaves that do not exist, arrays that do not fit."""
    with pytest.raises(TypeError):
        engine.decide(b"8.8.8.8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"leaf \d+ does not exist"):
        engine.decision(engine.compiled.leaf_count)
    assert "malformed-address" == engine.decision(NONE).reason
    with pytest.raises(ValueError, match="arrays of compiled rules do not fit each other"):
        CompiledRules(
            engine.ruleset.rules[:1], unparsable="ban", **{**engine.ruleset.overlay.arguments(), "actions": b"\0\0"}
        )
    arguments = engine.ruleset.overlay.arguments()
    with pytest.raises(ValueError, match="range names a leaf that does not exist"):
        CompiledRules(engine.ruleset.rules, unparsable="ban", **{**arguments, "leaves4": arguments["leaves4"] + 10_000})
    with pytest.raises(ValueError, match="unparsable='maybe' is not one of"):
        CompiledRules(engine.ruleset.rules, unparsable="maybe", **engine.ruleset.overlay.arguments())


def test_explain_names_place_entry_and_runner_up(engine: Engine) -> None:
    """The explanation says which rule, where, on what, and what would have happened without it."""
    text = engine.explain(engine.decide("192.0.2.1"))

    for words in ("192.0.2.1: allow", "rule 'office' at rules.yaml:4:5", "192.0.2.0/24 (of 1) covers the address",
                  "without it ban for 1h by rule 'spam' at rules.yaml:5:5 (spam)"):  # fmt: skip
        assert words in text
    assert "malformed-address" in engine.explain(engine.decide("?"))
    assert "would have decided, were it enforced: challenge by rule 'google'" in engine.explain(
        engine.decide("8.8.8.8")
    )


def test_explain_says_what_live_state_decided() -> None:
    """Whatever decided is named, also a ban whose rule does not match this request, or is gone."""
    engine = Engine(Ruleset.from_text(
        "rules: [{id: probes, when: {path: /.env}, action: ban, for: 1h, reason: reads files}]\n"
        "trackers: {distinct_fingerprints: {limit: 1}}\n"
        "score: {min_samples: 2}\n"
    ))  # fmt: skip
    browser, other = [(b"user-agent", b"a")], [(b"user-agent", b"b")]

    def said(address: str, **signals: Any) -> str:
        return engine.explain(engine.decide(address, now=0, **signals))

    assert "stored     as a ban of 192.0.2.1\n" in said("192.0.2.1", path="/.env")
    assert "decided by the ban of 192.0.2.1 (reads files), made by 'probes', until 2" in said("192.0.2.1", path="/")
    assert "without it ban for 1h by rule 'probes'" in said("192.0.2.1", path="/.env")
    assert "so it is allowed; score 0.69, threshold none yet, from 60% of the" in said("192.0.2.2", headers=browser)
    tripped = said("192.0.2.2", headers=other)
    assert (
        "decided by tracker 'distinct_fingerprints': the client is over its limit; 192.0.2.2 is banned until" in tripped
    )
    said("192.0.2.3", headers=browser)
    assert "decided by score 0." in said("192.0.2.4", headers=[(b"user-agent", b"new")])
    engine.ban("192.0.2.9", duration=None, now=0)
    assert "decided by the ban of 192.0.2.9, for good\n  without it allow: no rule matches" in said("192.0.2.9")
    engine.swap(Ruleset.from_text("rules: []"))
    assert "made by 'probes', until" in said("192.0.2.1", path="/")


def test_swap_changes_new_decisions_not_old_ones(engine: Engine) -> None:
    """After a swap new decisions follow the new rules; a decision made before still explains itself."""
    before = engine.decide("198.51.100.7")
    engine.swap(Ruleset.from_text("rules:\n  - {id: open, when: any, action: allow}\n"))

    assert (2, "open") == (engine.generation, engine.decide("198.51.100.7").rule)
    assert ("ban", "spam") == (before.action, before.rule)
    assert "rule 'spam'" in engine.explain(before)


def test_broken_rules_leave_the_engine_alone(engine: Engine, tmp_path: Path) -> None:
    """A rules file that does not load raises before anything is swapped."""
    bad = tmp_path / "rules.yaml"
    bad.write_text("rules:\n  - {id: a, when: {prefix: 10.0.0.1/8}, action: ban}\n")
    with pytest.raises(RuleError, match=r"has host bits set; write 10\.0\.0\.0/8"):
        engine.swap(Ruleset.load(bad))

    assert (1, "spam") == (engine.generation, engine.decide("198.51.100.7").rule)


def test_threads_see_old_or_new_rules_never_a_mixture(engine: Engine) -> None:
    """While rules swap under load, each decision's action, rule and duration belong to one ruleset."""
    one = engine.ruleset
    other = Ruleset.from_text(
        "rules:\n  - {id: other, when: {prefix: 198.51.100.0/24}, action: challenge, reason: other}\n"
    )
    allowed = {("ban", "spam", "spam", 3600.0), ("challenge", "other", "other", None)}
    seen: set[tuple[object, ...]] = set()
    torn: set[int] = set()  # leaves of one batch that differ
    stop = threading.Event()

    def ask() -> None:
        out = memoryview(bytearray(4 * 4096)).cast("I")
        packed = (parse_address("198.51.100.7") or b"") * 4096
        while not stop.is_set():
            for _ in range(200):
                decision = engine.decide("198.51.100.7")
                seen.add((decision.action, decision.rule, decision.reason, decision.duration))
            engine.leaves(packed, out)  # detaches: a swap may free the old rules meanwhile
            torn.update(set(out.tolist()) if len(set(out.tolist())) > 1 else ())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    turns = 0
    try:
        for thread in threads:
            thread.start()
        while turns < 400 or (seen != allowed and turns < 100_000):
            engine.swap(other if turns % 2 == 0 else one)
            turns += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)

    assert (allowed, set()) == (seen, torn)
    assert turns + 1 == engine.generation


def test_a_forked_child_decides_as_its_parent(engine: Engine) -> None:
    """Compiled rules are plain memory: a child process made by fork answers the same."""
    child = os.fork()
    if child == 0:
        fine = engine.decide("198.51.100.7").rule == "spam" and engine.decide("8.8.8.8").asn == 15169
        os._exit(0 if fine else 1)

    assert (child, 0) == os.waitpid(child, 0)


def test_a_thousand_reloads_keep_memory_flat() -> None:
    """Rulesets that were swapped out are freed: resident memory after 1,000 more reloads is what it was after 200."""
    text = RULES.format(unparsable="challenge")
    engine = Engine(Ruleset.from_text(text))

    def resident_kib() -> int:
        gc.collect()
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def reload(times: int) -> None:
        overlay = engine.ruleset.overlay.arguments()
        for _ in range(times):
            compiled = CompiledRules(engine.ruleset.rules, unparsable="challenge", **overlay)
            engine._swap(compiled, Settings())
            engine.decide("198.51.100.7")

    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc/self/statm")
    reload(200)
    before = resident_kib()
    reload(1000)

    nbytes_kib = engine.compiled.nbytes // 1024
    assert resident_kib() - before < 20 * max(nbytes_kib, 64)


@pytest.mark.parametrize("text", ["192.0.2.7", "2001:db8::7"])
def test_address_objects_are_addresses(text: str) -> None:
    """Of the module ipaddress, in `decide`, `peek`, `ban` and `unban`; a ban takes a timedelta."""
    engine = Engine(Ruleset.from_text("rules: [{id: x, when: {prefix: 203.0.113.0/24}, action: ban}]"))
    address = ipaddress.ip_address(text)

    made = engine.ban(address, duration=timedelta(minutes=2), now=1000.0)

    assert (text, 120.0) == (made.key, made.expires - made.created)
    assert "ban" == engine.decide(address, now=1001.0).action == engine.peek(address, now=1001.0).action
    assert text == engine.decide(address, now=1001.0).address
    assert text == engine.unban(address, now=1001.0).key
