"""Importer of Jaeger's strategies.json: rate classes of a service, warnings, and every problem with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import RuleError
from gobanfast.rules.text.jaeger_strategies import RateClass, read_strategies

TEXT = """{
  "service_strategies": [
    {
      "service": "shop", "type": "probabilistic", "param": 0.8,
      "operation_strategies": [
\t\t{"operation": "POST /orders/{id}/pay", "type": "probabilistic", "param": 1},
        {"operation": "/health", "type": "probabilistic", "param": 0.2},
        {"operation": "Orders.Charge", "type": "probabilistic", "param": 0.4}
      ]
    },
    {"service": "search", "type": "ratelimiting", "param": 5}
  ],
  "default_strategy": {
    "type": "probabilistic", "param": 0.5,
    "operation_strategies": [
      {"operation": "/health", "type": "probabilistic", "param": 0.0},
      {"operation": "/users/:id/<int:page>", "type": "probabilistic", "param": 0.1}
    ]
  }
}
"""
HEALTH = RateClass("/health", "/health", None, "fixed", 0.0)
USERS = RateClass("/users/:id/<int:page>", "/users/*/*", None, "fixed", 0.1)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("shop", [
            RateClass("POST /orders/{id}/pay", "/orders/*/pay", "POST", "fixed", 1.0),
            RateClass("/health", "/health", None, "fixed", 0.2), USERS, RateClass("rest", None, None, "fixed", 0.8),
        ]),
        ("search", [HEALTH, USERS, RateClass("rest", None, None, "target", per_second=5.0)]),
        ("other", [HEALTH, USERS, RateClass("rest", None, None, "fixed", 0.5)]),
    ],
)  # fmt: skip
def test_classes_of_a_service(service: str, expected: list[RateClass]) -> None:
    """Its operations, those of the default that it has not, then the rest; parameters of routes are one segment."""
    assert tuple(expected) == read_strategies(TEXT, service=service).classes


def test_what_is_no_route_is_a_warning() -> None:
    """With its place in the file, behind a line with tabs."""
    [warning] = read_strategies(TEXT, service="shop", source="s.json").warnings
    assert () == read_strategies(TEXT, service="other").warnings

    assert "s.json:8:23: operation 'Orders.Charge' is no HTTP route; it gets no class" == str(warning)
    assert ("warning", "operation-without-path") == (warning.severity, warning.code)


@pytest.mark.parametrize("text", ["{}", '{"default_strategy": {}}', '{"service_strategies": null}'])
def test_without_a_default_it_is_jaegers(text: str) -> None:
    assert (RateClass("rest", None, None, "fixed", 0.001),) == read_strategies(text, service="x").classes


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ('{"default_strategy": {"type": "probabilistic", "param": 2}}',
         ["1:57: param is 2; give a number from 0 to 1"]),
        ('{"default_strategy": {"type": "adaptive", "param": 1}}',
         ["1:31: type is 'adaptive'; write probabilistic or ratelimiting"]),
        ('{"default_strategy": {"param": 1}}', ["1:22: type is missing; write probabilistic or ratelimiting"]),
        ('{"default_strategy": {"type": "ratelimiting", "param": -1}}',
         ["1:56: param is -1; give a number from 0 to 1e+09"]),
        ('{"default_strategy": {"type": "probabilistic", "param": NaN}}',
         ["1:57: param is nan; give a number from 0 to 1"]),
        ('{"default_strategy": {"type": "probabilistic", "param": true}}',
         ["1:57: param is true; give a number from 0 to 1"]),
        ('{"service_strategies": [{"type": "probabilistic", "param": 1}, 7,\n {"service": "a", "rate": 1}]}',
         ["1:25: service is missing; write its name", "1:64: service is 7; write a mapping",
          "2:19: unknown key 'rate'; known keys: service, type, param, operation_strategies"]),
        ('{"service_strategies": [{"service": "a"}, {"service": "a"}]}',
         ["1:55: service 'a' is listed twice; merge its strategies"]),
        ('{"service_strategies": {"a": 1}}', ["1:24: service_strategies is a mapping; write a list"]),
        ('{"default_strategy": {"operation_strategies": [{"operation": "/", "type": "ratelimiting", "param": 1}]}}',
         ["1:75: an operation cannot be ratelimiting; write probabilistic"]),
        ('{"a": 1}', ["1:2: unknown key 'a'; known keys: default_strategy, service_strategies"]),
        ("[]", ["1:1: file is a list; write a mapping"]),
        ("{", ["1:2: not JSON: expecting property name enclosed in double quotes"]),
        ("[" * 100_000, ["1:1: not JSON: nested too deep"]),
    ],
)  # fmt: skip
def test_problems_are_told_with_their_places(text: str, problems: list[str]) -> None:
    """All at once."""
    with pytest.raises(RuleError) as caught:
        read_strategies(text, service="a", source="s.json")

    assert [f"s.json:{problem}" for problem in problems] == [str(problem) for problem in caught.value.problems]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5) | st.sampled_from(["probabilistic"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["service", "type", "param", "operation", "operation_strategies", "service_strategies",
                         "default_strategy", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_any_json_is_read_or_refused(data: Any) -> None:
    """Classes with a probability or a rate each, the last for the rest; or a RuleError."""
    try:
        found = read_strategies(json.dumps(data), service="a")
    except RuleError:
        return
    assert (None, None) == (found.classes[-1].path, found.classes[-1].method)
    for item in found.classes:
        assert (item.probability is None) != (item.per_second is None)
