"""Rules about sharing by example: what cannot be read, preflights, ownership, counters, swaps, rules without them."""

from __future__ import annotations

import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gobanfast import Engine, Ruleset
from gobanfast._core.headers import PartialHeaders
from rules_fakes import FakeAsnTable

APP = (b"origin", b"https://app.example.com")
HOST = (b"host", b"api.example.com")
FINGERPRINT = f"fingerprint: 'gh2:{'0' * 32}'"
ORIGIN = "origin: 'https://app.example.com'"


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
        ("POST", [(b"x", b"\0"), APP, HOST], "refused"),
        ("GET", [(b"x", b"\0"), APP, HOST], None),
        ("POST", [HOST, HOST], "refused"),
    ],
    ids=str,
)
def test_cross_origin_writes(method: str | None, headers: Any, share: str | None) -> None:
    """Only GET, HEAD and OPTIONS change nothing, so that what is no method may; an Origin without a scheme is of no
    host; headers that cannot be read are those of a write, and what a source does not keep is not absent."""
    engine = engine_of("[{id: writes, when: {cross_origin_write: true}, action: refuse}]")

    assert share == engine.decide("192.0.2.1", method=method, path="/x", headers=headers).share
    allow = engine_of(rules="[{id: a, when: {cross_origin_write: true}, action: allow}]")
    assert None is allow.decide("192.0.2.1", method="POST", path="/x", headers=[HOST, HOST]).rule


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
    other = (
        "[{id: a, when: {header: {x-a: z}, prefix: 10.0.0.0/8}, action: ban}, {id: n, when: {alpn: h3}, action: ban}]"
    )
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
    """A request that hides what it asks for does not get around a rule that refuses all but some; it is not let in by
    one that grants all but some."""
    asked = {"address": "192.0.2.1", **asked}
    address = asked.pop("address")
    restrictive = engine_of(f"[{{id: r, when: {{not: {{{negated}}}}}, action: refuse}}]")
    permissive = engine_of(rules=f"[{{id: a, when: {{not: {{{negated}}}}}, action: allow}}]")

    assert "refused" == restrictive.decide(address, **asked).share
    assert None is permissive.decide(address, **asked).rule


@pytest.mark.parametrize("value", [b"good" + b"x" * 5000, b"x" * 5000])
def test_values_too_long_to_search_satisfy_a_negation_in_restrictive_rules(value: bytes) -> None:
    """No part is found in them: a rule that refuses what lacks one holds; one that lets in what lacks one does not."""
    asked: dict[str, Any] = {"headers": [(b"x-a", value)]}
    for test in ("{contains: good}", "{regex: '^good'}", "{prefix: good, contains: x}"):
        refuse = engine_of(f"[{{id: r, when: {{not: {{header: {{x-a: {test}}}}}}}, action: refuse}}]")
        allow = engine_of(rules=f"[{{id: a, when: {{not: {{header: {{x-a: {test}}}}}}}, action: allow}}]")
        assert ("refused", None) == (refuse.decide(None, **asked).share, allow.decide(None, **asked).rule)
        assert None is refuse.decide(None, headers=[(b"x-a", b"goodx")]).share


@pytest.mark.parametrize(
    "negated",
    ["path: /healthz", "method: GET", "header: {x-a: b}", "host: a.example", "origin: 'https://a.example'",
     "prefix: 10.0.0.0/8", "asn: 1", "cross_origin_write: true", "fetch_site: none", FINGERPRINT],
)  # fmt: skip
def test_what_nobody_knows_satisfies_no_negation(negated: str) -> None:
    """Unknown is not absent: neither a rule that refuses nor one that lets in holds."""
    engine = engine_of(
        f"[{{id: r, when: {{not: {{{negated}}}}}, action: refuse}}]",
        f"[{{id: a, when: {{not: {{{negated}}}}}, action: allow}}]",
    )
    decision = engine.decide(None)

    assert (None, None) == (decision.rule, decision.share)


# ---- preflights


@pytest.mark.parametrize("when", ["header: {cookie: present}", "header: {authorization: {prefix: 'Bearer '}}",
                                  "not: {header: {cookie: absent}}", FINGERPRINT])  # fmt: skip
def test_what_a_preflight_does_not_carry_speaks_for_it(when: str) -> None:
    """A grant that asks for a cookie, an authorization or a fingerprint owns and answers preflights; the request itself
    is held to it. A rule that withholds by one of these says nothing of a preflight."""
    grant = engine_of(f"[{{id: g, when: {{path: /x, {ORIGIN}, {when}}}, action: grant, methods: PUT}}]")
    withhold = engine_of(
        f"[{{id: w, when: {{{when}}}, action: withhold}}, {{id: g, when: {{path: /x}}, action: grant}}]"
    )
    only = engine_of(f"[{{id: w, when: {{{when}}}, action: withhold}}]")
    asked = grant.decide("192.0.2.1", **preflight())
    request = grant.decide("192.0.2.1", method="PUT", path="/x", headers=[HOST, APP])

    assert (True, "granted", "g") == (asked.preflight, asked.share, asked.share_rule)
    assert (False, None, None) == (request.preflight, request.share, request.share_rule)
    assert "granted" == withhold.decide("192.0.2.1", **preflight(b"GET")).share
    assert not only.decide("192.0.2.1", **preflight()).preflight


@pytest.mark.parametrize("method", [b"", b"a b", b"PUT, PUT", b"X" * 33, b"X" * 1024, b"\xe9", b"PUT\t/x"])
def test_a_preflight_for_what_is_no_method_is_granted_nothing(method: bytes) -> None:
    """Any method is any method: what is none is not sent back as one, and no condition on a method holds of it."""
    engine = engine_of("[{id: g, when: {path: /x}, action: grant, methods: '*'}]")
    other = engine_of(
        "[{id: r, when: {not: {method: [GET, PUT]}}, action: refuse}, {id: g, when: {path: /x}, action: grant}]"
    )
    decision = engine.decide("192.0.2.1", **preflight(method))

    assert (True, "withheld", "g", ()) == (
        decision.preflight, decision.share, decision.share_rule, decision.share_headers,
    )  # fmt: skip
    assert "refused" == other.decide("192.0.2.1", **preflight(method)).share
    assert "granted" == engine.decide("192.0.2.1", **preflight(b"lower")).share


@pytest.mark.parametrize("count", [1, 70, 200])
def test_admission_sees_the_method_of_a_preflight_itself(count: int) -> None:
    """Rules about sharing are asked with the method that is announced, rules about admission with OPTIONS."""
    rules = ", ".join(
        f"{{id: a{number}, when: {{method: OPTIONS}}, action: allow}}, "
        f"{{id: l{number}, when: {{method: PUT}}, action: log}}, "
        f"{{id: o{number}, when: {{method: OPTIONS}}, action: log}}"
        for number in range(count)
    )
    share = ", ".join(f"{{id: g{number}, when: {{method: PUT, path: /x}}, action: grant, methods: PUT}}"
                      for number in range(count))  # fmt: skip
    engine = engine_of(f"[{share}]", f"[{rules}]")
    for _ in range(2):
        decision = engine.decide("192.0.2.1", **preflight())
        assert (True, "granted", "g0", "a0") == (
            decision.preflight, decision.share, decision.share_rule, decision.rule,
        )  # fmt: skip
        assert tuple(f"o{number}" for number in range(count)) == decision.logged
    request = engine.decide("192.0.2.1", method="PUT", path="/x", headers=[HOST, APP])
    assert (None, "granted", "l0") == (request.rule, request.share, request.logged[0])


def test_a_refusal_is_lifted_by_no_allow() -> None:
    """`allow` is about coming in: a rule that refuses goes on refusing, preflights as well."""
    engine = engine_of("[{id: r, when: {path: /x}, action: refuse}, {id: g, when: any, action: grant, priority: 1}]",
                       "[{id: a, when: any, action: allow}]")  # fmt: skip
    for asked in ({"method": "GET", "path": "/x", "headers": [HOST, APP]}, preflight()):
        decision = engine.decide("192.0.2.1", **asked)
        assert ("allow", "a", "refused", "r") == (
            decision.action, decision.rule, decision.share, decision.share_rule,
        )  # fmt: skip


def test_a_preflight_is_no_visit() -> None:
    """It stores no ban, is counted by no tracker and scored by nothing; a client that is banned is banned, one that is
    known by its fingerprint alone is not."""
    head = "trackers: {request_rate: {limit: 5, window: 10s, action: ban, for: 1h}}\nscore: {mode: enforce}\n"
    engine = engine_of(
        "[{id: g, when: {path: /x}, action: grant, methods: PUT}]",
        "[{id: b, when: {path: /x, method: [OPTIONS, PUT]}, action: ban, for: 1h}, "
        "{id: f, when: {header: {user-agent: evil}}, action: ban, for: 1h, key: fingerprint}]",
        head,
    )
    for _ in range(50):
        decision = engine.decide("192.0.2.1", now=1.0, **preflight())
        assert ("allow", "none", "granted", None) == (
            decision.action, decision.cause, decision.share, decision.score,
        )  # fmt: skip
    assert [] == list(engine.bans())
    assert "none" == engine.decide("192.0.2.1", now=1.0, method="GET", path="/y", headers=[HOST]).cause
    visits = [engine.decide("192.0.2.9", now=1.0, method="GET", path="/y", headers=[HOST]).cause for _ in range(7)]
    assert "tracker" in visits
    evil = [(b"user-agent", b"evil"), HOST, APP]
    assert "ban" == engine.decide("192.0.2.2", now=1.0, method="GET", path="/y", headers=evil).action
    assert "ban" == engine.decide("192.0.2.3", now=1.0, method="GET", path="/y", headers=evil).action
    known = {"method": "OPTIONS", "path": "/x", "headers": [*evil, (b"access-control-request-method", b"PUT")]}
    assert ("allow", "granted") == ((d := engine.decide("192.0.2.4", now=1.0, **known)).action, d.share)
    engine.ban("192.0.2.1")
    banned = engine.decide("192.0.2.1", **preflight())
    assert ("ban", "ban", "granted") == (banned.action, banned.cause, banned.share)
    assert "ban" == engine.peek("192.0.2.1", **preflight()).action


# ---- ownership


def test_ownership_leaves_out_the_page() -> None:
    """Conditions on the page alone own everything; what is owned and not granted is withheld; a refusal and a shadow
    rule own nothing."""
    page = "origin: 'https://app.example.com', fetch_site: [same-site, absent], cross_origin_write: true"
    everything = engine_of(f"[{{id: g, when: {{{page}}}, action: grant}}]")
    nothing = engine_of(f"[{{id: r, when: {{{page}}}, action: refuse}}, "
                        f"{{id: s, when: {{path: /x, {ORIGIN}}}, action: grant, mode: shadow}}]")  # fmt: skip
    for method, path, share in (("POST", "/a", "granted"), ("GET", "/b", "withheld"), (None, None, "withheld")):
        decision = everything.decide("192.0.2.1", method=method, path=path, headers=[HOST, APP])
        assert (share, share != "granted") == (decision.share, decision.share_rule is None)
        assert ("Origin" in decision.varies) == (method == "POST")
    other = everything.decide("192.0.2.1", method="GET", path="/b", headers=[HOST, (b"origin", b"null")])
    assert ("withheld", None) == (other.share, other.share_rule)
    assert None is everything.decide("192.0.2.1", method="GET", path="/b", headers=[HOST]).share
    unowned = nothing.decide("192.0.2.1", method="GET", path="/x", headers=[HOST, APP])
    assert (None, ("s",), ()) == (unowned.share, unowned.share_shadow, unowned.varies)
    assert not nothing.decide("192.0.2.1", **preflight(b"GET")).preflight


def test_ownership_is_of_any_reading() -> None:
    """A grant must hold under all readings of a path, but owns what is its own under any of them."""
    engine = engine_of("[{id: g, when: {path: /public/**, origin: 'https://app.example.com'}, action: grant}]")

    def share(path: str, mount: str = "") -> Any:
        return engine.decide("192.0.2.1", method="GET", path=path, mount=mount, headers=[HOST, APP]).share

    assert ["granted", "granted", "granted"] == [share("/public/x"), share("/app/public/x", "/app"),
                                                 share("/public/x", "/app")]  # fmt: skip
    assert ["withheld"] * 3 == [share("/a/../public/x"), share("/public/../x"), share("//public/x")]
    assert [None, None] == [share("/x"), share("/app/public/x")]


# ---- counters and swaps


def test_counters_say_what_was_shared_across_swaps() -> None:
    """What was shared is counted by rule, what a grant does not cover as withheld by it; figures outlive a swap, and an
    id that then means another action, or another effect, is counted apart. Peeking counts nothing."""
    engine = engine_of(
        "[{id: a, when: {path: /x}, action: grant, methods: PUT}]", "[{id: b, when: {path: /b}, action: ban}]"
    )
    swapped: list[Any] = []
    engine.on_swap.append(lambda *given: swapped.append(given))
    page = {"method": "GET", "path": "/x", "headers": [HOST, APP]}

    def ask() -> None:
        for _ in range(2):
            engine.decide("192.0.2.1", **page)
            engine.peek("192.0.2.1", **page)
        engine.decide("192.0.2.1", **preflight())
        engine.decide("192.0.2.1", **preflight(b"PATCH"))
        engine.decide("192.0.2.1", **preflight(b"PUT", b"x-b"))
        engine.decide("192.0.2.1", method="GET", path="/b", headers=[HOST, APP])

    ask()
    assert {("granted", "a"): 3, ("withheld", "a"): 2} == engine.shared()
    assert {"b": 1} == engine.hits()
    engine.swap(
        engine_of("[{id: a, when: {path: /x}, action: refuse}]", "[{id: b, when: {path: /b}, action: allow}]").ruleset
    )
    ask()
    assert {("granted", "a"): 3, ("withheld", "a"): 2, ("refused", "a"): 5} == engine.shared()
    assert {"b": 2} == engine.hits()
    engine.swap(engine_of("[{id: b, when: {path: /x, origin: 'https://other.example'}, action: grant}]",
                          "[{id: a, when: {path: /b}, action: ban}]").ruleset)  # fmt: skip
    ask()
    assert {("granted", "a"): 3, ("withheld", "a"): 2, ("refused", "a"): 5, ("withheld", None): 5} == engine.shared()
    assert {"b": 2, "a": 1} == engine.hits()
    assert 2 == len(swapped)
    assert {"none", "rule"} == {cause for cause, _ in engine.decided()}


# ---- rules without effects besides admission

RULES = """
- {id: a, when: {prefix: 10.0.0.0/8, header: {x-a: {regex: "a+"}}, path: /x/**}, action: ban, for: 1h}
- {id: b, when: {sni: [a.example, absent], ja4_prefix: t13, method: PUT}, action: allow}
- {id: c, when: {outside: 192.0.2.0/24, asn: 15169}, action: challenge}
"""
SHARE = "share: [{id: s, when: {sni: b.example, ja4_prefix: t12, path: /y}, action: grant}]\n"


def sections(ruleset: Ruleset, kind: str, folder: Path) -> dict[str, bytes]:
    """The sections of a block by tag, in order."""
    ruleset.compiled.blocks()[kind].save(folder / kind)
    data = (folder / kind).read_bytes()
    found = {}
    for index in range(struct.unpack_from("<I", data, 36)[0]):
        tag, _, offset, nbytes = struct.unpack_from("<4sIQQ", data, 64 + 24 * index)
        found[tag.decode()] = data[offset : offset + nbytes]
    return found


def test_rules_about_admission_alone_compile_to_what_they_did(tmp_path: Path) -> None:
    """Their blocks have the sections that they had before there were other effects, and as many bits as there are
    rules; a ruleset with a share rule has one section more, and says which signals no rule about admission asks for."""
    plain = Ruleset.from_text("rules:" + RULES, asn=FakeAsnTable())  # type: ignore[arg-type]
    both = Ruleset.from_text("rules:" + RULES + SHARE, asn=FakeAsnTable())  # type: ignore[arg-type]
    alone = Ruleset.from_text(SHARE, asn=FakeAsnTable())  # type: ignore[arg-type]
    rule, wide = sections(plain, "RULE", tmp_path), sections(both, "RULE", tmp_path)

    assert ["RECS", "VECT", "ENFO", "SHAD", "LOGD", "ACTN"] == list(rule)[:6]
    assert "EFFX" not in rule
    assert [*list(rule)[:6], "EFFX", *list(rule)[6:]] == list(wide)
    assert (3, (3, 4, 4, 5)) == (len(rule["ACTN"]), struct.unpack("<4I", wide["EFFX"]))
    assert struct.pack("<Q", 0b111) == rule["ENFO"]
    asks = [struct.unpack("<2I", sections(item, "SIGN", tmp_path)["HEAD"])[1] for item in (plain, both, alone)]
    assert [1 | 2 | 4, 1 | 2 | 4, (1 | 2 | 4) | 16 | 32 | 64] == asks
    assert "EFFX" in sections(alone, "RULE", tmp_path)


def test_rules_about_admission_are_not_changed_by_others() -> None:
    """With share rules that do not hold, and with some that do, admission is decided as without."""
    plain = Engine(Ruleset.from_text("rules:" + RULES, asn=FakeAsnTable()))  # type: ignore[arg-type]
    both = Engine(Ruleset.from_text("rules:" + RULES + SHARE, asn=FakeAsnTable()))  # type: ignore[arg-type]
    for asked in (
        {"sni": "a.example", "method": "PUT", "ja4": "t13d1516h2_8daaf6152771_02713d6af862"},
        {"path": "/x/y", "headers": [(b"x-a", b"aa"), APP]},
        {"path": "/y", "headers": [APP], "method": "GET"},
        {"headers": [(b"x", b"\0")]},
        {"ja4": "x"},
        {"sni": "a..b"},
        {},
    ):
        for address in ("10.0.0.1", None, "junk"):
            first, second = plain.decide(address, **asked), both.decide(address, **asked)
            for name in ("action", "cause", "rule", "reason", "matched", "logged", "shadow"):
                assert getattr(first, name) == getattr(second, name)
            assert (None, None, (), (), ()) == (first.share, first.share_rule, first.share_shadow, first.varies,
                                                first.share_headers)  # fmt: skip
    assert {} == plain.shared()


# ---- bad input


@pytest.mark.parametrize(
    "headers",
    [
        [(b"origin", b"https://" + b"a" * 10_240)],
        [(b"origin", b"\0")],
        [(b"origin", b"\xff\xfe")],
        [APP, APP],
        [APP, (b"Origin", b"https://evil.example")],
        [HOST, HOST, APP],
        [(b"host", b"\xff" * 300), APP],
        [(b"host", b"[" * 300), APP],
        [(b"x", b"y" * (1 << 20)), APP],
        [(b"x", b"y")] * 10_000 + [APP],
        [(b"sec-fetch-site", b"a" * 60_000), APP],
        [APP, (b"access-control-request-method", b"\0")],
        [APP, (b"access-control-request-method", b"X" * 60_000)],
        [APP, (b"access-control-request-method", b"PUT"), (b"access-control-request-method", b"PUT")],
        [APP, (b"access-control-request-method", b"PUT"), (b"access-control-request-headers", b"," * (1 << 20))],
        [APP, (b"access-control-request-method", b"PUT"), (b"access-control-request-headers", b"," * 60_000)],
        [APP, (b"access-control-request-method", b"PUT"), (b"access-control-request-headers", b"x-b"),
         (b"access-control-request-headers", b"x-zzz")],
        PartialHeaders([APP], ()),
        PartialHeaders([APP, (b"access-control-request-method", b"PUT")], ("origin",)),
        PartialHeaders([], ("origin", "access-control-request-method")),
        {"HTTP_ORIGIN": "https://app.example.com", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "\u20ac"},
        {"HTTP_ORIGIN": 1, "REQUEST_METHOD": "OPTIONS", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "PUT"},
        None,
    ],
    ids=lambda value: repr(value)[:50],
)  # fmt: skip
@pytest.mark.parametrize("method", ["OPTIONS", "POST", None, "", "\ud800", "x" * 10_000])
def test_what_a_client_sends_is_decided(headers: Any, method: str | None) -> None:
    """Whatever comes is an answer: nothing that is no origin of ours is granted with credentials, and what is sent back
    has no control character."""
    engine = engine_of(
        "[{id: r, when: {not: {host: [api.example.com, absent, malformed]}}, action: refuse}, "
        "{id: w, when: {cross_origin_write: true, not: {origin: 'https://app.example.com'}}, action: refuse}, "
        "{id: g, when: {path: /x, origin: 'https://app.example.com', fetch_site: [absent, same-site]}, action: grant, "
        "credentials: true, methods: '*', headers: [x-b], expose: [x-c], max_age: 5m}]"
    )
    for _ in range(2):
        decision = engine.decide("192.0.2.1", method=method, path="/x", headers=headers)
        assert decision.share in (None, "granted", "withheld", "refused")
        for name, value in decision.share_headers:
            assert name.startswith(b"access-control-")
            assert not any(byte < 32 or byte == 127 for byte in value)
            assert name != b"access-control-allow-origin" or value == APP[1]
        assert (decision.share_headers == ()) == (decision.share != "granted")
        assert decision.action == engine.peek("192.0.2.1", method=method, path="/x", headers=headers).action


def test_rows_of_two_snapshots_do_not_mix() -> None:
    """While rules are swapped, every decision is by one ruleset or by the other: answer, rule, and what varies."""
    wide = ", ".join(f"{{id: p{number}, when: {{path: /{number}}}, action: withhold}}" for number in range(150))
    first = engine_of(f"[{wide}, {{id: g, when: {{path: /x, {ORIGIN}}}, action: grant, methods: PUT}}]")
    second = engine_of(
        "[{id: r, when: {path: /x, fetch_site: absent}, action: refuse}]",
        "[{id: b, when: {path: /x, method: GET}, action: ban}]",
    )
    sets = (first.ruleset, second.ruleset)
    page = {"method": "GET", "path": "/x", "headers": [HOST, APP]}
    whole = {
        (d.action, d.share, d.share_rule, d.varies, d.preflight)
        for engine in (first, second)
        for d in (engine.decide(None, **page), engine.decide(None, **preflight()))
    }
    seen: set[Any] = set()
    headers: set[Any] = set()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            for asked in (page, preflight()):
                d = first.decide(None, **asked)
                seen.add((d.action, d.share, d.share_rule, d.varies, d.preflight))
                headers.add((d.share_headers, d.share_shadow, d.matched))

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        for number in range(20_000):
            first.swap(sets[number % 2])
            if number >= 300 and seen == whole:
                break
        stop.set()
    assert [None] * 4 == [future.result() for future in asking]
    assert whole == seen
    assert 4 == len(headers)
    shared = first.shared()
    assert set(shared) <= {("granted", "g"), ("refused", "r")}
