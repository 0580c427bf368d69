"""Sections of a rules file besides its rules: what they mean, and that they are part of what a ruleset is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gobanfast.rules import Ruleset
from gobanfast.rules.settings import (
    BanSettings,
    EdgeHeaderSettings,
    Escalation,
    FingerprintSettings,
    Limit,
    ScoreSettings,
    Settings,
    Surge,
    TrackerSettings,
)
from rules_fakes import FakeAsnTable

ANY: dict[str, Any] = {"asn": FakeAsnTable()}


def settings(text: str) -> Settings:
    return Ruleset.from_text(text + "\nrules: []", **ANY).settings


def test_an_absent_section_leaves_its_part_off() -> None:
    """Without sections nobody is tracked or scored, and bans and fingerprints have their defaults."""
    assert Settings() == settings("")
    assert (None, None) == (Settings().trackers, Settings().score)


@pytest.mark.parametrize("section", ["bans", "score", "fingerprint"])
def test_an_empty_section_is_one_of_defaults(section: str) -> None:
    """`score:` alone turns the score on as the project means it; the same holds for the others."""
    expected = {"bans": BanSettings(), "score": ScoreSettings(), "fingerprint": FingerprintSettings()}

    assert expected[section] == getattr(settings(f"{section}:"), section)


def test_a_tracker_is_on_when_it_is_named() -> None:
    """The default of distinct fingerprints bans for ten minutes; the others challenge unless told to ban."""
    expected = TrackerSettings(
        distinct_fingerprints=Limit(60.0, 50, "ban", 600.0), request_rate=Limit(10.0, 200, "challenge", None)
    )

    assert expected == settings("trackers: {distinct_fingerprints: , request_rate: {limit: 200}}").trackers


def test_every_key_is_read() -> None:
    """Each value of each section comes out as written."""
    text = """
bans: {capacity: 5, on_full: evict, escalate: {factor: 3, cap: 1d, jitter: 0, memory: 2h}, ipv6_client: 56}
trackers:
  capacity: 64
  distinct_fingerprints: {window: 30s, limit: 9, action: challenge}
  request_rate: {window: 5s, limit: 7, action: ban, for: 1m}
  surge: {over: 400, baseline: 20m, min_requests: 8, action: ban}
  exempt: {asn: [AS5, 7-9], prefix: 192.0.2.0/24}
  on_saturated: challenge
score:
  weights: {sni: 0.5, header: 0.25, asn: 0.25}
  window: 200
  percentile: 90
  deviations: 0.1
  floor: 0.5
  ceiling: 0.7
  min_samples: 50
  max_step: 0.01
  learn: all
  scope: host
  asn_risk: {AS64500: 0.9, 64510-64520: 0}
  unknown_asn: 0.4
  mode: shadow
fingerprint: {fields: [User-Agent, accept], key: 0123456789abcdef}
"""
    found = settings(text)

    assert BanSettings(5, "evict", Escalation(3.0, 86400.0, 0.0, 7200.0), 56) == found.bans
    assert FingerprintSettings(("user-agent", "accept"), "0123456789abcdef") == found.fingerprint
    assert found.trackers is not None
    assert Limit(30.0, 9, "challenge", None) == found.trackers.distinct_fingerprints
    assert Limit(5.0, 7, "ban", 60.0) == found.trackers.request_rate
    assert Surge(400, 1200.0, 8, "ban", 600.0) == found.trackers.surge
    assert found.trackers.exempt_prefix is not None
    assert bytes([120]) == found.trackers.exempt_prefix.lengths
    assert (64, ((5, 5), (7, 9))) == (found.trackers.capacity, found.trackers.exempt_asn)
    assert found.trackers.on_saturated == "challenge"
    risk = ((64500, 64500, 0.9), (64510, 64520, 0.0))
    assert ScoreSettings(
        0.5, 0.25, 0.25, 200, 90.0, 0.1, 0.5, 0.7, 50, 0.01, "all", False, "host", risk, 0.4, "shadow"
    ) == found.score  # fmt: skip


@pytest.mark.parametrize(
    "text", ["bans: {capacity: 7}", "score:", "fingerprint: {key: 0123456789abcdef}", "fingerprint: {fields: [accept]}"]
)
def test_the_content_hash_covers_settings(text: str) -> None:
    """Rulesets that would decide differently have different hashes; the fingerprint key counts too."""
    assert (
        Ruleset.from_text("rules: []", **ANY).content_hash
        != Ruleset.from_text(f"rules: []\n{text}", **ANY).content_hash
    )


def test_the_fingerprint_key_is_not_shown() -> None:
    """A secret does not get into logs through repr."""
    assert "0123456789abcdef" not in repr(settings("fingerprint: {key: 0123456789abcdef}"))


def test_trust_says_whether_a_chain_is_owed(tmp_path: Path) -> None:
    """`trust: {chain: ...}` is read, kept by a compiled file, known to editors, and a wrong word is named."""
    from gobanfast import RuleError
    from gobanfast.rules.text.json_schema import json_schema

    made = {
        chain: Ruleset.from_text(f"trust: {{prefix: 10.0.0.0/8{text}}}\nrules: []\n", **ANY)
        for chain, text in ((None, ""), ("required", ", chain: required"), ("optional", ", chain: optional"))
    }
    for chain, ruleset in made.items():
        ruleset.save(tmp_path / "rules.gbf")
        assert chain == ruleset.settings.trust.chain == Ruleset.load(tmp_path / "rules.gbf").settings.trust.chain
    assert None is Ruleset.from_text("trust: [10.0.0.0/8]\nrules: []\n", **ANY).settings.trust.chain
    assert 3 == len({ruleset.content_hash for ruleset in made.values()})
    with pytest.raises(RuleError, match="chain"):
        Ruleset.from_text("trust: {prefix: 10.0.0.0/8, chain: always}\nrules: []\n")
    chain_of = json_schema()["$defs"]["TrustModel"]["properties"]["chain"]
    assert {"required", "optional"} == set(chain_of["anyOf"][0]["enum"])


EDGE = "edge_headers: {strip: [X-Envoy-*, x-real-ip], keep: [x-envoy-original-path], append: [x-forwarded-for]}\n"


def test_edge_headers_are_read_kept_and_compared(tmp_path: Path) -> None:
    """The section is read in lower case, kept by a compiled file, part of the hash, and told by a comparison."""
    from gobanfast.rules.check.rules_diff import changes

    made = Ruleset.from_text(f"{EDGE}rules: []\n", **ANY)
    less = Ruleset.from_text("edge_headers: {strip: [x-real-ip]}\nrules: []\n", **ANY)
    none = Ruleset.from_text("rules: []\n", **ANY)
    made.save(tmp_path / "rules.gbf")
    expected = EdgeHeaderSettings(("x-envoy-original-path",), ("x-forwarded-for",), ("x-envoy-*", "x-real-ip"))

    assert expected == made.settings.edge_headers == Ruleset.load(tmp_path / "rules.gbf").settings.edge_headers
    assert 3 == len({ruleset.content_hash for ruleset in (made, less, none)})
    assert [("edge_headers", ("off -> on",))] == [(change.name, change.details) for change in changes(none, made)]
    assert [("edge_headers", True)] == [
        (change.name, "x-envoy" in str(change.details)) for change in changes(less, made)
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "says nothing"), ("{}", "says nothing"), ("{keep: [a]}", "says nothing"),
     ("{strip: x-a}", "not a list"), ("{strip: []}", "not a list"), ("{strip: [a b]}", "'a b' is not a header name"),
     ("{strip: ['*']}", "is not a header name"), ("{strip: ['x-*-y']}", "is not a header name"),
     ("{strip: [x-a], keep: ['x-*']}", "is not a header name"), ("{strip: [5]}", "5 is not a header name"),
     ("{strip: [Host]}", "no request goes without"), ("{strip: ['con*']}", "no request goes without"),
     ("{append: [forwarded]}", "write [x-forwarded-for]"), ("{append: x-forwarded-for}", "write [x-forwarded-for]"),
     ("{stirp: [x-a]}", "stirp")],
)  # fmt: skip
def test_wrong_edge_headers_are_told(text: str, words: str) -> None:
    """What is no name, a beginning of everything, or a header that requests need is named with what would be right."""
    from gobanfast import RuleError

    with pytest.raises(RuleError) as told:
        Ruleset.from_text(f"edge_headers: {text}\nrules: [{{id: a, when: {{prefix: 192.0.2.1}}, action: ban}}]\n")
    assert words in str(told.value)
