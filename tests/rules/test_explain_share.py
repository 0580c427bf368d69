"""Explanations of what is shared: values that decide, ownership, what varies, preflights, the browser's next step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset

RULES = """
rules:
- {id: bad, when: {header: {user-agent: {contains: evil}}, not: {path: /open/**, prefix: 198.51.100.0/24}}, action: ban}
- {id: odd, when: {not: {header: {accept: {contains: html, prefix: text}}, method: [GET, HEAD]}}, action: challenge}
share:
- {id: rebind, when: {not: {host: [api.example.com, "localhost:*"], path: [/healthz]}}, action: refuse}
- {id: writes, when: {cross_origin_write: true, not: {origin: "https://app.example.com"}}, action: refuse, reason: CSRF}
- {id: same, when: {path: /own/**, cross_origin_write: false, method: [POST, PUT]}, action: withhold}
- {id: later, when: {path: /api/**, fetch_site: same-site}, action: withhold, mode: shadow}
- {id: app, when: {path: /api/**, origin: ["re:https://b[.]example[.]com", "https://app.example.com"]}, action: grant,
   credentials: true, methods: [PUT], headers: [x-a], expose: [x-b], max_age: 10m}
- {id: apps, when: {path: /api/**, origin: "https://*.example.com", header: {cookie: present}}, action: withhold}
- {id: public, when: {path: /public/**}, action: grant, headers: "*"}
"""
ENGINE = Engine(Ruleset.from_text(RULES, source="rules.yaml"))
APP = ("origin", "https://app.example.com")


def explained(*headers: tuple[str, str], host: str = "api.example.com", **signals: Any) -> list[str]:
    """The lines on sharing, and those that say why, without their indents."""
    pairs = [("host", host), *headers]
    decision = ENGINE.peek(
        "192.0.2.1", headers=[(name.encode(), value.encode()) for name, value in pairs],
        **{"method": "GET", "path": "/api/1", **signals},
    )  # fmt: skip
    return [line.strip() for line in ENGINE.explain(decision).splitlines()]


def preflight(method: str, *names: str) -> tuple[tuple[str, str], ...]:
    return APP, ("access-control-request-method", method), ("access-control-request-headers", ",".join(names))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (explained(APP), [
            "share      granted: grant by rule 'app' at rules.yaml:10:3",
            "because    origin: 'https://app.example.com' covers 'https://app.example.com'",
            "because    path: '/api/**' covers '/api/1'",
            "owned      by rule 'app' at rules.yaml:10: what it says of the resource holds",
            "varies     by Origin, for which ask: app",
            "field      access-control-allow-origin: https://app.example.com",
            "field      access-control-allow-credentials: true",
            "field      access-control-expose-headers: x-b",
            "browser    shows the answer to the script, also where cookies were sent along, with its headers x-b",
        ]),
        (explained(("origin", "https://b.example.com"), ("cookie", "a=b"), ("sec-fetch-site", "same-site")), [
            "because    origin: 're:https://b[.]example[.]com' covers 'https://b.example.com'",
            "without it withhold by rule 'apps' at rules.yaml:12:3",
            "owned      by rule 'apps' at rules.yaml:12: what it says of the resource holds",
            "shadow     would have decided, were it enforced: withhold by rule 'later' at rules.yaml:9:3",
        ]),
        (explained(("origin", "https://evil.test")), [
            "share      withheld: no rule grants it, and app owns the resource",
            "browser    sends the request, and keeps the answer from the script; an EventSource closes for good",
        ]),
        (explained(), ["share      nothing: there is no Origin, and no rule matches",
                       "browser    shows the answer to a page of the same origin; others send an Origin"]),
        (explained(path="/x"), ["share      nothing: no share rule is about it",
                                "owned      by no rule, so that the application's own header fields are left alone"]),
        (explained(path="/public/1"), [
            "share      granted: grant by rule 'public' at rules.yaml:13:3",
            "varies     by nothing: whoever asks, the answer has the same fields",
            "browser    shows the answer to the script of any page, but not where cookies were sent along",
        ]),
        (explained(APP, host="10.0.0.1"), [
            "share      refused: refuse by rule 'rebind' at rules.yaml:6:3",
            "because    not host: '10.0.0.1' is none of 'api.example.com', 'localhost:*'",
            "because    not path: '/api/1' is none of '/healthz'",
            "browser    gets 421 and asks again over a new connection, where the host is meant",
        ]),
        (explained(host="no host"), ["because    not host: 'no host' is malformed"]),
        (explained(("origin", "https://evil.test"), method="POST"), [
            "share      refused: refuse by rule 'writes' at rules.yaml:7:3 (CSRF)",
            "because    cross_origin_write: 'POST' of 'https://evil.test', whose host is not 'api.example.com'",
            "because    not origin: 'https://evil.test' is none of 'https://app.example.com'",
            "browser    gets 403; nothing was carried out",
            "varies     by Sec-Fetch-Site, for which ask: writes",
        ]),
        (explained(("sec-fetch-site", "cross-site"), method="PUT"), [
            "because    cross_origin_write: 'PUT' with sec-fetch-site 'cross-site'",
            "because    not origin: it is absent"]),
        (explained(("origin", "https://api.example.com"), method="POST", path="/own/1"), [
            "because    cross_origin_write: 'POST' of 'https://api.example.com', whose host is 'api.example.com'"]),
        (explained(("origin", "https://api.example.com")), [
            "share      withheld: no rule grants it, and app owns the resource",
            "browser    shows the answer to the script: the page is the service's own, and needs no grant",
        ]),
        (explained(*preflight("DELETE"), method="OPTIONS"), [
            "share      the preflight is withheld: grant by rule 'app' at rules.yaml:10:3 does not cover it",
            "preflight  method 'DELETE' is not granted; methods are GET, HEAD, POST, PUT",
            "browser    gets 403 and sends no request (acao-missing)",
        ]),
        (explained(*preflight("PUT", "x-a", "x-c"), method="OPTIONS"), [
            "preflight  header 'x-c' is not granted; headers are x-a"]),
        (explained(*preflight("PUT", "x-a"), method="OPTIONS"), [
            "share      the preflight is granted: grant by rule 'app' at rules.yaml:10:3",
            "field      access-control-max-age: 600",
            "browser    gets 204 and sends 'PUT' next, with or without cookies; it remembers this for 600 s",
        ]),
        (explained(("origin", "https://c.example.com"), *preflight("PUT")[1:], method="OPTIONS"), [
            "share      the preflight is refused: refuse by rule 'writes' at rules.yaml:7:3 (CSRF)"]),
        (explained(*preflight("GET", "authorization"), method="OPTIONS", path="/public/1"), [
            "preflight  header 'authorization' is not granted; headers are *"]),
        (explained(APP, ("user-agent", "evil")), [
            "decided by ban by rule 'bad' at rules.yaml:3:3", "because    not path: '/api/1' is none of '/open/**'",
            "because    not prefix: none of 1 prefixes covers the address"]),
        (explained(APP, ("accept", "image/png"), method="PATCH"), [
            "because    not header accept: 'image/png' does not meet contains 'html' and prefix 'text'",
            "because    not method: 'PATCH' is none of 'GET', 'HEAD'"]),
    ],
)  # fmt: skip
def test_lines(lines: list[str], expected: list[str]) -> None:
    """Each of these is a line."""
    assert [] == [line for line in expected if line not in lines], "\n".join(lines)


def test_rules_of_admission_alone_say_nothing_of_sharing() -> None:
    """The lines are as they were."""
    engine = Engine(Ruleset.from_text("rules:\n- {id: a, when: any, action: ban}\n"))

    text = engine.explain(engine.peek("192.0.2.1", headers=[(b"origin", b"https://a.test")]))

    assert "share" not in text
    assert "varies" not in text


ORIGINS = ["https://app.example.com", "null", "https://b.example.com", "x", "", "\x00", "https://\xff.example"]
NAMES = ["origin", "host", "sec-fetch-site", "access-control-request-method", "access-control-request-headers",
         "cookie",
         "accept", "user-agent"]  # fmt: skip
VALUES = st.sampled_from([*ORIGINS, "api.example.com", "localhost:1", "cross-site", "PUT", "x-a", "x-a,,x-b", "evil"])


@settings(max_examples=300, deadline=None)
@given(
    headers=st.none() | st.lists(st.tuples(st.sampled_from(NAMES), VALUES | st.text(max_size=5)), max_size=6),
    method=st.sampled_from([None, "GET", "POST", "OPTIONS", "", "\ud800"]),
    path=st.sampled_from([None, "/api/1", "/public/1", "//own/1", "/%00", "/x", "\ud800"]),
    scheme=st.sampled_from([None, "http", "https", "\udcff"]),
    host=st.sampled_from([None, None, "api.example.com", "x y", "\ud800", ""]),
)
def test_every_decision_is_explained(
    headers: list[tuple[str, str]] | None, method: str | None, path: str | None, scheme: str | None, host: str | None
) -> None:
    """Nothing that a client can send makes it raise, and nothing unprintable comes out."""
    pairs = None if headers is None else [(name.encode(), value.encode("utf-8", "replace")) for name, value in headers]
    decision = ENGINE.peek("192.0.2.1", headers=pairs, method=method, path=path, scheme=scheme, host=host)

    text = ENGINE.explain(decision)

    assert text.replace("\n", "").isprintable()
    shown = next(line for line in text.splitlines() if line.startswith("  share "))
    assert (decision.share or "nothing") in shown
    assert all(name.decode() in text for name, _ in decision.share_headers)
