"""Inline tests of what is shared, and what a failure says."""

from __future__ import annotations

import pytest

from gobanfast import Ruleset

TEXT = """
share:
- {id: rebind, when: {not: {host: api.example.com}}, action: refuse}
- {id: app, when: {path: /x/**, origin: "https://app.example.com"}, action: grant, methods: [PUT]}
- {id: all, when: {path: /x/**, origin: "https://*.example.com"}, action: withhold}
tests:
- {headers: {host: api.example.com, ASKS}, path: /x/1, TEST}
"""


ADD = "add it to its methods:"
MATCH = "share rules that match, in order:"


@pytest.mark.parametrize(
    ("test", "asks", "message"),
    [
        ("origin: 'https://app.example.com', share: granted, rule: app", "", None),
        ("origin: 'https://evil.test', share: withheld, rule: null", "", None),
        ("share: none, rule: null", "", None),
        ("origin: 'https://app.example.com', share: withheld, rule: all", "",
         "withheld by rule 'all', the rules say granted by rule 'app'; share rules that match, in order: app, all"),
        ("origin: 'https://evil.test', share: granted", "",
         "granted, the rules say withheld by no rule; share rules that match, in order: none; other rules own it"),
        ("origin: 'https://app.example.com', method: OPTIONS, share: granted",
         "access-control-request-method: DELETE",
         f"granted, the rules say withheld by rule 'app'; {MATCH} app, all; method not granted: {ADD}"),
        ("share: granted", "",
         f"granted, the rules say none by no rule; {MATCH} none; the test has no origin, so no page asks"),
    ],
)  # fmt: skip
def test_a_failure_says_which_share_rules_match(test: str, asks: str, message: str | None) -> None:
    """In decision order, and what else withholds."""
    found = Ruleset.from_text(TEXT.replace("TEST", test).replace("ASKS", asks)).failures()

    assert ([] if message is None else [message]) == [str(problem).split("test expects ", 1)[1] for problem in found]


def test_a_rule_that_no_page_asked_for() -> None:
    """A rule that matches and withholds nothing, because there is no Origin."""
    text = "share:\n- {id: a, when: {path: /x}, action: withhold}\n"
    (problem,) = Ruleset.from_text(text + "tests:\n- {path: /x, share: withheld}\n").failures()

    assert "share rules that match, in order: a; the test has no origin" in str(problem)
