"""Lint of share rules: each code, and what is like it and fine."""

from __future__ import annotations

import pytest

from gobanfast import Ruleset
from gobanfast.rules.check.lint_full import findings

APP = "https://app.example.com"
JA4 = "t13d1516h2_8daaf6152771_02713d6af862"
GH2 = "gh2:00000000000000000000000000000000"

CASES = {
    "a method in lower case": (
        (
            "id: a, when: {path: /a}, action: grant, methods: [patch, put]",
            "id: b, when: {path: /b}, action: grant, methods: [PATCH, PUT, get, '*']",
        ),
        [
            ("lower-case-method", "rule 'a' grants the method 'patch', which is not PATCH"),
            ("lower-case-method", "rule 'a' grants the method 'put', which is not PUT"),
        ],
    ),
    "a refusal of who has no origin": (
        (
            "id: a, when: {path: /a, not: {origin: 'https://app.example.com'}}, action: refuse",
            "id: b, when: {path: /b, not: {origin: ['https://app.example.com', absent]}}, action: refuse",
            f"id: c, when: {{path: /c, cross_origin_write: true, not: {{origin: '{APP}'}}}}, action: refuse",
            "id: d, when: {path: /d, not: {origin: 'https://app.example.com'}}, action: withhold",
            f"id: e, when: {{path: /e, cross_origin_write: false, not: {{origin: '{APP}'}}}}, action: refuse",
        ),
        [
            ("refused-without-origin", "rule 'a' refuses every request without an Origin"),
            ("refused-without-origin", "rule 'e' refuses every request without an Origin"),
        ],
    ),
    "grants by what caches do not see": (
        (
            f"id: a, when: {{prefix: 192.0.2.0/24, origin: '{APP}'}}, action: grant",
            f"id: b, when: {{path: /b, origin: '{APP}', not: {{asn: [64500]}}}}, action: grant",
            "id: c, when: {path: /c, prefix: 192.0.2.0/24}, action: withhold",
            f"id: d, when: {{path: /d, sni: a.example, ja4: {JA4}, origin: '{APP}'}}, action: grant, mode: shadow",
        ),
        [
            ("unseen-by-caches", "rule 'a' grants by prefix, which Vary cannot name"),
            ("unseen-by-caches", "rule 'b' grants by asn, which Vary cannot name"),
            ("unseen-by-caches", "rule 'd' grants by sni, ja4, which Vary cannot name"),
        ],
    ),
    "a grant over a fingerprint alone": (
        (
            f"id: a, when: {{path: /a, fingerprint: '{GH2}'}}, action: grant",
            f"id: b, when: {{path: /b, fingerprint: '{GH2}', origin: '{APP}'}}, action: grant",
        ),
        [
            ("unseen-by-caches", "rule 'a' grants by fingerprint"),
            ("copied-grant", "rule 'a' grants to any page in a client that has, or copies, its fingerprint"),
            ("unseen-by-caches", "rule 'b' grants by fingerprint"),
        ],
    ),
    "wide patterns": (
        (
            "id: a, when: {path: /a, origin: ['re:https?://.*', 're:https://.*[.]example[.]com']}, action: grant",
            "id: b, when: {path: /b, not: {origin: ['re:.*', absent]}}, action: refuse",
            "id: c, when: {path: /c, origin: ['https://**.co.uk', 'https://*.a.co.uk']}, action: grant",
            "id: d, when: {path: /d, origin: 'https://*.github.io'}, action: withhold",
        ),
        [
            ("wide-regex", "rule 'a' has a pattern that matches every origin, 're:https?://.*'"),
            ("wide-regex", "rule 'b' has a pattern that matches every origin, 're:.*'"),
            ("public-suffix", "rule 'c' grants to every site under the public suffix 'co.uk' ('https://**.co.uk')"),
        ],
    ),
    "rules that are never reached": (
        (
            "id: all, when: any, action: refuse, priority: 200",
            "id: a, when: {path: /a}, action: grant",
            "id: b, when: {origin: 'https://a.example.com'}, action: refuse, priority: 300",
        ),
        [
            ("contradictory-refuse", "rule 'a' can never grant: everything it matches is refused by 'all'"),
            ("shadowed-rule", "rule 'b' can never decide: 'all' before it match everything that it matches"),
        ],
    ),
    "rules that are reached by less": (
        (
            "id: a, when: {path: /a, origin: ['https://a.example.com', 'https://b.example.com']}, action: grant",
            "id: b, when: {path: /a, origin: 'https://b.example.com'}, action: withhold",
            "id: c, when: {path: /c, not: {host: [a.example, b.example]}}, action: withhold",
            "id: d, when: {path: /c, not: {host: [a.example, b.example, c.example], method: GET}}, action: grant",
            "id: e, when: {path: /c, not: {host: a.example}}, action: grant",
            "id: f, when: {path: /f, not: {origin: 'https://a.example.com'}}, action: grant",
            "id: g, when: {path: /f, not: {origin: 'https://a.example.com'}}, action: withhold",
        ),
        [
            ("shadowed-rule", "rule 'b' can never decide: 'a' before it match everything that it matches"),
            ("shadowed-rule", "rule 'd' can never decide: 'c' before it match everything that it matches"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_findings(name: str) -> None:
    """Every code where it belongs, and nothing beside it."""
    lines, expected = CASES[name]
    text = "share:\n" + "".join(f"- {{{line}}}\n" for line in lines)
    found = [problem for problem in findings(Ruleset.from_text(text), starter=True) if problem.code != "starter-table"]

    assert [code for code, _ in expected] == [problem.code for problem in found]
    for (_, message), problem in zip(expected, found, strict=True):
        assert problem.message.startswith(message)
        assert problem.hint
        assert "warning" == problem.severity


def test_an_effect_is_no_reason_against_another() -> None:
    """A ban of all does not make share rules unreachable: pages are told what they may read of the refusal, too."""
    text = "rules:\n- {id: all, when: any, action: ban}\nshare:\n- {id: a, when: {path: /a}, action: grant}\n"

    assert [] == findings(Ruleset.from_text(text), starter=True)
