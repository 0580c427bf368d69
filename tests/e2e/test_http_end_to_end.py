"""Rules, engine, live state and frontends together, under real servers."""

from __future__ import annotations

import json
import ssl
import subprocess

import pytest

import servers
import test_frontend_asgi
import test_frontend_wsgi
from gobanfast import Engine, Ruleset
from gobanfast.frontends import wsgi as wsgi_frontend
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.frontends.tls import guard
from gobanfast.frontends.trust import Trust
from http_app import application
from stores_fakes import WAIT, eventually
from test_http_servers import GOOD, free_port, get, python, spawned
from test_tls_servers import under_uvicorn

certificate = servers.certificate

TRACKED = """
version: 1
trackers: {distinct_fingerprints: {window: 60s, limit: 50, action: ban, for: 10m}}
rules:
  - {id: named, when: {sni: "**.challenged.example"}, action: challenge, reason: by name}
"""
SERVED = """
version: 1
rules:
  - {id: probes, when: {prefix: 198.51.100.0/24}, action: ban, reason: probing}
  - {id: tools, when: {header: {user-agent: {contains: curl/}}}, action: ban, reason: no tools}
  - {id: private, when: {path: "/private/**"}, action: ban, reason: not here}
  - {id: scripts, when: {ja4_prefix: t13d0312h2}, action: ban, reason: a script}
"""
WEIGHED = """
version: 1
names: [example.com, "*.example.com"]
score: {min_samples: 100}
rules:
  - {id: another-host, when: {sni_host: differ}, action: log, weigh: 0.7}
  - {id: like-ours, when: {lookalike: example.com}, action: log, weigh: 0.7}
"""
TOLD = "t13d0312h2_da1797f8e7b4_5d4b0b0f7f2a"


def test_fifty_fingerprints_in_a_minute_are_a_ban(tmp_path, monkeypatch):
    """A client that comes with 50 different fingerprints is banned: its 51st request is 403 with the reason, another
    client's is served."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(TRACKED)
    monkeypatch.setenv("TEST_RULES", str(rules))
    port = free_port()
    command = python("-m", "uvicorn", "--factory", "http_app:ruled", "--port", f"{port}", "--no-proxy-headers")
    with spawned(*command, port=port):
        answers = [get(port, User_Agent=f"agent/{number}") for number in range(51)]
        other = get(port, source="127.0.0.10", User_Agent="agent/0")

    assert [200] * 49 == [status for status, _, _ in answers[:49]]
    status, headers, body = answers[50]
    assert 403 == status
    assert json.loads(body)["reason"]
    assert 590 <= int(headers["retry-after"]) <= 661
    assert 200 == other[0]


def test_name_of_the_handshake_decides_the_request(certificate):
    """Where TLS ends at the server, rules about SNI decide at the HTTP layer too: the handshake lets a challenged
    client go on, the middleware refuses its request."""
    import http.client

    engine = Engine(Ruleset.from_text(TRACKED))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def status(port, name):
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=servers.WAIT, context=context)
        connection.connect = lambda: setattr(
            connection,
            "sock",
            context.wrap_socket(connection._create_connection(("127.0.0.1", port), servers.WAIT), server_hostname=name),
        )
        try:
            connection.request("GET", "/", headers={"Host": name})
            answered = connection.getresponse()
            return answered.status, json.loads(answered.read())
        finally:
            connection.close()

    with under_uvicorn(
        certificate, lambda ours: guard(ours, engine), Gobanfast(application, engine, show_reason=True)
    ) as port:
        good, challenged = status(port, "www.example"), status(port, "www.challenged.example")

    assert 200 == good[0]
    assert (403, "by name") == (challenged[0], challenged[1]["reason"])


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Port of `gobanfast serve`, and its token."""
    rules = tmp_path_factory.mktemp("serve") / "rules.yaml"
    rules.write_text(SERVED)
    port = free_port()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GOBANFAST_TOKEN", "a token of 20 bytes.")
        command = python("-m", "gobanfast", "serve", "--rules", str(rules), "--port", f"{port}", "--trust", "127.0.0.1")
        with spawned(*command, "--signal", "ja4=x-ja4", "--show-reason", port=port):
            yield port


def check(port, address, path="/", **headers):
    forwarded = {"X_Forwarded_For": address, "X_Original_URI": path} | headers
    return get(port, "/check", source="127.0.0.1", **forwarded)


def test_serve_answers_proxies(service):
    """`gobanfast serve` decides by address, header and path, for peers in trust and nobody else."""
    assert 200 == check(service, "203.0.113.9")[0]
    assert (403, "probing") == refused(check(service, "198.51.100.7"))
    assert (403, "no tools") == refused(check(service, "203.0.113.9", User_Agent="curl/8.5.0"))
    assert (403, "not here") == refused(check(service, "203.0.113.9", "/private/x?y=z"))
    assert 403 == get(service, "/check", source=GOOD, x_forwarded_for="203.0.113.9")[0]


def test_ja4_of_a_trusted_proxy_decides(service):
    """A JA4 that a proxy in trust tells is matched as one of a hello; what is none is unparsable; a client's own header
    is a header like any other."""
    rules = Ruleset.from_text(SERVED)
    trust = Trust(["10.0.0.0/8"], signals={"ja4": "x-ja4"})
    told = {"x-forwarded-for": GOOD, "x-ja4": TOLD}
    pairs = [(name.encode(), value.encode()) for name, value in told.items()]
    environ = {"HTTP_X_FORWARDED_FOR": GOOD, "HTTP_X_JA4": TOLD}
    asgi = Gobanfast(test_frontend_asgi.Application(), Engine(rules), trust=trust)
    wsgi = wsgi_frontend.Gobanfast(test_frontend_wsgi.Application(), Engine(rules), trust=trust)

    assert (403, "a script") == refused(check(service, GOOD, X_JA4=TOLD))
    assert 403 == check(service, GOOD, X_JA4="nonsense")[0]
    assert 200 == check(service, GOOD, X_JA4=TOLD.replace("0312", "0313"))[0]
    assert [403, 200] == [
        test_frontend_asgi.ask(asgi, peer, headers=pairs)[0]["status"] for peer in ("10.0.0.1", "203.0.113.9")
    ]
    assert ["403 Forbidden", "200 OK"] == [
        test_frontend_wsgi.ask(wsgi, peer, **environ)[0] for peer in ("10.0.0.1", "203.0.113.9")
    ]


def test_consistency_signals_raise_the_score():
    """A request that nothing else sets apart is challenged by the score once its host is not the one its connection was
    opened for, or looks like ours; each by a log rule that weighs."""
    rules = Ruleset.from_text(WEIGHED)
    app = Gobanfast(
        test_frontend_asgi.Application(),
        Engine(rules),
        trust=Trust(["10.0.0.0/8"], signals={"sni": "x-sni"}),
        show_reason=True,
    )

    def asked(sni, host):
        headers = {"x-forwarded-for": GOOD, "x-sni": sni, "host": host}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        sent = test_frontend_asgi.ask(app, "10.0.0.1", headers=pairs)
        return sent[0]["status"], None if sent[0]["status"] == 200 else json.loads(sent[1]["body"])["reason"]

    for _ in range(150):
        assert (200, None) == asked("example.com", "example.com")

    assert (403, "score") == asked("example.com", "evil.test")
    assert (403, "score") == asked("examp1e.com", "examp1e.com")
    assert (200, None) == asked("example.com", "img.example.com")
    assert (200, None) == asked("example.com", "example.com")


def refused(answered):
    return answered[0], json.loads(answered[2])["reason"]


def test_serve_says_what_it_does(tmp_path):
    """`gobanfast serve` tells where it listens, by which rules, with which warnings, each reload, and that it ends."""
    rules, port = tmp_path / "rules.yaml", free_port()
    rules.write_text("rules:\n- {id: all, when: any, action: log}\n")
    with open(tmp_path / "err", "wb") as err:
        process = subprocess.Popen(
            python("-m", "gobanfast", "serve", "--rules", str(rules), "--port", f"{port}"), stderr=err
        )

    def said(words):
        return eventually(lambda: words in (tmp_path / "err").read_text())

    try:
        first = Ruleset.load(rules)
        assert said(
            f"gobanfast: deciding on 127.0.0.1:{port} by {rules} (1 rule, hash {first.content_hash}), no store, "
        )
        for problem in first.problems:
            assert said(f"gobanfast: warning: {problem}")
        rules.write_text("rules: [")
        assert said("not in force, the old rules stay")
        rules.write_text("rules:\n- {id: all, when: any, action: log}\n- {id: b, when: {path: /x}, action: ban}\n")
        assert said(f"is in force, generation 2, 2 rules, hash {Ruleset.load(rules).content_hash}")
        assert said(f"{rules}: in force, generation 2")  # the library's own word, because it mends a failure
    finally:
        process.terminate()
        process.wait(WAIT)
    assert said("gobanfast: stopped")


def test_serve_bans_by_hand(service):
    """A ban made over `/bans` holds at `/check` until it is lifted; probes answer without the token."""
    token = {"Authorization": "Bearer a token of 20 bytes."}
    body = json.dumps({"key": "203.0.113.77", "duration": "1h", "reason": "by hand"})

    assert 201 == get(service, "/bans", method="POST", body=body, **token)[0]
    status, headers, _ = check(service, "203.0.113.77")
    assert (403, True) == (status, 3500 <= int(headers["retry-after"]) <= 3600)
    assert ["203.0.113.77"] == [ban["key"] for ban in json.loads(get(service, "/bans", **token)[2])]
    assert 200 == get(service, "/bans/203.0.113.77", method="DELETE", **token)[0]
    assert 200 == check(service, "203.0.113.77")[0]
    assert [200, 200, 401] == [get(service, path)[0] for path in ("/live", "/ready", "/bans")]
