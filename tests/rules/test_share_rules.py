"""Rules about sharing by example: what cannot be read, preflights, ownership, counters, swaps, and rules without them."""

from __future__ import annotations

from typing import Any

import pytest

from gobanfast import Engine, Ruleset
from gobanfast._core.headers import PartialHeaders
from rules_fakes import FakeAsnTable

APP = (b"origin", b"https://app.example.com")
HOST = (b"host", b"api.example.com")


def engine_of(share: str = "[]", rules: str = "[]", head: str = "") -> Engine:
    text = f"{head}rules: {rules}\nshare: {share}\n"
    return Engine(Ruleset.from_text(text, asn=FakeAsnTable()))  # type: ignore[arg-type]


def preflight(method: bytes = b"PUT", names: bytes | None = None, **more: Any) -> dict[str, Any]:
    headers = [HOST, APP, (b"access-control-request-method", method)]
    if names is not None:
        headers.append((b"access-control-request-headers", names))
    headers += more.pop("headers", [])
    return {"method": "OPTIONS", "path": "/x", "headers": headers, **more}


# ---- who writes


@pytest.mark.parametrize(
    ("method", "headers", "share"),
    [
        ("X" * 33, [APP, HOST], "refused"),
        ("a b", [APP, HOST], "refused"),
        (None, [APP, HOST], None),
        ("POST", [APP, HOST], "refused"),
        ("POST", [(b"origin", b"https://api.example.com"), HOST], None),
        ("POST", [(b"origin", b"evil.example/x://api.example.com"), HOST], "refused"),
        ("POST", [(b"origin", b"://api.example.com"), HOST], "refused"),
        ("POST", [(b"origin", b"1s://api.example.com"), HOST], "refused"),
        ("POST", PartialHeaders([APP], ("origin", "sec-fetch-site")), None),
        ("POST", PartialHeaders([APP], ("origin", "sec-fetch-site", "host")), "refused"),
        ("POST", PartialHeaders([(b"sec-fetch-site", b"cross-site")], ("sec-fetch-site",)), "refused"),
        ("POST", PartialHeaders([(b"sec-fetch-site", b"none")], ("sec-fetch-site",)), None),
        ("POST", PartialHeaders([], ("sec-fetch-site",)), None),
        ("POST", [(b"x", b"\0"), APP, HOST], None),
    ],
    ids=str,
)
def test_cross_origin_writes(method: str | None, headers: Any, share: str | None) -> None:
    """Only GET, HEAD and OPTIONS change nothing, so that what is no method may; an Origin without a scheme is of no host;
    headers that a source does not keep are not absent ones."""
    engine = engine_of("[{id: writes, when: {cross_origin_write: true}, action: refuse}]")

    assert share == engine.decide("192.0.2.1", method=method, path="/x", headers=headers).share


# ---- what cannot be read


@pytest.mark.parametrize(
    ("rules", "asked"),
    [
        ("[{id: s, when: {sni: a.example}, action: refuse}]", {"sni": "a..b"}),
        ("[{id: s, when: {ja4_prefix: t13}, action: withhold}]", {"ja4": "none"}),
        ("[{id: s, when: {header: {x-a: b}, path: /x, method: PUT}, action: grant}]",
         {"headers": [(b"x", b"\0")], "path": "bad", "method": "a b"}),
        ("[{id: s, when: {not: {header: {x-a: {regex: b}}}}, action: refuse}]", {"headers": [(b"x-a", b"c" * 5000)]}),
        ("[{id: s, when: {host: a.example, origin: 'https://a.example'}, action: grant}]", {"headers": [HOST, HOST]}),
        ("[{id: s, when: {lookalike: a.example}, action: refuse}]", {"sni": "a..b", "headers": []}),
    ],
    ids=str,
)  # fmt: skip
def test_only_rules_about_admission_make_a_request_unparsable(rules: str, asked: dict[str, Any]) -> None:
    """A signal that rules about sharing alone ask for may be whatever it is; one that both ask for must be readable."""
    other = "[{id: a, when: {header: {x-a: z}, prefix: 10.0.0.0/8}, action: ban}, {id: n, when: {alpn: h3}, action: ban}]"
    quiet = engine_of(rules, head="unparsable: ban\n").decide("192.0.2.1", **asked)
    long = engine_of(rules, other, head="unparsable: ban\n").decide("192.0.2.1", headers=[(b"x-a", b"c" * 5000)])
    same = engine_of("[]", rules.replace("withhold", "ban").replace("refuse", "ban").replace("grant", "ban"),
                     head="unparsable: ban\n").decide("192.0.2.1", **asked)  # fmt: skip

    assert ("none", "allow", "none") == (quiet.cause, quiet.action, long.cause)
    assert same.cause in ("unparsable", "rule")


@pytest.mark.parametrize(
    ("negated", "asked"),
    [
        ("path: /healthz", {"path": "bad"}),
        ("path: /healthz", {"path": "/\n"}),
        ("path: /healthz", {"path": "/a%00"}),
        ("path: /healthz", {"path": "/" + "%2e/" * 20_000}),
        ("method: GET", {"method": "G T"}),
        ("method: GET", {"method": "\ud800"}),
        ("header: {x-a: b}", {"headers": [(b"x", b"\0")]}),
        ("host: api.example.com", {"headers": [HOST, HOST]}),
        ("host: api.example.com", {"headers": [(b"host", b"a/b")]}),
        ("origin: 'https://app.example.com'", {"headers": [APP, APP]}),
        ("prefix: 10.0.0.0/8", {"address": "junk"}),
    ],
    ids=str,
)
def test_malformed_satisfies_a_negation_in_restrictive_rules_only(negated: str, asked: dict[str, Any]) -> None:
    """A request that hides what it asks for does not get around a rule that refuses all but some; it is not let in by one
    that grants all but some."""
    asked = {"address": "192.0.2.1", **asked}
    address = asked.pop("address")
    restrictive = engine_of(f"[{{id: r, when: {{not: {{{negated}}}}}, action: refuse}}]")
    permissive = engine_of(rules=f"[{{id: a, when: {{not: {{{negated}}}}}, action: allow}}]")

    assert "refused" == restrictive.decide(address, **asked).share
    assert None is permissive.decide(address, **asked).rule


@pytest.mark.parametrize(
    "negated",
    ["path: /healthz", "method: GET", "header: {x-a: b}", "host: a.example", "origin: 'https://a.example'",
     "prefix: 10.0.0.0/8", "asn: 1", "cross_origin_write: true", "fetch_site: none", "fingerprint: 'gh2:" + "0" * 32 + "'"],
)  # fmt: skip
def test_what_nobody_knows_satisfies_no_negation(negated: str) -> None:
    """Unknown is not absent: neither a rule that refuses nor one that lets in holds."""
    engine = engine_of(
        f"[{{id: r, when: {{not: {{{negated}}}}}, action: refuse}}]",
        f"[{{id: a, when: {{not: {{{negated}}}}}, action: allow}}]",
    )
    decision = engine.decide(None)

    assert (None, None) == (decision.rule, decision.share)
