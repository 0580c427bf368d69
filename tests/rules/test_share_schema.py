"""JSON Schema of share rules, negations and their tests: what it refuses, loading refuses, too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import RuleError, Ruleset
from gobanfast.rules.text.json_schema import json_schema

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = jsonschema.Draft202012Validator(json_schema())


def loads(data: Any) -> bool:
    """Whether it is a rules file; its inline tests are not run."""
    try:
        Ruleset.from_text(json.dumps(data))
    except RuleError:
        return False
    return True


def rule(**keys: Any) -> dict[str, Any]:
    return {"share": [{"id": "a", "when": "any", "action": "grant", **keys}]}


def case(**keys: Any) -> dict[str, Any]:
    return {**rule(), "tests": [keys]}


GOOD = [
    rule(),
    rule(when={"path": "/x/**", "origin": ["https://app.example.com"], "not": {"method": "DELETE"}}, credentials=True,
         methods=["PUT"], headers="x-a", expose=["x-b"], max_age="10m", trace_headers=False),
    rule(action="refuse", when={"cross_origin_write": True, "not": {"origin": "https://a.example.com"}}),
    rule(action="withhold", when={"fetch_site": ["cross-site", "absent"], "fetch_mode": "no-cors"}),
    rule(action="withhold", when={"fetch_dest": "image"}),
    rule(action="refuse", when={"not": {"host": ["a.example.com", "localhost:*"]}}, mode="shadow", priority=5),
    {"rules": [{"id": "a", "when": {"not": {"header": {"x-a": "1"}, "prefix": "192.0.2.0/24"}}, "action": "ban"}]},
    {"sets": {"apps": {"origin": ["https://a.example.com"], "host": "a.example.com"}},
     **rule(when={"origin": "@apps", "host": "@apps"})},
    case(origin="https://app.example.com", share="granted", rule="a"),
    case(path="/x", scheme="https", headers={"host": "a"}, share="none", expect="allow"),
]  # fmt: skip
BAD = [
    rule(action="allow"),
    rule(key="client"),
    rule(action="refuse", credentials=False),
    rule(action="withhold", methods=["PUT"]),
    rule(credentials="yes"),
    rule(when={}),
    rule(when={"not": {}}),
    rule(when={"not": {"header": {"x-a": "1", "x-b": "2"}}}),
    rule(when={"not": {"sni": "a.example"}}),
    rule(when={"not": {"not": {"method": "GET"}}}),
    rule(when={"fetch_site": "cross"}),
    rule(when={"fetch_dest": "picture"}),
    rule(when={"cross_origin_write": "maybe"}),
    {"share": [{"id": "a", "action": "grant"}]},
    {"sets": {"apps": {"fetch_site": "cross-site"}}, **rule()},
    case(share="granted"),
    case(share="granted", scheme="https", mount="/x"),
    case(path="/x"),
    case(path="/x", share="refuse"),
    case(path="/x", share="granted", scheme="ftp"),
]


@pytest.mark.parametrize("data", GOOD, ids=json.dumps)
def test_what_loads_is_good_by_the_schema(data: Any) -> None:
    """Share rules, negations and tests in all their forms."""
    assert loads(data)
    assert [] == [error.message for error in SCHEMA.iter_errors(data)]


@pytest.mark.parametrize("data", BAD, ids=json.dumps)
def test_what_is_wrong_is_red_and_does_not_load(data: Any) -> None:
    """Wrong keys, words and combinations, at both."""
    assert not SCHEMA.is_valid(data)
    assert not loads(data)


VALUES = st.sampled_from([
    None, True, False, 0, 1, 600, -1, 1.5, "", "x", "any", "10m", "0s", "25h", "*", "GET", "absent", "present",
    "malformed",
    "cross-site", "https://a.example.com", "a.example.com", "@none", [], [""], ["x", 1], ["GET", "PUT"], {}, {"x": "y"},
    {"method": "GET"}, {"origin": "https://a.example.com"}, {"header": {"a": "b"}}, "granted", "grant", "refuse",
])  # fmt: skip
KEYS = st.sampled_from([
    "id", "when", "action", "mode", "priority", "reason", "credentials", "methods", "headers", "expose", "max_age",
    "trace_headers", "dangerously_allow_insecure", "dangerously_allow_public_suffix", "weigh",
])  # fmt: skip
CONDITIONS = st.sampled_from([
    "origin", "host", "fetch_site", "fetch_mode", "fetch_dest", "cross_origin_write", "not", "method", "path", "header",
    "prefix",
])  # fmt: skip
SAID = st.sampled_from(["origin", "share", "expect", "rule", "scheme", "path", "headers", "method", "mount"])


@settings(max_examples=300, deadline=None)
@given(
    keys=st.dictionaries(KEYS, VALUES, max_size=2),
    when=st.dictionaries(CONDITIONS, VALUES, max_size=2),
    inside=st.dictionaries(CONDITIONS, VALUES, max_size=2),
    said=st.none() | st.dictionaries(SAID, VALUES, max_size=3),
)
def test_what_the_schema_refuses_does_not_load(
    keys: dict[str, Any], when: dict[str, Any], inside: dict[str, Any], said: dict[str, Any] | None
) -> None:
    """Whatever is written: an editor is never red over a file that loads."""
    conditions = {**when, **({"not": inside} if inside else {})}
    data = rule(**{**({"when": conditions} if conditions else {}), **keys})
    if said is not None:
        data["tests"] = [said]

    assert SCHEMA.is_valid(data) or not loads(data), [error.message for error in SCHEMA.iter_errors(data)]
