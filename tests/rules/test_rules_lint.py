"""The thorough lint: each finding, what does not trigger it, and that what it calls unreachable never decides."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import AsnTable
from gobanfast.rules import Ruleset
from gobanfast.rules.check import lint_full
from oracle.rules import OracleRule, OracleSignals, decide
from rules_fakes import FakeAsnTable
from rules_strategies import HOSTS, addresses, as_text, networks, signal_rules

NETWORKS = AsnTable.from_arrays(b"", b"", b"")


def findings(text: str, *, fraction: float = 1 / 256) -> list[tuple[str, str]]:
    """Code and message of every finding."""
    ruleset = Ruleset.from_text(text, source="rules.yaml", asn=NETWORKS)
    found = lint_full.findings(ruleset, starter=False, fraction=fraction)
    return [(problem.code, problem.message) for problem in found]


def rules(*lines: str, top: str = "") -> str:
    return top + "rules:\n" + "".join(f"- {{{line}}}\n" for line in lines)


CASES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "a rule behind a wider one": (
        rules(
            "id: wide, when: {prefix: 192.0.2.0/24}, action: ban",
            "id: narrow, when: {prefix: 192.0.2.0/25}, action: challenge",
        ),
        [("shadowed-rule", "rule 'narrow' can never decide: 'wide' before it match everything that it matches")],
    ),
    "limits before a rule and each other": (
        "limits:\n- {id: scan, when: any, limit: 20, on_status: 404, action: ban}\n- {id: all, when: any, limit: 600}\n"
        + rules("id: asked, when: {prefix: 192.0.2.0/24}, action: challenge"),
        [],
    ),
    "a rule weighs and nothing is scored": (
        rules("id: a, when: any, action: log, weigh: 0.3", "id: b, when: any, action: log, mode: shadow, weigh: 1"),
        [
            ("weigh-without-score", "rule 'a' weighs 0.3, and nothing is scored"),
            ("weigh-without-score", "rule 'b' weighs 1, and nothing is scored"),
        ],
    ),
    "a rule weighs": (rules("id: a, when: any, action: log, weigh: 0.3", top="score: {}\n"), []),
    "two halves cover a rule together": (
        rules(
            "id: a, when: {prefix: 192.0.2.0/25}, action: ban",
            "id: b, when: {prefix: 192.0.2.128/25}, action: ban",
            "id: c, when: {prefix: 192.0.2.0/24}, action: challenge",
        ),
        [("shadowed-rule", "rule 'c' can never decide: 'a', 'b' before it match everything that it matches")],
    ),
    "half of a rule is left": (
        rules(
            "id: a, when: {prefix: 192.0.2.0/25}, action: ban",
            "id: b, when: {prefix: 192.0.2.0/24}, action: challenge",
        ),
        [],
    ),
    "log, shadow and off rules shadow nothing": (
        rules(
            "id: a, when: {prefix: 192.0.2.0/24}, action: log",
            "id: b, when: {prefix: 192.0.2.0/24}, action: ban, mode: shadow",
            "id: c, when: {prefix: 192.0.2.0/24}, action: ban, mode: 'off'",
            "id: d, when: {prefix: 192.0.2.0/24}, action: ban",
        ),
        [],
    ),
    "an allow over all of a ban": (
        rules(
            "id: ban, when: {prefix: 192.0.2.0/25, sni: a.example}, action: ban",
            "id: friend, when: {prefix: 192.0.2.0/24}, action: allow",
        ),
        [("contradictory-allow", "rule 'ban' can never ban: everything it matches is allowed by 'friend'")],
    ),
    "an exception from a ban": (
        rules(
            "id: ban, when: {prefix: 192.0.2.0/24}, action: ban",
            "id: friend, when: {prefix: 192.0.2.7}, action: allow",
        ),
        [],
    ),
    "names below a suffix that is listed": (
        rules(
            "id: wide, when: {sni: [.evil.example, other.test]}, action: ban",
            "id: narrow, when: {sni: [www.evil.example, '*.x.evil.example', other.test]}, action: challenge",
            "id: not, when: {sni: [www.evil.example, third.test]}, action: challenge",
        ),
        [("shadowed-rule", "rule 'narrow' can never decide: 'wide' before it match everything that it matches")],
    ),
    "another signal narrows the earlier rule": (
        rules(
            "id: a, when: {prefix: 192.0.2.0/24, alpn: h2}, action: ban",
            "id: b, when: {prefix: 192.0.2.0/24}, action: challenge",
            "id: c, when: {prefix: 192.0.2.0/24, alpn: h2, ech: none}, action: challenge, priority: 99",
        ),
        [],
    ),
    "conditions that exclude each other": (
        rules("id: a, when: {prefix: 192.0.2.0/24, asn: AS64500}, action: ban"),
        [("empty-rule", "rule 'a' matches no address")],
    ),
    "wide in IPv6": (
        rules("id: a, when: {prefix: '2000::/8'}, action: ban"),
        [("wide-rule", "rule 'a' covers 72057594037927936 IPv6 networks (/64), 3.1% of all")],
    ),
    "inside and outside of one prefix": (
        rules(
            "id: a, when: {prefix: 192.0.2.0/25, outside: 192.0.2.0/24}, action: ban",
            "id: b, when: {outside: [0.0.0.0/0, '::/0']}, action: ban",
            "id: c, when: {prefix: 192.0.2.0/24, outside: 192.0.2.0/25}, action: ban",
        ),
        [("empty-rule", "rule 'a' matches no address"), ("empty-rule", "rule 'b' matches no address")],
    ),
    "outside of less is more": (
        rules(
            "id: less, when: {outside: 192.0.2.0/25}, action: challenge",
            "id: more, when: {outside: [192.0.2.0/25, 198.51.100.0/24], path: /a}, action: ban",
            "id: rest, when: {prefix: 192.0.2.0/24}, action: ban",
            "id: dead, when: {prefix: 192.0.2.128/25}, action: ban",
        ),
        [
            ("shadowed-rule", "rule 'more' can never decide: 'less' before it match everything that it matches"),
            ("shadowed-rule", "rule 'dead' can never decide: 'less' before it match everything that it matches"),
        ],
    ),
    "a wide rule outside of a prefix": (
        rules("id: a, when: {prefix: '2000::/8', outside: '2001:db8::/32'}, action: ban"),
        [("wide-rule", "rule 'a' covers 72057589742960640 IPv6 networks (/64), 3.1% of all")],
    ),
    "shared, private and own space": (
        rules(
            "id: cgnat, when: {prefix: 100.64.0.0/12}, action: challenge",
            "id: home, when: {prefix: [192.168.1.0/24, '::1']}, action: ban",
            "id: fine, when: {prefix: 10.1.0.0/16}, action: ban",
            "id: friends, when: {prefix: 10.0.0.0/8}, action: allow",
            "id: noted, when: {prefix: 127.0.0.0/8}, action: log",
        ),
        [
            (
                "special-prefix",
                "rule 'cgnat' can challenge clients in 100.64.0.0/10 (shared by the customers of providers (RFC 6598))",
            ),
            ("special-prefix", "rule 'home' can ban clients in 192.168.0.0/16 (private), ::1/128 (this machine)"),
            ("contradictory-allow", "rule 'fine' can never ban: everything it matches is allowed by 'friends'"),
        ],
    ),
    "a peer that is trusted": (
        rules("id: a, when: {prefix: 203.0.113.0/24}, action: ban", top="trust: 203.0.113.80\n"),
        [("trusted-prefix", "rule 'a' can ban clients in prefixes under trust:")],
    ),
    "public suffixes": (
        rules("id: a, when: {sni: ['*.co.uk', .com, example.co.uk, '**.example.co.uk', co.uk]}, action: ban"),
        [
            ("public-suffix", "rule 'a' covers every name under the public suffix 'co.uk' ('*.co.uk')"),
            ("public-suffix", "rule 'a' covers every name under the public suffix 'com' ('.com')"),
        ],
    ),
    "patterns for everything": (
        rules(
            "id: a, when: {asn_name: ['.*', proxy, 'x?']}, action: challenge, mode: shadow",
            "id: b, when: {sni: ['re:.*', 're:.*[.]top']}, action: ban",
        ),
        [
            ("empty-rule", "rule 'a' matches no address"),
            ("wide-regex", "rule 'a' has a pattern that matches every AS, '.*'"),
            ("wide-regex", "rule 'a' has a pattern that matches every AS, 'x?'"),
            ("wide-regex", "rule 'b' has a pattern that matches every name or the empty one, 're:.*'"),
        ],
    ),
    "a ban of what many share": (
        rules(
            "id: a, when: {path: /a}, action: ban, for: 1h, key: fingerprint",
            "id: b, when: {path: /b}, action: ban, for: 1h, key: client_fingerprint",
            "id: c, when: {path: /c}, action: ban, for: 1h",
            "id: d, when: {prefix: 203.0.113.0/24}, action: ban, for: 1h, key: fingerprint, mode: shadow",
        ),
        [
            ("shared-ban", "rule 'a' bans a fingerprint for one request, and everyone with such a browser has it"),
            ("shared-ban", "rule 'd' bans a fingerprint for one request, and everyone with such a browser has it"),
        ],
    ),
    "a way in by what anyone can send": (
        rules(
            "id: a, when: {crawler: googlebot}, action: allow",
            "id: b, when: {crawler: bingbot, prefix: 203.0.113.0/24}, action: allow",
            "id: c, when: {ja4: t13d1516h2_8daaf6152771_02713d6af862, path: /x}, action: allow",
            "id: d, when: {ua_family: curl, header: {x-secret: '1234'}}, action: allow",
            "id: e, when: {path: /healthz}, action: allow",
        ),
        [
            ("copied-allow", "rule 'a' lets in whoever copies its crawler"),
            ("copied-allow", "rule 'c' lets in whoever copies its ja4"),
        ],
    ),
    "the founding trap": (
        "ban_rules: [{asn_prefix: AS15169, duration: 1h}]",
        [
            ("empty-rule", "rule 'ban_rules[0]' matches no address"),
            ("asn-prefix", "asn_prefix 'AS15169' is an AS number, not a text prefix"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_findings(name: str) -> None:
    """Every case has just these findings."""
    text, expected = CASES[name]

    assert expected == findings(text)


def test_the_share_is_the_callers() -> None:
    """What counts as wide is said by who asks."""
    text = rules("id: a, when: {prefix: 192.0.0.0/8}, action: ban, priority: 5")

    assert [] == [code for code, _ in findings(text) if code == "wide-rule"]
    assert ["wide-rule"] == [code for code, _ in findings(text, fraction=0.001) if code == "wide-rule"]


def test_large_name_lists_are_left_alone(tmp_path: Path) -> None:
    """A short list is held against the public suffixes, a million names are not."""
    for count, expected in ((10, 1), (lint_full.MOST_NAMES, 0)):
        (tmp_path / "names").write_text("\n".join([".com", *(f"n{i}.example" for i in range(count))]))
        text = rules("id: a, when: {sni_file: names}, action: ban")
        ruleset = Ruleset.from_text(text, source=str(tmp_path / "rules.yaml"), asn=NETWORKS)
        assert expected == len(lint_full.findings(ruleset, starter=False))


@settings(deadline=None, max_examples=40)
@given(
    written=signal_rules(),
    table=networks,
    asked=st.lists(st.tuples(addresses, st.none() | st.sampled_from(HOSTS)), min_size=5, max_size=30),
)
def test_unreachable_rules_never_decide(
    written: list[OracleRule], table: object, asked: list[tuple[str, str | None]]
) -> None:
    """Whatever is asked, the slow scan never lets a rule win that the lint calls shadowed, contradicted or empty."""
    with tempfile.TemporaryDirectory() as directory:
        source = str(Path(directory) / "rules.yaml")
        ruleset = Ruleset.from_text(as_text(written, Path(directory)), source=source, asn=FakeAsnTable(table))  # type: ignore[arg-type]
    codes = ("shadowed-rule", "contradictory-allow", "empty-rule")
    found = lint_full.findings(ruleset, starter=False)
    dead = {problem.message.split("'")[1] for problem in found if problem.code in codes}
    for address, sni in asked:
        winner, _, _ = decide(written, address, table, OracleSignals(sni))  # type: ignore[arg-type]

        assert winner not in dead


def test_compiled_rules_are_not_linted(tmp_path: Path) -> None:
    """What the lint reads is not in the file."""
    Ruleset.from_text("rules: []", asn=NETWORKS).save(tmp_path / "rules.gbf")
    with pytest.raises(ValueError, match="is compiled; lint the files it was made from"):
        lint_full.findings(Ruleset.load(tmp_path / "rules.gbf"), starter=False)
