"""The doctor: what it finds in configurations and in traffic, and what it says nothing about."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from gobanfast import Engine, Ruleset
from gobanfast.cli.app import app as command
from gobanfast.frontends import asgi, wsgi
from gobanfast.frontends.doctor import MANY, Doctor, Watch, examine, examine_cors
from gobanfast.frontends.trust import Trust

QUIET = "{version: 1, trust: [10.0.0.0/8], rules: []}"


def codes(found):
    return [finding.code for finding in found]


@pytest.fixture
def asn_file(tmp_path):
    path = tmp_path / "asn.csv"
    path.write_text("192.0.2.0,192.0.2.255,64500\n")
    return path


@pytest.mark.parametrize(
    ("rules", "options", "expected"),
    [
        (QUIET, {}, []),
        ("{version: 1, rules: []}", {}, ["no-trust"]),
        ("{version: 1, rules: []}", {"trust": Trust(["unix"])}, []),
        (QUIET, {"workers": 4}, ["workers-do-not-share"]),
        (QUIET, {"workers": 4, "shared": True}, []),
        (QUIET, {"environ": {"WEB_CONCURRENCY": "3"}}, ["workers-do-not-share"]),
        (QUIET, {"environ": {"GUNICORN_CMD_ARGS": "--workers=3"}}, ["workers-do-not-share"]),
        (QUIET, {"environ": {"GUNICORN_CMD_ARGS": "-w 1"}}, []),
        (QUIET, {"environ": {"FORWARDED_ALLOW_IPS": "*"}}, ["server-believes-everyone"]),
        (
            "{trust: [10.0.0.0/8], rules: [{id: c, when: {asn: 64500}, action: challenge}]}",
            {},
            ["no-challenge"],
        ),
        ("{trust: [10.0.0.0/8], rules: [{id: c, when: {asn: 64500}, action: challenge}]}", {"challenge": True}, []),
    ],
)
def test_configurations(rules, options, expected, asn_file):
    """Each way in which a configuration goes wrong has one finding, with advice; a right one has none."""
    found = examine(Engine(Ruleset.from_text(rules)), asn_file=asn_file, **{"environ": {}} | options)

    assert expected == codes(found)
    assert all(finding.what and finding.advice for finding in found)


def test_stale_rules(asn_file):
    """Rules that are not those on disk are a problem."""

    class Stale(Engine):
        def status(self):
            return {"stale": True, "problems": ["rules.yaml:1:1: the file is empty"]}

    found = examine(Stale(Ruleset.from_text(QUIET)), asn_file=asn_file, environ={})

    assert ["rules-stale"] == codes(found)
    assert "rules.yaml:1:1" in found[0].what


def test_old_as_data(asn_file):
    """AS data older than a month is told, and the starter table."""
    engine = Engine(Ruleset.from_text(QUIET))
    later = asn_file.stat().st_mtime + 40 * 86400

    assert ["asn-stale"] == codes(examine(engine, asn_file=asn_file, environ={}, now=lambda: later))
    assert ["asn-starter"] == codes(examine(engine, environ={}))


def forwarded(value):
    return [(b"x-forwarded-for", value.encode())]


def many(peer):
    return [(f"203.0.113.{index}" if peer is None else peer) for index in range(MANY)]


@pytest.mark.parametrize(
    ("peers", "headers", "trust", "expected"),
    [
        (many(None), [], [], []),
        (many("10.0.0.1"), forwarded("203.0.113.9"), ["10.0.0.0/8"], []),
        (many("10.0.0.1"), forwarded("203.0.113.9"), [], ["one-peer"]),
        (many("10.0.0.1"), [], [], ["one-peer"]),
        (many(None), forwarded("198.51.100.1"), [], ["chains-from-strangers"]),
        (["203.0.113.9", *many(None)], forwarded("198.51.100.1, 203.0.113.9"), ["10.0.0.0/8"],
         ["server-rewrote-client", "chains-from-strangers"]),
        (many("10.0.0.1"), [(b"x-real-ip", b"203.0.113.9")], ["10.0.0.0/8"], ["proxy-says-nothing"]),
        (many("10.0.0.1"), forwarded("<script>"), ["10.0.0.0/8"], ["chains-malformed"]),
        ([None] * 3, forwarded("203.0.113.9"), [], ["unix-socket"]),
        ([None] * 3, forwarded("203.0.113.9"), ["unix"], []),
    ],
)  # fmt: skip
def test_traffic(peers, headers, trust, expected):
    """Each way in which traffic shows a wrong set-up has one finding; right set-ups have none."""
    watch = Watch(Trust(trust))
    for peer in peers:
        watch.see(peer, headers)

    assert expected == codes(watch.findings())


def test_handshakes_that_nobody_sees():
    """TLS that ends here without a guard is told; TLS of a trusted proxy is its own affair."""
    from gobanfast.frontends.doctor import Doctor, WsgiDoctor
    from test_frontend_asgi import Application, ask
    from test_frontend_wsgi import ask as ask_wsgi

    engine, token = Engine(Ruleset.from_text(QUIET)), "a token of 20 bytes."
    doctor = Doctor(Application(), engine, token=token)
    wsgi = WsgiDoctor(lambda _, start_response: (start_response("200 OK", []), [b""])[1], engine, token=token)

    ask(doctor, scheme="http")
    ask(doctor, "10.0.0.1", scheme="https")
    ask_wsgi(wsgi, "10.0.0.1", **{"wsgi.url_scheme": "https"})
    assert [] == codes(doctor.watch.findings()) == codes(wsgi.watch.findings())
    ask(doctor, scheme="https")
    ask_wsgi(wsgi, **{"wsgi.url_scheme": "https"})
    assert ["handshake-unknown"] == codes(doctor.watch.findings()) == codes(wsgi.watch.findings())


def test_a_header_of_another_name_is_named():
    """Where a proxy writes another header than we read, the advice names that header."""
    watch = Watch(Trust(["10.0.0.0/8"]))
    for _ in range(MANY):
        watch.see("10.0.0.1", [(b"cf-connecting-ip", b"203.0.113.9")])

    assert "cf-connecting-ip" in watch.findings()[0].advice


def test_memory_is_bounded():
    """A million peers are not a million entries."""
    watch = Watch(Trust())
    for index in range(10_000):
        watch.see(f"10.0.{index // 256}.{index % 256}", [])

    assert len(watch.peers) <= 256
    assert [] == watch.findings()


def test_clock_jumps():
    """A wall clock that moves against the steady one by more than five seconds is told."""
    wall = [1000.0]
    watch = Watch(Trust(), wall=lambda: wall[0], steady=lambda: 0.0)
    watch.see("203.0.113.9", [])
    wall[0] += 3
    watch.see("203.0.113.9", [])
    assert [] == watch.findings()
    wall[0] -= 3600
    watch.see("203.0.113.9", [])

    assert ["clock-jumps"] == codes(watch.findings())


def test_command_on_a_configuration(tmp_path, monkeypatch, asn_file):
    """Exit status 0 with nothing but notes, 1 with a finding, 2 when there is nothing to examine."""
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    rules = tmp_path / "rules.yaml"
    rules.write_text(QUIET)
    os.utime(asn_file)
    run = CliRunner().invoke
    base = ["doctor", "--rules", str(rules), "--asn", str(asn_file)]

    fine = run(command, base)
    wrong = run(command, [*base, "--workers", "4", "--json"])

    assert (0, "nothing to say: all fine\n") == (fine.exit_code, fine.output)
    assert (1, ["workers-do-not-share"]) == (wrong.exit_code, [found["code"] for found in json.loads(wrong.output)])
    assert 2 == run(command, ["doctor"]).exit_code
    assert 2 == run(command, [*base, "--trust", "*"]).exit_code


OWNING = "share: [{id: api, when: {path: /api/**, origin: 'https://app.example'}, action: grant}]"
TRIAL = OWNING.replace("action: grant", "action: grant, mode: shadow")


def cors_of_starlette(engine):
    applications = pytest.importorskip("starlette.applications")
    cors = pytest.importorskip("starlette.middleware.cors")
    app = applications.Starlette()
    app.add_middleware(cors.CORSMiddleware, allow_origins=["*"])
    return asgi.Gobanfast(app, engine)


def cors_around(engine):
    cors = pytest.importorskip("starlette.middleware.cors")
    return asgi.Gobanfast(cors.CORSMiddleware(None), engine)


def cors_of_flask(engine):
    app = pytest.importorskip("flask").Flask("inside")

    def after(response):
        return response

    after.__module__ = "flask_cors.extension"  # as the function that Flask-CORS has called after each request
    app.after_request(after)
    app.wsgi_app = wsgi.Gobanfast(app.wsgi_app, engine)
    return app


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (cors_of_starlette, "starlette.middleware.cors.CORSMiddleware"),
        (cors_around, "starlette.middleware.cors.CORSMiddleware"),
        (cors_of_flask, "flask_cors."),
    ],
)
def test_cors_inside_is_told_where_share_rules_own(make, name):
    """By its dotted name, with the rules; not where they own nothing, and not where nothing of the kind is inside."""
    engine = Engine(Ruleset.from_text(OWNING))
    app = make(engine)

    (finding,) = examine_cors(app, engine)

    assert ("cors-twice", "warning") == (finding.code, finding.severity)
    assert name in finding.what
    assert "share rules api " in finding.what
    assert [] == examine_cors(app, Engine(Ruleset.from_text(TRIAL)))
    assert [] == examine_cors(asgi.Gobanfast(None, engine), engine)


def test_cors_in_a_setting_of_django(monkeypatch):
    """The names under MIDDLEWARE."""
    pytest.importorskip("django")
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    import test_frontend_django  # noqa: F401 - configures Django

    monkeypatch.setattr(WSGIHandler, "load_middleware", lambda self: None)
    engine = Engine(Ruleset.from_text(OWNING))
    with override_settings(MIDDLEWARE=["corsheaders.middleware.CorsMiddleware"]):
        (finding,) = examine_cors(WSGIHandler(), engine)

    assert "corsheaders.middleware.CorsMiddleware is inside" in finding.what


def test_a_report_tells_of_cors_inside():
    """Of the application that the doctor watches."""
    engine = Engine(Ruleset.from_text(OWNING))
    doctor = Doctor(cors_around(engine), engine, token="t" * 16)

    assert "cors-twice" in [finding["code"] for finding in doctor.report(None)["findings"]]


def test_a_server_without_a_doctor_is_told_what_is_missing():
    class Undoctored(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Undoctored) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        result = CliRunner().invoke(command, ["doctor", "--url", f"http://127.0.0.1:{server.server_port}"])
        answering.join(10)

    assert result.exit_code == 2
    assert "/gobanfast-doctor has no Doctor; wrap the application in gobanfast.frontends.doctor.Doctor" in result.output
