"""Columns of what is shared: every row is what `peek` says of it, preflights and unreadable headers too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset
from gobanfast._core.headers import PartialHeaders
from gobanfast.batch.columns import ACTIONS, CAUSES, NO_RULE, SHARED, Columns
from oracle.requests import OracleRequest
from oracle.rules import OracleNetworks, OracleRule
from rules_fakes import FakeAsnTable
from share_strategies import ADDRESSES, as_text, requests, rulesets

RULES = """
rules:
- {id: staff, when: {prefix: 192.0.2.0/28, not: {method: [DELETE]}}, action: allow}
- {id: tool, when: {header: {user-agent: {contains: evil}}}, action: ban}
- {id: name, when: {sni: [.bad.example]}, action: challenge}
share:
- {id: rebind, when: {not: {host: [api.example.com, "localhost:*"], path: [/healthz]}}, action: refuse}
- {id: writes, when: {cross_origin_write: true, not: {origin: ["https://app.example.com"]}}, action: refuse}
- {id: odd, when: {origin: malformed}, action: refuse, mode: shadow}
- {id: embed, when: {fetch_site: [cross-site], fetch_dest: [image], path: /private/**}, action: withhold}
- {id: app, when: {path: /api/**, origin: ["https://app.example.com", "https://*.example.com"]}, action: grant,
   credentials: true, methods: [PUT], headers: [x-a]}
- {id: agents, when: {path: /agents/**, origin: "https://app.example.com", header: {user-agent: {prefix: good}}},
   action: grant}
- {id: public, when: {path: /public/**}, action: grant}
"""
PUBLIC = "rules: []\nshare:\n- {id: public, when: {path: /public/**}, action: grant}\n"
NETWORKS = "share:\n- {id: near, when: {prefix: 192.0.2.0/24, origin: 'https://app.example.com'}, action: grant}\n"
ENGINES = [Engine(Ruleset.from_text(text)) for text in (RULES, PUBLIC, NETWORKS)]

HEADERS: dict[str, list[str | None]] = {
    "origin": [None, None, "https://app.example.com", "https://b.example.com", "null", "https://evil.test", "junk", "",
               "https://app.example.com\0", "http://api.example.com"],
    "host": [None, "api.example.com", "api.example.com:443", "localhost:9", "10.0.0.1", "evil test", ""],
    "sec-fetch-site": [None, None, "cross-site", "same-origin", "none", ""],
    "sec-fetch-dest": [None, "image", "empty"],
    "access-control-request-method": [None, "PUT", "DELETE", "GET"],
    "access-control-request-headers": [None, "x-a", "x-b"],
    "user-agent": [None, "good", "evil", "\r"],
}  # fmt: skip
rows = st.fixed_dictionaries(
    {
        "address": st.sampled_from(["192.0.2.1", "192.0.2.99", "198.51.100.7", "2001:db8::1", "?"]),
        "sni": st.sampled_from([None, "x.bad.example", "api.example.com", "-"]),
        "method": st.sampled_from([None, "GET", "POST", "DELETE", "OPTIONS", "OPTIONS", "OPTIONS", "get ", ""]),
        "path": st.sampled_from([None, "/api/x", "/public/x", "/private/x", "/agents/x", "/healthz", "/other", "/%00"]),
        "scheme": st.sampled_from([None, "http", "https", "wss"]),
        **{name: st.sampled_from(values) for name, values in HEADERS.items()},
    }
)


def said(columns: Columns) -> list[tuple[Any, ...]]:
    """(action, cause, rule, share, share rule) of each row."""
    rules = columns.compiled.rules
    names = [None if rule == NO_RULE else rules[rule].id for rule in columns.rule.tolist()]
    sharing = [None if rule == NO_RULE else rules[rule].id for rule in columns.share_rule.tolist()]
    actions = [ACTIONS[number] for number in columns.action.tolist()]
    causes = [CAUSES[number] for number in columns.cause.tolist()]
    shares = [SHARED[number] or None for number in columns.share.tolist()]
    return list(zip(actions, causes, names, shares, sharing, strict=True))


@settings(max_examples=300, deadline=None)
@given(
    asked=st.lists(rows, min_size=1, max_size=12),
    given_columns=st.sets(st.sampled_from([*HEADERS, "method", "path", "scheme", "sni"]), min_size=4),
    number=st.integers(0, len(ENGINES) - 1),
)
def test_rows_equal_decisions(asked: list[dict[str, Any]], given_columns: set[str], number: int) -> None:
    """With all columns or some of them: admission and sharing are those of `peek` on what they say of each row."""
    engine = ENGINES[number]
    read = set(engine.compiled.plan.names)
    names = tuple(sorted(given_columns & HEADERS.keys() & read))
    own = {name for name in ("method", "path", "scheme", "sni") if name in given_columns}
    decisions = []
    for row in asked:
        pairs = [(name.encode(), row[name].encode()) for name in names if row[name] is not None]
        signals = {name: row[name] for name in own}
        headers = PartialHeaders(pairs, names) if names else None
        decisions.append(engine.peek(row["address"], headers=headers, **signals))
    expected = [(d.action, d.cause, d.rule, d.share, d.share_rule) for d in decisions]
    columns = {name: [row[name] for row in asked] for name in own}
    shorts = {name: [row[name] for row in asked] for name in names if name in ("origin", "host")}
    others = {name: [row[name] for row in asked] for name in names if name not in shorts}

    found = engine.decide_many([row["address"] for row in asked], headers=others, **shorts, **columns)

    assert expected == said(found)


def test_counts_and_sets_of_rows() -> None:
    """Rows of a share rule are a set, and what is shared is counted."""
    found = ENGINES[1].decide_many(
        ["192.0.2.1"] * 4, path=["/public/1", "/x", "/public/2", "/public/3"], origin=["https://a.test", None] * 2
    )

    assert [1, 0, 1, 1] == found.share.tolist()  # static *, so without an Origin, too
    assert {0, 2, 3} == set(found.rows("public"))
    assert {"granted": 3, "withheld": 0, "refused": 0} == found.shares()


def test_rules_without_sharing_have_columns_that_take_no_memory() -> None:
    """All zeros and no rule, in one item for all rows."""
    found = Engine(Ruleset.from_text("rules:\n- {id: a, when: any, action: ban}\n")).decide_many(["192.0.2.1"] * 9)

    assert ([0] * 9, [NO_RULE] * 9) == (found.share.tolist(), found.share_rule.tolist())
    assert (0,) == found.share.strides
    assert {"granted": 0, "withheld": 0, "refused": 0} == found.shares()


def test_columns_of_arrow_and_numpy_and_wrong_ones() -> None:
    """Origin and host are columns as any header's, which are not named twice."""
    origins = ["https://app.example.com", "https://evil.test"]
    hosts = ["api.example.com"] * 2
    expected = ["granted", "withheld"]
    for column in (origins, np.array(origins), [text.encode() for text in origins]):
        found = ENGINES[0].decide_many(["192.0.2.1"] * 2, origin=column, host=hosts, path=["/api/x"] * 2)
        assert expected == [SHARED[number] for number in found.share.tolist()]
    with pytest.raises(ValueError, match="'Origin' is there twice"):
        ENGINES[0].decide_many(["192.0.2.1"], origin=["null"], headers={"Origin": ["null"]})
    with pytest.raises(TypeError, match="scheme is one text"):
        ENGINES[0].decide_many(["192.0.2.1"], scheme="https")
    with pytest.raises(ValueError, match="2 items in column 'host' for 1 rows"):
        ENGINES[0].decide_many(["192.0.2.1"], host=hosts)


def test_a_replay_says_what_is_shared() -> None:
    """As its decisions do, with the host that a trusted proxy names."""
    engine = Engine(Ruleset.from_text(RULES), clock=lambda: 0.0)
    headers = [[(b"origin", b"https://app.example.com")], [(b"origin", b"https://evil.test")], []]

    found = engine.replay(
        ["192.0.2.1"] * 3, times=[0, 1, 2], headers=headers, path=["/api/x", "/api/x", "/x"], method=["GET"] * 3,
        host=["api.example.com", "api.example.com", "10.0.0.1"], scheme=["https"] * 3,
    )  # fmt: skip

    assert ["granted", "withheld", "refused"] == [SHARED[number] for number in found.share.tolist()]
    assert ["app", None, "rebind"] == [rule for *_, rule in said(found)]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rules=rulesets(),
    asked=st.lists(st.tuples(st.sampled_from(ADDRESSES[1:]), requests()), min_size=6, max_size=12),
    kept=st.sets(st.sampled_from(["origin", "host", "sec-fetch-site", "sec-fetch-mode", "user-agent", "cookie"])),
)
def test_rows_of_random_rules_equal_decisions(
    rules: list[OracleRule], asked: list[tuple[str, OracleRequest]], kept: set[str]
) -> None:
    """Rules of several effects with all conditions that there are: of what columns say, the decisions of `peek`."""
    engine = Engine(Ruleset.from_text(as_text(rules), asn=FakeAsnTable(OracleNetworks())))  # type: ignore[arg-type]
    names = tuple(sorted(kept | {"access-control-request-method"} & set(engine.compiled.plan.names)))
    names = tuple(name for name in names if name in engine.compiled.plan.names)
    said_of = [{name.lower().decode("latin-1"): value.decode("latin-1") for name, value in request.headers or ()}
               for _, request in asked]  # fmt: skip
    decisions = []
    for (address, request), values in zip(asked, said_of, strict=True):
        pairs = [(name.encode(), values[name].encode()) for name in names if name in values]
        decisions.append(
            engine.peek(address, headers=PartialHeaders(pairs, names) if names else None, method=request.method,
                        path=request.path, scheme=request.scheme)
        )  # fmt: skip
    expected = [(d.action, d.cause, d.rule, d.share, d.share_rule) for d in decisions]

    found = engine.decide_many(
        [address for address, _ in asked],
        headers={name: [values.get(name) for values in said_of] for name in names},
        method=[request.method for _, request in asked],
        path=[request.path for _, request in asked],
        scheme=[request.scheme for _, request in asked],
    )

    assert expected == said(found)
