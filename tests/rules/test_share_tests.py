"""Inline tests of what is shared, and what a failure says."""

from __future__ import annotations

import pytest

from gobanfast import Ruleset

TEXT = """
share:
- {id: rebind, when: {not: {host: api.example.com}}, action: refuse}
- {id: app, when: {path: /x/**, origin: "https://app.example.com"}, action: grant, methods: [PUT]}
- {id: apps, when: {path: /x/**, origin: "https://*.example.com"}, action: withhold}
tests:
- {headers: {host: api.example.com, ASKS}, path: /x/1, TEST}
"""


@pytest.mark.parametrize(
    ("test", "asks", "message"),
    [
        ("origin: 'https://app.example.com', share: granted, rule: app", "", None),
        ("origin: 'https://evil.test', share: withheld, rule: null", "", None),
        ("share: none, rule: null", "", None),
        ("origin: 'https://app.example.com', share: withheld, rule: apps", "",
         "test expects withheld by rule 'apps', the rules say granted by rule 'app'; "
         "share rules that match, in order: app, apps"),
        ("origin: 'https://evil.test', share: granted", "",
         "test expects granted, the rules say withheld by no rule; "
         "share rules that match, in order: none; other rules own the resource"),
        ("origin: 'https://app.example.com', method: OPTIONS, share: granted", "access-control-request-method: DELETE",
         "test expects granted, the rules say withheld by rule 'app'; share rules that match, in order: app, apps; "
         "the grant does not cover the method of the preflight"),
        ("share: granted", "", "test expects granted, the rules say none by no rule; "
         "share rules that match, in order: none"),
    ],
)  # fmt: skip
def test_a_failure_says_which_share_rules_match(test: str, asks: str, message: str | None) -> None:
    """In decision order, and what else withholds."""
    found = Ruleset.from_text(TEXT.replace("TEST", test).replace("ASKS", asks)).failures()

    assert ([] if message is None else [message]) == [str(problem).split(": ", 1)[1] for problem in found]


def test_a_grant_that_no_page_asked_for() -> None:
    """A rule that matches and grants to nobody, because there is no Origin."""
    text = "share:\n- {id: a, when: {path: /x}, action: grant, credentials: true}\n"
    (problem,) = Ruleset.from_text(text + "tests:\n- {path: /x, share: granted}\n").failures()

    assert "share rules that match, in order: a; the test has no origin" in str(problem)
