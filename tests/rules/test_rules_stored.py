"""Compiled rules in a file: they decide as those they were made from, and a damaged file is an error, never a crash."""

from __future__ import annotations

import json
import random
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import AsnTable, Engine, FormatError
from gobanfast._core.block import Block
from gobanfast._core.engine_core import EngineCore
from gobanfast.rules import Ruleset, ruleset_file
from gobanfast.rules.settings import Settings
from oracle.rules import OracleRule
from rules_strategies import HOSTS, addresses, as_text, signal_rules

NETWORKS = AsnTable.from_arrays(
    bytes(10) + b"\xff\xff\x0a\0\0\0" + bytes(10) + b"\xff\xff\xff\0\0\0", bytes([104, 104]),
    (1).to_bytes(4, "little") + (2).to_bytes(4, "little"), {1: "GOOGLE Google LLC", 2: "Proxy House"},
)  # fmt: skip
FULL = """
unparsable: ban
trust: [10.0.0.0/8]
trackers: {distinct_fingerprints: {limit: 50}, exempt: {prefix: 192.0.2.0/24}}
score: {asn_risk: {AS2: 0.9}}
rules:
- {id: friend, when: {prefix: [10.0.0.0/24, '2001:db8::/32']}, action: allow}
- {id: listed, when: {prefix_file: list}, action: ban, for: 1h, reason: "älter"}
- {id: names, when: {sni_file: names, sni: [.example, 're:.*[.]top', absent]}, action: challenge}
- {id: hello, when: {ja4_prefix: t13, alpn: [h2, dot], tls_version_below: 1.2, ech: none}, action: log, weigh: 0.25}
- {id: as, when: {asn: [AS1, 3-5], asn_name: google}, action: ban, mode: shadow}
ban_rules:
- {asn_prefix: AS2, duration: 1h}
tests:
- {address: 10.0.0.1, expect: allow, rule: friend}
- {address: 8.8.8.8, sni: a.example, headers: {user-agent: [a, b]}, method: GET, expect: allow, rule: null}
"""
ASKED = ("10.0.0.1", "10.9.9.9", "255.1.2.3", "2001:db8::1", "::1", "192.0.2.1", "junk", None)


@pytest.fixture
def full(tmp_path: Path) -> Ruleset:
    (tmp_path / "list").write_text("10.9.9.0/24\n2001:db8:1::/48\n")
    (tmp_path / "names").write_text("a.example\n.b.example\nc2[0-9]+.top\n")
    (tmp_path / "rules.yaml").write_text(FULL)
    return Ruleset.load(tmp_path / "rules.yaml", asn=NETWORKS)


def answers(ruleset: Ruleset) -> list[Any]:
    """What the rules say about a few requests, with the explanations."""
    engine = Engine(ruleset)
    found = []
    for address in ASKED:
        for sni in (None, "x.b.example", "c21.top", "other.test", "a..b"):
            decision = engine.peek(address, sni=sni)
            found.append((decision.action, decision.matched, decision.shadow, decision.asn, engine.explain(decision)))
    return found


@settings(max_examples=25, deadline=None)
@given(rules=signal_rules(), asked=st.lists(st.tuples(addresses, st.none() | st.sampled_from(HOSTS)), min_size=1))
def test_loaded_rules_decide_as_built_ones(rules: list[OracleRule], asked: list[tuple[str, str | None]]) -> None:
    """Decision, shadow rules and explanation are the same, and so is the hash."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "rules.yaml"
        built = Ruleset.from_text(as_text(rules, Path(directory)), source=str(source), asn=NETWORKS)
        built.save(source.with_suffix(".gbf"))
        loaded = Ruleset.load(source.with_suffix(".gbf"))
    before, after = Engine(built), Engine(loaded)

    assert built.content_hash == loaded.content_hash
    for address, sni in asked:
        expected, found = before.peek(address, sni=sni), after.peek(address, sni=sni)
        assert (expected.action, expected.matched, expected.shadow) == (found.action, found.matched, found.shadow)
        assert before.explain(expected) == after.explain(found)


def test_everything_is_kept(full: Ruleset, tmp_path: Path) -> None:
    """Rules with places and lists, settings, trust, tests and warnings come back; saving again gives the same file."""
    full.save(tmp_path / "rules.gbf")
    loaded = Ruleset.load(tmp_path / "rules.gbf")
    loaded.save(tmp_path / "again.gbf")

    assert (full.settings.score, full.settings.bans, full.unparsable) == (
        loaded.settings.score, loaded.settings.bans, loaded.unparsable)  # fmt: skip
    assert (full.tests, full.problems, full.source) == (loaded.tests, loaded.problems, loaded.source)
    assert (full.trust.addresses, full.trust.lengths) == (loaded.trust.addresses, loaded.trust.lengths)
    assert [(r.id, r.line, r.duration, r.reason) for r in full.rules] == [
        (r.id, r.line, r.duration, r.reason) for r in loaded.rules]  # fmt: skip
    names = {rule.id: rule.when.sni_file for rule in loaded.rules}["names"]
    assert ["a.example", ".b.example", "c2[0-9]+.top"] == list(names or ())
    assert answers(full) == answers(loaded) == answers(Ruleset.load(tmp_path / "again.gbf"))


@pytest.mark.parametrize("verify", [True, False], ids=["verified", "unverified"])
def test_damaged_files_are_format_errors(full: Ruleset, tmp_path: Path, verify: bool) -> None:
    """A flipped byte is refused or harmless when verified; without that it may change answers, never crash."""
    full.save(tmp_path / "rules.gbf")
    good, expected = (tmp_path / "rules.gbf").read_bytes(), answers(full)
    chosen = random.Random(7)
    refused = 0
    for _ in range(400):
        data = bytearray(good)
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
        (tmp_path / "bad.gbf").write_bytes(data)
        try:
            found = answers(ruleset_file.load(tmp_path / "bad.gbf", Ruleset, verify=verify))
        except FormatError:
            refused += 1
        else:
            assert not verify or expected == found
    assert refused > 200 if verify else refused > 10


WRONG = (None, -1, 1 << 70, "x", [], {}, 1.5, True, [[]], {"id": "x"}, "9" * 32)


@pytest.mark.parametrize("seed", range(4))
def test_crafted_descriptions_are_format_errors(full: Ruleset, tmp_path: Path, seed: int) -> None:
    """A description with other values and a hash that fits is refused, or taken whole; nothing else is raised."""
    full.save(tmp_path / "rules.gbf")
    parts = Block.map(tmp_path / "rules.gbf").parts("RSET", verify=True)
    blocks = {tag: Block.view(parts[tag]) for tag in ("RULE", "SIGN", "NAME", "ASNN")}
    chosen = random.Random(seed)
    refused = 0
    for _ in range(150):
        meta = json.loads(bytes(parts["META"]))
        at: Any = meta
        while True:  # down to some member of some mapping or list, and another value there
            key = chosen.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if not isinstance(at[key], (dict, list)) or not at[key] or chosen.random() < 0.3:
                break
            at = at[key]
        if isinstance(at, dict) and chosen.random() < 0.2:
            del at[key]
        else:
            at[key] = chosen.choice(WRONG)
        text = json.dumps(meta).encode()
        whole = [("HASH", ruleset_file._digest(text, blocks)), ("META", text), *blocks.items(), ("LIST", parts["LIST"])]
        Block.build("RSET", whole).save(tmp_path / "crafted.gbf")
        try:
            EngineCore(Ruleset.load(tmp_path / "crafted.gbf").compiled, Settings()).peek("10.0.0.1", sni="a.example")
        except FormatError:
            refused += 1

    assert refused > 50


def test_cut_files_are_format_errors(full: Ruleset, tmp_path: Path) -> None:
    """Whatever is cut off, the file is refused, with its name."""
    full.save(tmp_path / "rules.gbf")
    good = (tmp_path / "rules.gbf").read_bytes()
    for size in [0, 1, 63, 64, 100, *range(128, len(good), 997), len(good) - 1]:
        (tmp_path / "bad.gbf").write_bytes(good[:size])
        with pytest.raises(FormatError, match=r"bad\.gbf: "):
            ruleset_file.load(tmp_path / "bad.gbf", Ruleset)


def test_foreign_files_are_refused(full: Ruleset, tmp_path: Path) -> None:
    """Another kind of table, a newer format, and an AS table for rules that have theirs are told apart."""
    NETWORKS.save(tmp_path / "asn.gbf")
    with pytest.raises(FormatError, match="holds another kind of table"):
        Ruleset.load(tmp_path / "asn.gbf")
    full.save(tmp_path / "rules.gbf")
    with pytest.raises(ValueError, match=r"is compiled, over an AS table of its own; asn= goes with YAML"):
        Ruleset.load(tmp_path / "rules.gbf", asn=NETWORKS)


def test_newer_format_is_refused(full: Ruleset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a later format says that it is one."""
    with monkeypatch.context() as patch:
        patch.setattr(ruleset_file, "FORMAT", 4)
        full.save(tmp_path / "rules.gbf")

    with pytest.raises(FormatError, match="ruleset has format 4, this gobanfast reads 3"):
        Ruleset.load(tmp_path / "rules.gbf")


def test_file_with_a_key_is_private(tmp_path: Path) -> None:
    """A fingerprint key is in the file, so that only its owner can read it."""
    for key, mode in (("", 0o644), ("fingerprint: {key: 0123456789abcdef0123456789abcdef}\n", 0o600)):
        Ruleset.from_text(key + "rules: []", asn=NETWORKS).save(tmp_path / "rules.gbf")

        assert mode == stat.S_IMODE((tmp_path / "rules.gbf").stat().st_mode)
