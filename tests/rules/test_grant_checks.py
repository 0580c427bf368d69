"""What a grant cannot say: each problem with its typed reason, all of them at once, and what must be left alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from gobanfast import RuleError, Ruleset
from gobanfast.rules.text.grant_checks import grant_problems, public_suffix

FINE = ["https://app.example.com"]


def told(**says: Any) -> list[tuple[str, str, str]]:
    return [(found.field, found.value, found.reason) for found in grant_problems(**{"origins": FINE, **says})]


def test_all_problems_are_told_at_once() -> None:
    """In the order of the fields, each with the value as it was written."""
    found = told(
        origins=["http://example.com", "https://example.com/", "null"], credentials=True, methods=["trace", "G T"],
        headers=["r\xe9sum\xe9", "Cookie", "Access-Control-Allow-Origin"],
        expose=["*", "Set-Cookie", "Origin"], max_age=86401,
    )  # fmt: skip

    assert [
        ("origins", "http://example.com", "insecure"),
        ("origins", "https://example.com/", "invalid"),
        ("origins", "null", "prohibited"),
        ("methods", "trace", "forbidden"),
        ("methods", "G T", "invalid"),
        ("headers", "r\xe9sum\xe9", "invalid"),
        ("headers", "Cookie", "forbidden"),
        ("headers", "Access-Control-Allow-Origin", "prohibited"),
        ("expose", "*", "wildcard"),
        ("expose", "Set-Cookie", "forbidden"),
        ("expose", "Origin", "prohibited"),
        ("max_age", "86401", "bounds"),
    ] == found


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ("*", "wildcard"),
        ("re:.*", "wildcard"),
        ("re:https://[a-z]+\\.(invalid|example)", "wildcard"),
        ("re:https://.+\\.com", "wildcard"),
        ("re:https://([a-z0-9-]+\\.)*[a-z]{3,}\\.(io|dev)", "wildcard"),
        ("re:https://[a-z0-9-]+\\.[a-z]+\\.co\\.uk", "wildcard"),
        ("re:https://[a-z]+\\.shop\\.example", None),
        ("re:https://(.+\\.)?shop\\.(com|io|de)", None),
        ("re:https?://[a-z]+\\.shop\\.example", "insecure"),
        ("re:(https|http)://shop\\.example", "insecure"),
        ("re:https://shop\\.example|http://[a-z]\\.shop\\.example", "insecure"),
        ("re:http(s)?://shop\\.example", "insecure"),
        ("re:https?://(localhost|127\\.0\\.0\\.1):[0-9]+", None),
        ("re:https://http\\.shop\\.example(:[0-9]+)?", None),
        ("http://example.com", "insecure"),
        ("http://128.0.0.1", "insecure"),
        ("http://localhost.evil.com", "insecure"),
        ("http://localhost:*", None),
        ("http://localhost.", None),
        ("http://**.localhost:8080", None),
        ("http://127.8.9.1", None),
        ("http://[::1]:9090", None),
        ("http://[::ffff:7f00:1]", None),
        ("http://[::2]", "insecure"),
        ("chrome-extension://abcdefghijklmnop", None),
        ("https://**.com", "psl"),
        ("https://*.co.uk.", "psl"),
        ("https://**.github.io:8443", "psl"),
        ("https://**.me.github.io", None),
        ("https://github.io", None),
        ("http://**.com", "insecure"),
    ],
)
def test_credentials_ask_more_of_an_origin(origin: str, reason: str | None) -> None:
    """With credentials an origin is one of the user's own, over a line that nobody reads; without, any will do."""
    assert ([] if reason is None else [("origins", origin, reason)]) == told(origins=[origin], credentials=True)
    assert [] == told(origins=[origin])


def test_dangerous_words_lift_their_own_problem_alone() -> None:
    both = {"dangerously_allow_insecure": True, "dangerously_allow_public_suffix": True}

    assert [] == told(origins=["http://example.com"], credentials=True, dangerously_allow_insecure=True)
    assert [] == told(origins=["https://**.com"], credentials=True, dangerously_allow_public_suffix=True)
    assert [("origins", "http://**.com", "psl")] == told(
        origins=["http://**.com"], credentials=True, dangerously_allow_insecure=True
    )
    assert [("origins", "*", "wildcard"), ("origins", "null", "prohibited")] == told(
        origins=["*", "null"], credentials=True, **both
    )


def test_what_is_usual_is_fine() -> None:
    assert [] == told(
        credentials=True, methods=["*", "get", "PURGE"], headers=["*", "Authorization", "traceparent", "Last-Event-ID"],
        expose=["X-Request-Id", "Server-Timing"], max_age=600,
    )  # fmt: skip
    assert [] == told(expose=["*"], max_age=-1)
    assert [("max_age", "-2", "bounds")] == told(max_age=-2)
    assert [("origins", "", "missing")] == told(origins=[])


def test_a_problem_says_what_would_be_right() -> None:
    (found,) = grant_problems(origins=["http://example.com"], credentials=True)

    assert "'http://example.com' with credentials trusts everybody on the network" in found.message
    assert "dangerously_allow_insecure: true" in found.hint


def test_the_suffix_list_is_read_when_a_wildcard_gets_credentials() -> None:
    """Megabytes of list are no part of loading rules that need none."""
    code = (
        "import sys; from gobanfast.rules.text.grant_checks import grant_problems as told; "
        "told(origins=['https://**.a.com', 'https://b.com']); told(origins=['https://b.com'], credentials=True); "
        "assert 'publicsuffixlist' not in sys.modules; "
        "told(origins=['https://**.a.com'], credentials=True); assert 'publicsuffixlist' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert public_suffix("co.uk.")


def test_credentials_without_an_origin_say_what_is_missing() -> None:
    """Nobody has written the `*` that such a grant comes to."""
    with pytest.raises(RuleError) as caught:
        Ruleset.from_text("{version: 1, share: [{id: a, when: any, action: grant, credentials: true}]}")
    (problem,) = caught.value.problems
    assert "a grant with credentials and no origin lets every page act for the user" == problem.message
    assert ("wildcard", "write origin: under when:, or leave credentials out") == (problem.code, problem.hint)
