"""Differences of share rules and negations between two rulesets, in words."""

from __future__ import annotations

import pytest

from gobanfast import Ruleset
from gobanfast.rules.check.rules_diff import changes, touched

GRANT = "share:\n- {id: app, when: {path: /api/**, origin: 'https://app.example.com'}, action: grant%s}\n"


def details(old: str, new: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {each.name: (each.what, each.details) for each in changes(Ruleset.from_text(old), Ruleset.from_text(new))}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", ", credentials: true", ("credentials false -> true",)),
        (", methods: [PUT]", ", methods: [PUT, DELETE]", ("methods +DELETE",)),
        (", headers: [x-a]", ", headers: [x-b]", ("headers +x-b", "headers -x-a")),
        (", expose: x-a", "", ("expose -x-a",)),
        ("", ", max_age: 10m", ("max_age the browser's -> 10m",)),
        (", max_age: 10m", ", max_age: 1h", ("max_age 10m -> 1h",)),
        ("", ", trace_headers: false", ("trace_headers true -> false",)),
        ("", ", mode: shadow", ("mode enforce -> shadow",)),
        ("", "", None),
    ],
)
def test_what_a_grant_gives(old: str, new: str, expected: tuple[str, ...] | None) -> None:
    """Every field of a grant that differs, lists by their entries; nothing where nothing does."""
    found = details(GRANT % old, GRANT % new)

    assert ({} if expected is None else {"app": ("changed", expected)}) == found
    both = [rule.id for rule in touched(Ruleset.from_text(GRANT % old), Ruleset.from_text(GRANT % new))]
    assert ([] if expected is None else ["app", "app"]) == both


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("method: PUT", "method: PUT, not: {path: /x}", ("not path +path glob: /x",)),
        ("method: PUT, not: {path: /x}", "method: PUT", ("not path -path glob: /x",)),
        ("not: {origin: 'https://a.example.com'}", "not: {origin: 'https://b.example.com'}",
         ("not origin +https://b.example.com", "not origin -https://a.example.com")),
        ("not: {header: {x-a: '1'}}", "not: {header: {x-a: absent}}",
         ("not header +x-a: absent", "not header -x-a: 1")),
        ("cross_origin_write: true", "cross_origin_write: false",
         ("cross_origin_write +False", "cross_origin_write -True")),
        ("host: a.example", "host: [a.example, 'b.example:*']", ("host +b.example:*",)),
        ("not: {prefix: 192.0.2.0/24}", "not: {prefix: 192.0.2.0/25}",
         ("not prefix +192.0.2.0/25", "not prefix -192.0.2.0/24")),
    ],
)  # fmt: skip
def test_conditions_and_negations(old: str, new: str, expected: tuple[str, ...]) -> None:
    """What stands under `not:` is told apart from what does not."""
    text = "share:\n- {id: a, when: {%s}, action: refuse}\n"

    assert {"a": ("changed", expected)} == details(text % old, text % new)


def test_a_rule_that_changes_its_effect() -> None:
    """An id that was a rule of admission and is one of sharing is the same rule with another effect."""
    old = "rules:\n- {id: a, when: {path: /x}, action: ban}\n"
    new = "share:\n- {id: a, when: {path: /x}, action: refuse}\n"

    assert {"a": ("changed", ("effect admit -> share", "action ban -> refuse"))} == details(old, new)
