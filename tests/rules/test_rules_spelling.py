"""Paths and header names that no request has in that spelling: a warning at the value, and the spelling that holds."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from gobanfast import RuleError
from gobanfast.engine import Engine
from gobanfast.rules import Ruleset
from rules_fakes import FakeAsnTable


def loaded(text: str) -> Ruleset:
    return Ruleset.from_text(text, source="rules.yaml", asn=FakeAsnTable())


def warnings(text: str) -> list[tuple[str, int, int, str]]:
    """(code, line, column, hint) of every warning."""
    return [(found.code, found.line, found.column, found.hint) for found in loaded(text).problems]


ENCODED = [
    # condition as written, what the hint says, the condition that is so, a target for which that holds
    ("'/a%20b'", "/a b", "/a b", "/a%20b"),
    ("'/caf%C3%A9/**'", "/café/**", "/café/**", "/caf%C3%A9/x"),
    ("{equals: '/100%25'}", "/100%", "{equals: '/100%'}", "/100%25"),
    ("{prefix: '/x%3Dy'}", "/x=y", "{prefix: /x=y}", "/x%3Dyz"),
    ("'/%ff'", "/ÿ", "/ÿ", "/%ff"),
    ("'/a%2520b'", "/a b", "/a b", "/a%20b"),
    ("'/a%2A'", r"path: {regex: '^/a\*$'}", r"{regex: '^/a\*$'}", "/a%2A"),
    ("'/a%3f/**'", r"path: {regex: '^/a\?/.*$'}", r"{regex: '^/a\?/.*$'}", "/a%3f/x/y"),
    ("{equals: '/a%23b'}", r"path: {regex: '^/a\#b$'}", r"{regex: '^/a\#b$'}", "/a%23b"),
    ("{prefix: '/a%23b'}", r"path: {regex: '^/a\#b'}", r"{regex: '^/a\#b'}", "/a%23bc"),
    ("{regex: '^/%2e(env|git)$'}", r"'^/\.(env|git)$'", r"{regex: '^/\.(env|git)$'}", "/%2eenv"),
    ("'/x%2fy'", "/x/y, which an encoded slash is read as too", "/x/y", "/x%2Fy"),
]


@pytest.mark.parametrize(("written", "hint", "right", "target"), ENCODED, ids=[case[0] for case in ENCODED])
@pytest.mark.parametrize("action", ["ban", "challenge", "log"])
def test_an_encoded_path_is_told_in_its_right_spelling(
    written: str, hint: str, right: str, target: str, action: str
) -> None:
    """The warning is at the value, and what it says to write holds for a request of that path."""
    text = "rules:\n- {{id: a, when: {{path: {0}}}, action: {1}}}\n"

    assert [("encoded-path", 2, 24 + written.index("'"), f"write {hint}")] == warnings(text.format(written, action))
    ruleset = loaded(text.format(right, action))
    assert () == ruleset.problems
    decision = Engine(ruleset).peek("192.0.2.1", path=target, method="GET", headers=[])
    assert ("a",) == (decision.matched or decision.logged)


@pytest.mark.parametrize(
    "written",
    [
        "/100%", "/50%of", "/%zz", "/a b", "/café", "[/b/c, '/b%2fc', '/b%2Fc']", "{regex: '%2[fF]'}",
        "{regex: '(?i)%2f'}", "['/a//b', /a/b]", "'/a/*'", "/c/", "'*'", "'**'",
    ],
)  # fmt: skip
def test_paths_that_hold_are_left_alone(written: str) -> None:
    """`%` alone is a character; all readings of a path under `allow`, and a regex for an encoded slash, are meant."""
    assert [] == warnings(f"rules:\n- {{id: a, when: {{path: {written}}}, action: allow}}\n")


def test_every_place_is_looked_at() -> None:
    """Lists, operators, aliases, and several in one rule, each at its own place."""
    text = """rules:
- id: a
  when:
    path: [/ok, "/a%20b"]
    header: {user-agent: curl, User_Agent: curl}
  action: ban
- id: b
  when: &same
    path:
      equals: "/%41"
      regex:
      - "^/x"
      - "^/%42"
  action: log
- id: c
  when: *same
  action: challenge
"""
    expected = [
        ("encoded-path", 4, 17, "write /a b"), ("header-name", 5, 32, "write user-agent"),
        ("encoded-path", 10, 15, "write /A"), ("encoded-path", 13, 9, "write '^/B'"),
        ("encoded-path", 16, 9, "write /A"), ("encoded-path", 16, 9, "write '^/B'"),
    ]  # fmt: skip
    assert expected == warnings(text)


def test_allowed_paths_with_several_readings() -> None:
    """`allow` holds when all readings do, so one that is read otherwise lets nobody in; a ban is right as it is."""
    text = "rules:\n- {{id: a, when: {{path: {0}}}, action: {1}}}\n"
    for written, other in (("/a//b", "/a/b"), ("/a;b", "/a"), ("/x/../b", "/b"), ("'/a%2fb/*'", "/a/b/x")):
        ruleset = loaded(text.format(written, "allow"))
        (found,) = ruleset.problems
        assert ("path-readings", True) == (found.code, f"is read as {other!r} too" in found.message)
        if "*" not in written:
            decision = Engine(ruleset).peek("192.0.2.1", path=written, method="GET", headers=[])
            assert () == decision.matched
    assert [] == warnings(text.format("/a//b", "ban"))


@pytest.mark.parametrize(
    ("name", "right"),
    [("User_Agent", "user-agent"), ("HTTP_USER_AGENT", "user-agent"), ("x.real.ip", "x-real-ip"), ("x_y-z", "x-y-z")],
)
def test_header_names_that_servers_drop(name: str, right: str) -> None:
    """Of rules, of tests and of fingerprint: fields. WSGI has no such header, so `absent` would always hold."""
    text = f"""fingerprint: {{fields: [{name}, accept]}}
rules:
- {{id: a, when: {{header: {{{name}: absent}}}}, action: log}}
tests:
- {{address: 192.0.2.1, headers: {{{name}: curl}}, expect: allow}}
"""
    expected = [("header-name", 1, 24), ("header-name", 3, 27), ("header-name", 5, 34)]
    assert [(*place, f"write {right}") for place in expected] == warnings(text)


@pytest.mark.parametrize("name", ["User Agent", "user-agent:", "HTTP_USER AGENT", "(user agent)"])
def test_no_header_name_is_told_the_right_one(name: str) -> None:
    """What is no token is an error, and the hint is the name that was meant."""
    with pytest.raises(RuleError, match="is not a header name; write user-agent, 1 to 64"):
        loaded(f"rules:\n- {{id: a, when: {{header: {{'{name}': absent}}}}, action: log}}\n")


def test_plain_requests_are_no_warning() -> None:
    """A path encoded in a test is a request's; it is the rule that is written decoded."""
    target = quote("/café au lait")
    text = f"""rules:
- {{id: a, when: {{path: /café au lait, header: {{user-agent: present, ":authority": absent}}}}, action: log}}
tests:
- {{address: 192.0.2.1, path: "{target}", headers: {{user-agent: curl}}, expect: allow}}
"""
    assert [] == warnings(text)
