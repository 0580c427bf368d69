"""Limits in the words of slowapi, Flask-Limiter and Django REST framework, and the rules made of them."""

from __future__ import annotations

import json

import pytest

from gobanfast import RuleError, Ruleset
from gobanfast.rules.importers import import_rules
from gobanfast.rules.importers.limit_texts import limit_texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100/minute", [(100, 60)]),
        ("5 per 10 seconds", [(5, 10)]),
        ("10/m", [(10, 60)]),
        ("1000/day", [(1000, 86400)]),
        ("1/second; 100/hour", [(1, 1), (100, 3600)]),
        ("5/15minutes|2 per 1 HOUR", [(5, 900), (2, 3600)]),
        ("10 per month", [(10, 30 * 86400)]),
    ],
)
def test_texts_of_limits(text, expected):
    assert expected == limit_texts(text)


@pytest.mark.parametrize("text", ["", "100", "a/minute", "5/fortnight", "0/minute", "5/0 minutes", "5/minute,", "-1/s"])
def test_texts_that_are_no_limits(text):
    with pytest.raises(ValueError, match="limit "):
        limit_texts(text)


def test_slowapi():
    options = {"default_limits": ["200/day", "50/hour"], "routes": {"/home": "5/minute", "/x": "1/second;9/hour"}}
    text, warnings = import_rules("slowapi", json.dumps(options), "limits.json")
    made = [(rule.id, rule.limit.limit, rule.limit.window) for rule in Ruleset.from_text(text).rules]

    assert [
        ("default-1", 200, 86400.0), ("default-2", 50, 3600.0), ("/home", 5, 60.0), ("/x-1", 1, 1.0),
        ("/x-2", 9, 3600.0),
    ] == made  # fmt: skip
    assert ["default_limits left out routes"] == [problem.message[:30] for problem in warnings]


def test_rest_framework():
    rates = {"DEFAULT_THROTTLE_RATES": {"anon": "100/day", "user": "10/min", "off": None}}
    text, warnings = import_rules("drf", json.dumps(rates), "rates.json")

    assert [("anon", 100), ("user", 10)] == [(rule.id, rule.limit.limit) for rule in Ruleset.from_text(text).rules]
    assert ["user"] == [problem.message.split("'")[1] for problem in warnings]


def test_a_window_of_more_than_a_day_is_told():
    text, warnings = import_rules("slowapi", json.dumps({"default_limits": ["600/month"]}), "limits.json")

    assert (20, 86400.0) == (
        Ruleset.from_text(text).rules[0].limit.limit,
        Ruleset.from_text(text).rules[0].limit.window,
    )
    assert "30 days, the longest is one" in warnings[0].message


@pytest.mark.parametrize(
    "options", [{}, {"default_limits": "5/minute"}, {"routes": ["/"]}, {"default_limits": ["5/x"]}]
)
def test_options_that_give_no_rules(options):
    with pytest.raises(RuleError):
        import_rules("slowapi", json.dumps(options), "limits.json")
