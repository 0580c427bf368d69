"""Many patterns and texts in one look at a value, of a value no longer than 4 KB: the same answers as one by one."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset
from gobanfast.batch.columns import ACTIONS, CAUSES
from gobanfast.rules.regex import LONGEST, Regexes, Texts

PATTERNS = ("a+b", "^a", "b$", "(?-i)A", "a{2}", ".b", "\xe9", "[ab]{10,12}", "(?P<x>a)b", "a|b", "c", "")
TEXTS = st.text("abAB\xe9. ", max_size=14)


@given(patterns=st.lists(st.sampled_from(PATTERNS), max_size=150), text=TEXTS, ignore_case=st.booleans())
def test_patterns_together_equal_each(patterns: list[str], text: str, ignore_case: bool) -> None:
    """What a combination finds is what each pattern finds, once."""
    flags = re.IGNORECASE if ignore_case else 0
    plain = {pattern: pattern.replace("(?-i)A", "(?-i:A)") for pattern in patterns}
    expected = [i for i, pattern in enumerate(patterns) if re.search(plain[pattern], text, flags)]

    assert expected == sorted(Regexes(patterns, ignore_case=ignore_case).found(text))


@given(
    texts=st.lists(st.tuples(st.text("ab\xe9", min_size=1, max_size=8), st.integers(0, 4)), max_size=120), value=TEXTS
)
def test_texts_together_equal_each(texts: list[tuple[str, int]], value: str) -> None:
    """What one look finds is what looking for each finds, few texts or many."""
    assert {key for text, key in texts if text in value} == Texts(texts).found(value)


RULES = """
unparsable: {policy}
rules:
- {{id: regex, when: {{header: {{cookie: {{regex: "evil[0-9]"}}}}}}, action: ban}}
- {{id: contains, when: {{header: {{referer: {{contains: [bad.example, worse.example]}}}}}}, action: ban}}
- {{id: begins, when: {{header: {{cookie: {{prefix: "a=1"}}}}}}, action: challenge, priority: 200}}
- {{id: there, when: {{header: {{x-long: present}}}}, action: log}}
- {{id: path, when: {{path: {{regex: "[.]env$"}}}}, action: ban}}
- {{id: admin, when: {{path: /admin/**}}, action: ban}}
"""
UNPARSABLE = ("malformed-headers", "malformed-path")


@pytest.mark.parametrize(
    ("request_of", "action", "rule", "reason"),
    [
        ({"headers": [(b"cookie", b"x" * (LONGEST - 5) + b"evil1")]}, "ban", "regex", ""),
        ({"headers": [(b"cookie", b"x" * (LONGEST - 4) + b"evil1")]}, "challenge", None, "malformed-headers"),
        ({"headers": [(b"cookie", b"evil1" + b"x" * 60_000)]}, "challenge", None, "malformed-headers"),
        ({"headers": [(b"cookie", b"evil1"), (b"cookie", b"x" * LONGEST)]}, "challenge", None, "malformed-headers"),
        ({"headers": [(b"cookie", b"a=1" + b"x" * LONGEST)]}, "challenge", "begins", ""),
        ({"headers": [(b"referer", b"//bad.example/" + b"x" * LONGEST)]}, "challenge", None, "malformed-headers"),
        ({"headers": [(b"referer", "\xe9".encode() * (LONGEST // 2))]}, "allow", None, None),
        ({"headers": [(b"referer", "\xe9".encode() * (LONGEST // 2) + b"a")]}, "challenge", None, "malformed-headers"),
        ({"headers": [(b"x-long", b"x" * 20_000), (b"authorization", b"x" * 20_000)]}, "allow", None, None),
        ({"path": "/" + "x" * (LONGEST - 4) + ".env"}, "challenge", None, "malformed-path"),
        ({"path": "/" + "x" * (LONGEST - 5) + ".env"}, "ban", "path", ""),
        ({"path": "/admin/" + "x" * LONGEST}, "ban", "admin", ""),
        ({"path": "/?" + "x" * 60_000}, "allow", None, None),
    ],
)
def test_a_long_value_cannot_be_read_by_patterns(
    request_of: dict[str, Any], action: str, rule: str | None, reason: str | None
) -> None:
    """`regex` and `contains` read 4 KB; of a longer value `unparsable` decides, if no rule that can read it does."""
    engine = Engine(Ruleset.from_text(RULES.format(policy="challenge")))
    decision = engine.decide("192.0.2.1", **request_of)
    strict = Engine(Ruleset.from_text(RULES.format(policy="ban"))).decide("192.0.2.1", **request_of)

    assert (action, rule, reason) == (decision.action, decision.rule, decision.reason)
    assert ("ban" if reason in UNPARSABLE else action) == strict.action


def test_columns_have_the_same_limit() -> None:
    """A column with long values is decided as its rows are."""
    engine = Engine(Ruleset.from_text(RULES.format(policy="challenge")))
    cookies = ["evil1", "evil1" + "x" * LONGEST, "a=1" + "x" * LONGEST, None, "x" * LONGEST, "x" * (LONGEST + 1)]
    paths = ["/", "/.env", "/x" * LONGEST + "/.env", "/admin/" + "x" * LONGEST, "/" + "x" * LONGEST, "/a"]
    many = engine.decide_many(["192.0.2.1"] * 6, headers={"cookie": cookies}, path=paths)
    each = [
        engine.decide("192.0.2.1", headers=[] if cookie is None else [(b"cookie", cookie.encode())], path=path)
        for cookie, path in zip(cookies, paths, strict=True)
    ]

    assert ["ban", "ban", "challenge", "ban", "challenge", "challenge"] == [decision.action for decision in each]
    assert [decision.action for decision in each] == [ACTIONS[code] for code in many.action]
    assert [decision.cause for decision in each] == [CAUSES[code] for code in many.cause]
