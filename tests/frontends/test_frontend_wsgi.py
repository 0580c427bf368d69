"""The WSGI middleware: who is let in, what refused clients are told, what the application finds, and Flask."""

from __future__ import annotations

import json
from wsgiref.util import setup_testing_defaults

import pytest

from gobanfast.frontends.trust import Trust
from gobanfast.frontends.wsgi import Gobanfast
from http_fakes import FakeEngine

BANNED, FAILING, GOOD = "203.0.113.66", "203.0.113.99", "203.0.113.9"


class Application:
    """Notes the environs it sees."""

    def __init__(self, headers=()):
        self.seen, self.headers = [], list(headers)

    def __call__(self, environ, start_response):
        self.seen.append(environ)
        start_response("200 OK", self.headers)
        return [b"one", b"two"]


def ask(middleware, client=GOOD, **environ):
    """(status, headers, body) of one request."""
    environ = {"REMOTE_ADDR": client} | environ
    setup_testing_defaults(environ)
    answered = []

    def start_response(status, headers, exc_info=None):
        answered.extend((status, headers))

    body = b"".join(middleware(environ, start_response))
    return answered[0], dict(answered[1]), body


def guarded(app=None, **options):
    app = app or Application()
    return app, Gobanfast(app, FakeEngine(), **options)


def test_allowed_request_reaches_the_application():
    """The application sees the request with the decision and an id, which the response carries."""
    app, middleware = guarded(Application([("Content-Type", "text/plain")]))

    status, headers, body = ask(middleware)

    environ = app.seen[0]
    assert "allow" == environ["gobanfast.decision"].action
    assert {"Content-Type": "text/plain", "X-Request-ID": environ["gobanfast.request_id"]} == headers
    assert ("200 OK", b"onetwo") == (status, body)
    assert [("Content-Type", "text/plain")] == app.headers


def test_engine_is_asked_with_all_that_is_known():
    """Address, environ, method, path as text and HTTP version go to the engine."""
    app, middleware = guarded()

    ask(middleware, REQUEST_METHOD="POST", PATH_INFO="/é".encode().decode("latin-1"), SERVER_PROTOCOL="HTTP/1.0")

    asked = middleware.guard.engine.asked[0]
    assert asked.pop("headers") is app.seen[0]
    assert {"address": GOOD, "sni": None, "method": "POST", "path": "/é", "http": "1.0"} == asked


def test_banned_request_never_reaches_the_application():
    """A banned client gets 403 with request id, reason and when to come again; HEAD gets the headers of that."""
    app, middleware = guarded(show_reason=True)

    status, headers, body = ask(middleware, BANNED)

    assert ([], "403 Forbidden", "60") == (app.seen, status, headers["retry-after"])
    assert "<probing>" == json.loads(body)["reason"]
    assert b"" == ask(middleware, BANNED, REQUEST_METHOD="HEAD")[2]
    assert "text/html; charset=utf-8" == ask(middleware, BANNED, HTTP_ACCEPT="text/html")[1]["content-type"]


@pytest.mark.parametrize(("on_error", "status"), [("refuse", "503 Service Unavailable"), ("allow", "200 OK")])
def test_failing_engine_does_as_configured(on_error, status, caplog):
    """An exception in the engine is logged and answered by `on_error`."""
    _, middleware = guarded(on_error=on_error)

    assert status == ask(middleware, FAILING)[0]
    assert "the engine is broken" in caplog.text


def test_trusted_peer_speaks_for_its_client():
    """Behind a trusted proxy the client's address decides and its request id is kept; anyone else is himself."""
    app, middleware = guarded(trust=Trust(["10.0.0.0/8", "unix"]))

    _, headers, _ = ask(middleware, "10.0.0.1", HTTP_X_FORWARDED_FOR=GOOD, HTTP_X_REQUEST_ID="abc-1")

    assert (GOOD, "abc-1") == (app.seen[0]["gobanfast.origin"].address, headers["X-Request-ID"])
    assert "403 Forbidden" == ask(middleware, "10.0.0.1", HTTP_X_FORWARDED_FOR=BANNED)[0]
    assert "403 Forbidden" == ask(middleware, "", HTTP_X_FORWARDED_FOR=BANNED)[0]
    assert "200 OK" == ask(middleware, GOOD, HTTP_X_FORWARDED_FOR=BANNED)[0]


def test_routes_and_observer():
    """Paths named in `routes` are left alone or only watched; `on_decision` sees what was decided."""
    seen = []
    _, middleware = guarded(
        routes={"/health": "off", "/static/": "observe"}, on_decision=lambda decision, _: seen.append(decision.action)
    )

    assert ["200 OK", "200 OK", "403 Forbidden"] == [
        ask(middleware, BANNED, PATH_INFO=path)[0] for path in ("/health", "/static/a", "/")
    ]
    assert ["ban", "ban"] == seen


def test_flask_finds_the_decision():
    """Around `wsgi_app` of a Flask application: a view reads the decision, a banned client reaches no view."""
    flask = pytest.importorskip("flask")
    app = flask.Flask("guarded")
    app.wsgi_app = Gobanfast(app.wsgi_app, FakeEngine())

    @app.get("/")
    def view():
        decision = flask.request.environ["gobanfast.decision"]
        return {"action": decision.action, "address": decision.address}

    client = app.test_client()

    assert {"action": "allow", "address": GOOD} == client.get("/", environ_base={"REMOTE_ADDR": GOOD}).json
    assert 403 == client.get("/", environ_base={"REMOTE_ADDR": BANNED}).status_code


def test_an_allow_rule_answers_a_probe_where_a_chain_is_owed():
    """A probe of a trusted proxy without a chain is unparsable under WSGI, unless a rule allows its path, or the rules
    say that chains are optional; compiled rules say the same, and a chain that is there changes nothing."""
    from gobanfast import Engine, Ruleset

    text = """
version: 1
trust: {{prefix: [10.0.0.0/8]{chain}}}
rules:
- {{id: probe, when: {{path: /healthz}}, action: allow}}
- {{id: bad, when: {{prefix: 203.0.113.0/24}}, action: ban}}
"""
    expected = {
        "": ["403", "200", "200", "403"],
        ", chain: required": ["403", "200", "200", "403"],
        ", chain: optional": ["200", "200", "200", "403"],
    }
    for chain, statuses in expected.items():
        app = Gobanfast(Application(), Engine(Ruleset.from_text(text.format(chain=chain))))
        answers = [
            ask(app, "10.0.0.1", PATH_INFO="/"),
            ask(app, "10.0.0.1", PATH_INFO="/healthz"),
            ask(app, "10.0.0.1", HTTP_X_FORWARDED_FOR="192.0.2.1"),
            ask(app, "10.0.0.1", HTTP_X_FORWARDED_FOR="203.0.113.9"),
        ]
        assert statuses == [status[:3] for status, _, _ in answers], chain
