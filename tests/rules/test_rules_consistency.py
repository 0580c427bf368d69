"""Signals that contradict each other as conditions: fake crawlers, look-alike names, server name against host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gobanfast import Engine, RuleError, Ruleset, parse_client_hello
from gobanfast.batch.columns import ACTIONS
from hellos import server_name, stream
from oracle.rules import OracleNetworks
from rules_fakes import FakeAsnTable

ANY: dict[str, Any] = {"asn": FakeAsnTable(OracleNetworks((("203.0.113.0/24", 64500),)))}
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def engine_of(*whens: str, head: str = "") -> Engine:
    lines = "".join(f"- {{id: r{number}, when: {{{when}}}, action: ban}}\n" for number, when in enumerate(whens))
    return Engine(Ruleset.from_text(f"{head}rules:\n{lines}", **ANY))


def asked(engine: Engine, sni: str | None, host: str | None, **more: Any) -> tuple[str, ...]:
    """Ids of the rules that match a request with these names."""
    headers = [] if host is None else [(b"Host", host.encode())]
    return engine.peek("192.0.2.1", sni=sni, headers=headers, **more).matched


def test_a_fake_crawler_and_a_rented_browser(tmp_path: Path) -> None:
    """A crawler from outside its published list and a browser from a rented machine are told; real ones are not."""
    prefixes = [{"ipv4Prefix": "66.249.64.0/27"}, {"ipv6Prefix": "2001:4860:4801:10::/64"}]
    (tmp_path / "googlebot.json").write_text(json.dumps({"creationTime": "2026", "prefixes": prefixes}))
    text = """
sets: {hosting: {asn: 64500}}
rules:
- {id: fake, when: {crawler: googlebot, outside_file: googlebot.json}, action: ban}
- {id: rented, when: {ua_family: [chrome, firefox, safari, edge], asn: "@hosting"}, action: challenge}
"""
    engine = Engine(Ruleset.from_text(text, source=str(tmp_path / "rules.yaml"), **ANY))

    def rule(address: str | None, agent: str) -> str | None:
        return engine.decide(address, headers=[(b"user-agent", agent.encode())]).rule

    assert ["fake", "fake"] == [rule(address, GOOGLEBOT) for address in ("192.0.2.1", "2001:db8::1")]
    assert [None] * 3 == [rule(address, GOOGLEBOT) for address in ("66.249.64.9", "2001:4860:4801:10::9", None)]
    assert [None, "rented", None] == [
        rule("192.0.2.1", FIREFOX), rule("203.0.113.9", FIREFOX), rule("203.0.113.9", "curl/8")]  # fmt: skip
    assert "crawler 'googlebot' is claimed by" in engine.explain(
        engine.peek("192.0.2.1", headers=[(b"user-agent", GOOGLEBOT.encode())])
    )


LOOKS = "sets: {brands: {lookalike: [paypal.com, bücher.example]}}\n"


@pytest.mark.parametrize(
    ("sni", "host", "expected"),
    [
        ("g00gle.com", "g00gle.com", True),
        ("www.g00gle.com", None, True),
        (None, "G00GLE.com:8443", True),
        ("google.com", "mail.goog1e.com.", True),
        ("xn--ggle-55da.com", "192.0.2.1", True),
        (None, "paypai.com", True),
        (None, "xn--bcher-kva.example", False),
        ("bucher.example", "xn--bcher-kva.example", True),
        ("google.com", "google.com", False),
        ("mail.google.com", "www.paypal.com", False),
        ("other.example", "[2001:db8::1]:443", False),
        ("a..b", "g00gle.com", True),
        ("g00gle.com", "a b", True),
        (None, "g00gle.com:port", False),
        (None, None, False),
    ],
)
def test_lookalikes(sni: str | None, host: str | None, expected: bool) -> None:
    """A name made to look like a protected one is told in SNI and in host, in whatever form it is sent."""
    engine = engine_of('lookalike: [google.com, "@brands"]', head=LOOKS)

    assert (("r0",) if expected else ()) == asked(engine, sni, host) == asked(engine, sni, host)


def test_a_handshake_has_no_host() -> None:
    """With the server name alone, as text or in a hello, a look-alike is told, and nothing is said about the host."""
    engine = engine_of("lookalike: google.com", "sni_host: [agree, coalesced, differ, unknown]")
    hello = parse_client_hello(stream([server_name(b"g00gle.com")]))

    assert ("r0",) == engine.peek("192.0.2.1", hello=hello).matched
    assert ("r0",) == engine.peek("192.0.2.1", sni="G00gle.com.").matched == engine.peek(None, sni="g00gle.com").matched
    assert ("r0",) == engine.peek("192.0.2.1", hello=hello, method="GET", path="/").matched
    assert () == engine.peek("192.0.2.1", sni="google.com").matched == engine.peek("192.0.2.1").matched
    assert ("r0", "r1") == engine.peek("192.0.2.1", hello=hello, headers=[]).matched
    assert "'g00gle.com' looks like 'google.com'" in engine.explain(engine.peek("192.0.2.1", hello=hello))


NAMES = "names: [example.com, '*.example.com', Bücher.example.]\n"


@pytest.mark.parametrize(
    ("sni", "host", "expected"),
    [
        ("example.com", "example.com", "agree"),
        ("EXAMPLE.com.", "Example.COM.:443", "agree"),
        ("example.com", "img.example.com", "coalesced"),
        ("example.com", "xn--bcher-kva.example:443", "coalesced"),
        ("example.com", "a.img.example.com", "differ"),
        ("img.example.com", "evil.example", "differ"),
        (None, "example.com", "unknown"),
        ("example.com", None, "unknown"),
        ("example.com", "192.0.2.1", "unknown"),
        ("example.com", "[::1]", "unknown"),
        ("example.com", "a b", "unknown"),
        ("example.com", "b\0c", "unknown"),
        ("192.0.2.1", "example.com", "unknown"),
        (None, None, "unknown"),
    ],
)
def test_server_name_and_host(sni: str | None, host: str | None, expected: str) -> None:
    """SNI and host go together in one of four ways; the certificate explains a shared connection."""
    words = ("agree", "coalesced", "differ", "unknown")
    engine = engine_of(*(f"sni_host: {word}" for word in words), head=NAMES)

    assert (f"r{words.index(expected)}",) == asked(engine, sni, host) == asked(engine, sni, host)
    headers = [] if host is None else [(b"host", host.encode())]
    assert f"sni_host: {expected}, server name" in engine.explain(engine.peek("192.0.2.1", sni=sni, headers=headers))


def test_one_request_has_one_host_whatever_it_is_written_in() -> None:
    """Host, `:authority` and a WSGI environ are the same signal."""
    engine = engine_of("sni_host: differ", head=NAMES)
    for headers in ([(b":authority", b"evil.example"), (b":method", b"GET")], {"HTTP_HOST": "evil.example"}):
        assert ("r0",) == engine.peek(None, sni="example.com", headers=headers).matched
    assert () == engine.peek(None, sni="example.com", headers={"HTTP_HOST": "example.com"}).matched


@pytest.mark.parametrize(
    ("request_of", "reason"),
    [
        ({"sni": "a..b"}, "malformed-sni"),
        ({"sni": "a..b", "headers": [(b"a", b"\0")]}, "malformed-sni"),
        ({"hello": parse_client_hello(b"junk" * 20)}, "malformed-hello"),
        ({"sni": "a.example", "headers": [(b"a", b"\0")]}, "malformed-headers"),
        ({"sni": "a.example", "headers": [(b"host", b"a b")]}, None),
        ({"headers": []}, None),
        ({}, None),
    ],
    ids=str,
)
def test_policy_decides_about_names_that_cannot_be_read(request_of: dict[str, Any], reason: str | None) -> None:
    """Rules on names require server name and headers: when those cannot be read, `unparsable` decides."""
    engine = engine_of("lookalike: google.com", head="unparsable: ban\n")
    decision = engine.peek("192.0.2.1", **request_of)

    assert ("ban" if reason else "allow", reason) == (decision.action, decision.reason)


def test_a_name_pair_is_worked_out_once() -> None:
    """A pair is remembered in its normal form; another pair with the same letters is another value."""
    engine = engine_of("sni_host: agree", "lookalike: google.com")
    table = engine.compiled.requests
    assert table is not None
    for sni, host in (("a.example", "a.example"), ("A.EXAMPLE.", "a.example"), ("a.example", "a.example")):
        asked(engine, sni, host)

    assert 1 == table.evaluations
    asked(engine, None, "a.example")
    engine.peek(None, sni="a.example")
    asked(engine, "a.examplea.exampl", "e")
    assert 4 == table.evaluations


def test_long_hosts_are_no_names() -> None:
    """A host of 60,000 letters, or one that only its length makes none, is unreadable, and costs no memory."""
    engine = engine_of("sni_host: unknown", "lookalike: google.com")
    label = "a" * 63
    longest = ".".join([label] * 3 + ["a" * 61])

    assert ("r0",) == asked(engine, "google.com", "a" * 60_000) == asked(engine, "google.com", f"{longest}a")
    assert () == asked(engine, longest, f"{longest}.:65535")
    assert ("r0",) == asked(engine, longest, f"{longest}.:655350")


def test_compiled_rules_keep_names(tmp_path: Path) -> None:
    """Rules saved and loaded decide and explain as before; other names of the certificate are other rules."""
    text = NAMES + "rules: [{id: a, when: {sni_host: coalesced, lookalike: google.com}, action: ban}]"
    first, other = (Ruleset.from_text(t, **ANY) for t in (text, text.replace("*.", "")))
    first.save(tmp_path / "rules.gbf")
    loaded = Ruleset.load(tmp_path / "rules.gbf")
    request: dict[str, Any] = {"sni": "g00gle.com", "headers": [(b"host", b"a.example.com")]}

    assert first.content_hash == loaded.content_hash != other.content_hash
    engines = [Engine(ruleset) for ruleset in (first, loaded, other)]
    assert ["ban", "ban", "allow"] == [engine.peek(None, **request).action for engine in engines]
    assert engines[0].explain(engines[0].peek(None, **request)) == engines[1].explain(engines[1].peek(None, **request))
    engines[2].swap(loaded)
    assert "ban" == engines[2].peek(None, **request).action


def test_names_are_for_all_files(tmp_path: Path) -> None:
    """`names:` is said once, in the file that is loaded, and counts in what it includes; inline tests can tell."""
    (tmp_path / "part.yaml").write_text("rules: [{id: a, when: {sni_host: coalesced}, action: ban}]")
    path = tmp_path / "rules.yaml"
    path.write_text(
        "include: part.yaml\nnames: '*.example.com'\ntests:\n"
        "- {sni: www.example.com, headers: {host: 'img.example.com:443'}, expect: ban, rule: a}\n"
        "- {sni: www.example.com, headers: {host: www.example.com}, expect: allow}\n"
    )

    assert [] == Ruleset.load(path, **ANY).failures()
    (tmp_path / "part.yaml").write_text("names: a.example\nrules: []")
    with pytest.raises(RuleError, match="'names' belongs in the file that includes this one"):
        Ruleset.load(path, **ANY)


def test_columns_without_one_of_the_names() -> None:
    """Rows of server names alone, of hosts alone and of neither are what `peek` says they are."""
    engine = engine_of(
        "lookalike: google.com", "sni_host: unknown", "sni: [absent, a.example]", head="unparsable: ban\n"
    )
    sni = ["g00gle.com", None, "a.example", "a..b"]
    where = ["192.0.2.1"] * len(sni)

    def actions(**columns: Any) -> list[str]:
        return [ACTIONS[number] for number in engine.decide_many(where, **columns).action.tolist()]

    assert [engine.peek("192.0.2.1", sni=name).action for name in sni] == actions(sni=iter(sni))
    hosts = ["g00gle.com", None, "a.example", "\r"]
    expected = [engine.peek("192.0.2.1", headers=[] if host is None else [(b"host", host.encode())]) for host in hosts]
    assert [decision.action for decision in expected] == actions(headers={"Host": hosts})
    assert [engine.peek("192.0.2.1").action] * 4 == actions()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{id: a, when: {lookalike: '*.a.example'}, action: ban}]",
         "1:35: lookalike '*.a.example' is a pattern; write a plain name, its subdomains are included"),
        ("rules: [{id: a, when: {lookalike: 192.0.2.1}, action: ban}]", "is a number, as in an address"),
        ("rules: [{id: a, when: {lookalike: []}, action: ban}]", "1:35: an empty list matches nothing"),
        ("rules: [{id: a, when: {lookalike: 7}, action: ban}]", "1:35: lookalike 7 is not text; quote it"),
        ("rules: [{id: a, when: {sni_host: same}, action: ban}]",
         "1:34: sni_host 'same' is not one of agree, coalesced, differ, unknown"),
        ("rules: [{id: a, when: {crawler: altavista}, action: ban}]",
         "1:33: crawler 'altavista' is not one of googlebot, bingbot, applebot, yandexbot, duckduckbot, any"),
        ("names: [.example.com]\nrules: []",
         "1:9: name '.example.com' is not a certificate name; write example.com or"),
    ],
)  # fmt: skip
def test_errors(text: str, message: str) -> None:
    """What cannot be one of these conditions is told with its place and a hint."""
    with pytest.raises(RuleError) as caught:
        Ruleset.from_text(text, **ANY)

    assert message in str(caught.value)
