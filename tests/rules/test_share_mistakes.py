"""Mistakes of people who write share rules for the first time: each message says what would be right."""

from __future__ import annotations

import pytest

from gobanfast import RuleError, Ruleset

RULE = "share:\n- {id: a, when: {path: /x, origin: 'https://a.example'}, action: grant}\n"


@pytest.mark.parametrize(
    ("rule", "right"),
    [
        ("when: {origin: 'https://app.example.com/'}, action: grant", "write https://app.example.com"),
        ("when: {origin: app.example.com}, action: grant", "has no scheme; write https://app.example.com"),
        ("when: {origin: app example}, action: grant", "has no scheme; write https://example.com"),
        ("when: {path: /x}, action: grant, credentials: true", "write origin: under when:, or leave credentials out"),
        ("when: {path: /x, origins: ['https://a.example']}, action: grant", "did you mean 'origin'?"),
        ("when: {path: /x}, action: grant, allow_credentials: true", "did you mean 'credentials'?"),
        ("when: {path: /x}, action: allow", "did you mean 'grant'?"),
        ("when: {path: /x}, action: deny", "did you mean 'withhold'?"),
        ("when: {path: /x}, action: block", "did you mean 'refuse'?"),
        ("when: {path: /x}, action: log", "rules with the action log belong under rules:"),
        ("when: {not: {host: 'https://api.example.com'}}, action: refuse", "write the host alone: api.example.com"),
        ("path: /x, action: grant", "'path' belongs under when:"),
        ("when: {path: /x}, action: grant, allow_origins: ['https://a.example']", "write origin: under when:"),
        ("when: {allow_origins: ['https://a.example']}, action: grant", "did you mean 'origin'?"),
        ("when: {path: /x}, action: grant, expose_headers: [x-a]", "did you mean 'expose'?"),
        ("when: {not: {host: '::1'}}, action: refuse", "has an IPv6 address without brackets; write [::1]"),
        ("when: {origin: 'http://::1'}, action: grant", "has an IPv6 address without brackets; write http://[::1]"),
    ],
)
def test_share_rules(rule: str, right: str) -> None:
    with pytest.raises(RuleError) as caught:
        Ruleset.from_text(f"share:\n- {{id: a, {rule}}}\n")

    assert right in str(caught.value)


def test_a_section_that_is_one_rule() -> None:
    with pytest.raises(RuleError, match="share is a mapping, not a list; begin each item with '- '"):
        Ruleset.from_text("share: {id: a, when: {path: /x}, action: grant}\n")


def test_a_section_called_cors() -> None:
    with pytest.raises(RuleError) as caught:
        Ruleset.from_text(RULE.replace("share:", "cors:"))

    assert "did you mean 'share'?" in str(caught.value)
    assert "write a list under rules:, share:, limits: or record:" in str(caught.value)


@pytest.mark.parametrize("action", ["grant", "withhold", "refuse"])
def test_a_share_rule_under_rules(action: str) -> None:
    with pytest.raises(RuleError, match=f"rules with the action {action} belong under share:"):
        Ruleset.from_text(f"rules:\n- {{id: a, when: {{path: /x}}, action: {action}}}\n")


@pytest.mark.parametrize(
    ("test", "right"),
    [
        ("expect: granted", "write share: granted"),
        ("share: refuse", "write refused"),
        ("share: grant", "write granted"),
        ("host: b.example, share: granted", "write headers: {host: ...}"),
    ],
)
def test_words_of_tests(test: str, right: str) -> None:
    with pytest.raises(RuleError, match=right):
        Ruleset.from_text(f"{RULE}tests:\n- {{path: /x, origin: 'https://a.example', {test}}}\n")


@pytest.mark.parametrize(
    ("test", "right"),
    [
        ("path: /x, share: granted", "the test has no origin, so no page asks"),
        ("path: /x, origin: 'https://a.example/', share: granted", "has a slash or a path; write https://a.example"),
        ("path: /x, origin: 'https://b.example', share: granted", "in order: none; other rules own it"),
        ("path: /y, origin: 'https://a.example', share: granted", "no grant or withhold is about this resource"),
        ("path: /h, origin: 'https://a.example', share: granted", "the test has no host, write headers: {host: ...}"),
        ("path: /h, headers: {host: b.example}, share: granted", "share rules that match, in order: host"),
    ],
)
def test_what_a_failed_test_lacks(test: str, right: str) -> None:
    """And a test that lacks nothing is told no such thing."""
    host = "- {id: host, when: {path: /h, not: {host: api.example}}, action: refuse}\n"
    (problem,) = Ruleset.from_text(f"{RULE}{host}tests:\n- {{{test}}}\n").failures()

    assert str(problem).endswith(right)
