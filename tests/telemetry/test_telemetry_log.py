"""The decision log: every line fits the documented schema, nothing is lost silently, a line can be decided again."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import Engine, GobanError, Ruleset, parse_client_hello
from gobanfast.telemetry.log import DecisionLog, Pseudonyms
from gobanfast.telemetry.replay import find_line, replay
from gobanfast.telemetry.sinks import FileSink, SyslogSink, open_sink
from hellos import server_name, stream
from stores_fakes import WAIT, eventually

HELLO = stream([server_name(b"shop.example")])
DOC = Path(__file__).parents[2] / "docs" / "decision-log.md"
RULES = """
unparsable: ban
rules:
  - {id: office, when: {prefix: 192.0.2.0/24}, action: allow}
  - {id: spam, when: {prefix: 198.51.100.0/24}, action: ban, for: 1h, reason: spam}
  - {id: names, when: {sni: "**.evil.example"}, action: challenge}
  - {id: old, when: {tls_version_below: "1.2"}, action: ban}
  - {id: google, when: {asn: 15169}, action: challenge, mode: shadow}
  - {id: noted, when: {prefix: 203.0.113.0/24}, action: log}
"""


class Kept:
    """A sink that keeps lines, and can fail or wait."""

    def __init__(self):
        self.lines, self.fail, self.gate = [], False, threading.Event()
        self.gate.set()

    def write(self, lines):
        self.gate.wait(WAIT)
        if self.fail:
            raise OSError("no room")
        self.lines += [json.loads(line) for line in lines]

    def close(self):
        pass


@pytest.fixture(scope="module")
def engine():
    return Engine(Ruleset.from_text(RULES, source="rules.yaml"))


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"sni": "a.evil.example", "ja4": "t13d1516h2_8daaf6152771_02713d6af862"},
        {"hello": parse_client_hello(HELLO), "method": "GET", "path": "/x", "mount": "/app"},
        {"headers": [(b"user-agent", b"curl/8"), (b"cookie", b"secret"), (b"x", b"\xff")], "http": "1.1"},
        {"headers": {"REQUEST_METHOD": "GET", "PATH_INFO": "/y", "HTTP_USER_AGENT": "curl/8"}},
    ],
)
@pytest.mark.parametrize("address", ["198.51.100.7", "203.0.113.9", "8.8.8.8", "none"])
def test_a_decision_as_a_dict_is_what_its_line_says(engine, request_, address):
    """`to_dict` has the values of the line, by the same names; it goes through JSON unchanged."""
    decision, sink = engine.decide(address, **request_), Kept()
    log = DecisionLog(sink, sample_allow=1)
    log.observe(decision)
    log.close()
    (line,) = sink.lines
    found = decision.to_dict()

    assert found == json.loads(json.dumps(found))
    assert found == {name: line[name] for name in found}
    assert {"v", "kind", "id", "request", "time", "now", "pid", "outcome", "sampled", "pseudonyms"} == set(line) - set(
        found
    )
    assert "secret" not in str(found)


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture(scope="module")
def fits():
    """Checks a line against the schema in the documentation."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(re.search(r"```json\n(.*?)```", DOC.read_text(), re.DOTALL)[1])
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).validate


def test_what_matters_is_logged_and_fits_the_schema(engine, kept, fits):
    """Bans, challenges, shadow and log matches are lines; plain allows are not. Each fits the documented schema."""
    log = DecisionLog(kept)
    hello = parse_client_hello(HELLO)
    asked = [
        engine.decide("198.51.100.7"),
        engine.decide("192.0.2.1"),
        engine.decide("8.8.8.8", sni="dns.google", path="/\udce9", method="GET", http="2"),
        engine.decide("203.0.113.9", headers=[(b"user-agent", b"curl/8 \xe9"), (b"Cookie", b"secret")]),
        engine.decide("1.1.1.1", sni="www.evil.example", headers={"HTTP_USER_AGENT": "x", "PATH_INFO": "/"}),
        engine.decide("nothing", hello=hello),
        engine.decide(None),
    ]
    ids = [log.observe(decision) for decision in asked]
    assert log.flush(WAIT)
    log.close()

    assert [True, False, True, True, True, True, False] == [name is not None for name in ids]
    assert [name for name in ids if name] == [line["id"] for line in kept.lines]
    for line in kept.lines:
        fits(line)
    assert [("ban", "spam"), ("allow", None), ("allow", None), ("challenge", "names"), ("ban", None)] == [
        (line["action"], line["rule"]) for line in kept.lines
    ]
    assert [
        ["google"],
        ["noted"],
        [["user-agent", "curl/8 \xe9"], ["Cookie", "***"]],
        [["user-agent", "x"]],
        "malformed-address",
    ] == [
        kept.lines[1]["shadow"],
        kept.lines[2]["logged"],
        kept.lines[2]["signals"]["headers"],
        kept.lines[3]["signals"]["headers"],
        kept.lines[4]["reason"],
    ]


@given(address=st.text(max_size=30), sni=st.none() | st.text(max_size=30), path=st.none() | st.text())
def test_any_text_makes_a_line(address, sni, path, engine, fits):
    """Whatever the wire brings, lone surrogates and control characters too, a line is one line of JSON."""
    written = []

    class Bytes(Kept):
        def write(self, lines):
            written.extend(lines)

    log = DecisionLog(Bytes(), sample_allow=1)
    log.observe(engine.decide(address, sni=sni, path=path, headers=[(b"\0\n", b"\xff")]))
    assert log.flush(WAIT)
    log.close()

    assert 1 == len(written)
    assert b"\n" not in written[0]
    fits(json.loads(written[0]))


def test_allows_are_sampled(engine, kept):
    """One of N allows is written, and says that it stands for N."""
    log = DecisionLog(kept, sample_allow=10)
    decision = engine.decide("1.1.1.1")
    for _ in range(5000):
        log.observe(decision)
    assert log.flush(WAIT)
    log.close()

    assert 350 < len(kept.lines) < 650
    assert {10} == {line["sampled"] for line in kept.lines}


def test_a_full_queue_drops_and_says_so(engine, kept, fits):
    """While the sink waits, what does not fit the queue is counted, and a line tells how many are lost."""
    kept.gate.clear()
    log = DecisionLog(kept, queue=100)
    decision = engine.decide("198.51.100.7")
    log.observe(decision)
    assert eventually(lambda: not log._queue)
    ids = [log.observe(decision) for _ in range(150)]
    kept.gate.set()
    assert log.flush(WAIT)
    log.close()

    assert (50, 50) == (ids.count(None), log.health()["dropped"])
    told = [line for line in kept.lines if line["kind"] == "dropped"]
    assert [50] == [line["dropped"] for line in told]
    fits(told[0])
    assert 101 == len(kept.lines) - 1


def test_a_failing_sink_loses_nothing_that_was_queued(engine, kept, caplog, monkeypatch):
    """Lines wait for a sink that fails, and are written when it works again."""
    monkeypatch.setattr("gobanfast.telemetry.log.PAUSE", 0.01)
    kept.fail = True
    log = DecisionLog(kept)
    ids = [log.observe(engine.decide("198.51.100.7")) for _ in range(20)]
    assert eventually(lambda: log.failures > 2)
    kept.fail = False
    assert log.flush(WAIT)
    log.close()

    assert ids == [line["id"] for line in kept.lines]
    assert 1 == sum("cannot be written" in text for text in caplog.messages)


def test_pseudonyms_join_within_a_day_and_not_beyond(engine, kept, fits):
    """Equal clients have equal pseudonyms on one day, others on the next and with another key; nothing leaks."""
    log = DecisionLog(kept, pseudonym_key=b"k" * 32)
    for address in ("198.51.100.7", "198.51.100.7", "198.51.100.8"):
        log.observe(
            engine.decide(address, hello=parse_client_hello(HELLO), path="/secret", headers=[(b"cookie", b"x")])
        )
    assert log.flush(WAIT)
    log.close()
    one, two, other = (line["signals"]["address"] for line in kept.lines)

    assert one == two != other
    assert re.fullmatch("p:[0-9a-f]{24}", one)
    assert not {"path", "headers", "hello"} & kept.lines[0]["signals"].keys()
    assert "198.51" not in json.dumps(kept.lines)
    for line in kept.lines:
        fits(line)
    days = [Pseudonyms(key).of(wall)("a") for key in (b"k" * 32, b"K" * 32) for wall in (0, 86399, 86400)]
    assert days[0] == days[1]
    assert 4 == len(set(days))
    with pytest.raises(GobanError, match="logged with pseudonyms"):
        replay(kept.lines[0], engine.ruleset)


def test_wrong_arguments_are_refused(kept):
    """Each names the value and what to write."""
    with pytest.raises(ValueError, match="pseudonym_key has 5 bytes; take 16 to 64"):
        DecisionLog(kept, pseudonym_key=b"short")
    with pytest.raises(ValueError, match="sample_allow=-1 is negative"):
        DecisionLog(kept, sample_allow=-1)
    for uri in ("", "stdout", "file:", "tcp://host", "kafka:x"):
        with pytest.raises(ValueError, match="is not a sink address; write stdout:, file:PATH"):
            open_sink(uri)


# ---- sinks


def logged(sink, engine, count=3):
    log = DecisionLog(sink)
    ids = [log.observe(engine.decide("198.51.100.7")) for _ in range(count)]
    assert log.flush(WAIT)
    log.close()
    return ids


def test_file_follows_rotation(engine, tmp_path):
    """After a rename the next line opens a new file under the old name; what was written stays."""
    path = tmp_path / "log.jsonl"
    log = DecisionLog(f"file:{path}")
    first = log.observe(engine.decide("198.51.100.7"))
    assert log.flush(WAIT)
    path.rename(tmp_path / "log.1")
    second = log.observe(engine.decide("198.51.100.7"))
    assert log.flush(WAIT)
    path.unlink()
    third = log.observe(engine.decide("198.51.100.7"))
    assert log.flush(WAIT)
    log.close()

    assert first in (tmp_path / "log.1").read_text()
    assert second not in path.read_text()
    assert third in path.read_text()


def test_file_shared_by_processes_has_whole_lines(engine, tmp_path):
    """Forked workers write one file; every line is whole and every id is there once."""
    path = tmp_path / "log.jsonl"
    log = DecisionLog(FileSink(path))
    log.observe(engine.decide("198.51.100.7"))
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            for _ in range(200):
                log.observe(engine.decide("198.51.100.7"))
            os._exit(0 if log.flush(WAIT) and log.written == 200 else 1)
        children.append(child)
    assert [0, 0, 0] == [os.waitpid(child, 0)[1] for child in children]
    assert log.flush(WAIT)
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert 601 == len({line["id"] for line in lines}) == len(lines)
    assert 4 == len({line["pid"] for line in lines})


def test_streams_and_datagrams(engine, tmp_path):
    """TCP, UDP, a UNIX socket and syslog get every line, framed as each wants."""
    for family, kind, address, uri in (
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), "tcp://127.0.0.1:{}"),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0), "udp://127.0.0.1:{}"),
        (socket.AF_UNIX, socket.SOCK_STREAM, str(tmp_path / "sock"), f"unix:{tmp_path / 'sock'}"),
        (socket.AF_UNIX, socket.SOCK_DGRAM, str(tmp_path / "log"), f"syslog:{tmp_path / 'log'}"),
    ):
        with socket.socket(family, kind) as server:
            server.bind(address)
            server.settimeout(WAIT)
            port = server.getsockname()[1] if family == socket.AF_INET else ""
            got = []
            if kind == socket.SOCK_STREAM:
                server.listen()
                thread = threading.Thread(target=lambda: got.append(read_all(server)))  # noqa: B023
                thread.start()
                ids = logged(open_sink(uri.format(port)), engine)
                thread.join(WAIT)
                texts = got[0].decode().splitlines()
            else:
                ids = logged(open_sink(uri.format(port)), engine)
                texts = [server.recv(65536).decode() for _ in range(3)]
            if uri.startswith("syslog"):
                assert all(text.startswith(f"<134>gobanfast[{os.getpid()}]: {{") for text in texts)
                texts = [text.partition(": ")[2] for text in texts]
            assert ids == [json.loads(text)["id"] for text in texts]
    assert ("10.0.0.1", 514) == SyslogSink(("10.0.0.1", 514)).address


def read_all(server):
    connection, _ = server.accept()
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_standard_logging_and_stdout(engine, caplog, capfd):
    """A logger gets a record a line; standard output gets lines."""
    caplog.set_level(logging.INFO, "gobanfast.decisions")
    ids = logged(open_sink("logging:gobanfast.decisions"), engine)
    assert ids == [json.loads(record.message)["id"] for record in caplog.records]
    sys.stdout.flush()
    capfd.readouterr()
    ids = logged("stdout:", engine)

    assert ids == [json.loads(line)["id"] for line in capfd.readouterr().out.splitlines()]


def test_one_hash_names_a_ruleset_everywhere(tmp_path, kept):
    """Ruleset, status, decision log, reload line and the compiled file have the same 32 digits; settings are in it."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    engine = Engine(Ruleset.load(path))
    log = DecisionLog(kept)
    log.observe(engine.decide("198.51.100.7", sni="a.example", path="/x"))
    assert log.flush(WAIT)
    log.close()
    engine.ruleset.save(tmp_path / "rules.gbf")
    shown = {
        engine.ruleset.content_hash,
        engine.ruleset.compiled.content_hash,
        engine.status()["content_hash"],
        kept.lines[0]["ruleset"],
        Ruleset.load(tmp_path / "rules.gbf").content_hash,
    }

    assert 1 == len(shown)
    assert re.fullmatch("[0-9a-f]{32}", shown.pop())
    other = Ruleset.from_text("trust: {prefix: 192.0.2.0/24, chain: required}" + RULES)
    assert 3 == len({
        engine.ruleset.content_hash, other.content_hash, Ruleset.from_text("trust: 192.0.2.0/24" + RULES).content_hash,
    })  # fmt: skip


# ---- deciding again


def test_a_line_is_decided_again(engine, kept):
    """From a line and its rules comes the same decision, hello and names included; other rules are refused."""
    log = DecisionLog(kept, sample_allow=1)
    old = bytearray(HELLO)
    for address, signals in (
        ("198.51.100.7", {}),
        ("192.0.2.1", {"sni": "www.evil.example"}),
        ("1.1.1.1", {"sni": "www.evil.example"}),
        ("8.8.8.8", {"hello": parse_client_hello(HELLO)}),
        ("nothing", {"hello": parse_client_hello(bytes(old[:-1]))}),
        ("203.0.113.1", {}),
        (None, {}),
        ("192.0.2.1", {"ja4": "t13d1516h2_8daaf6152771_02713d6af862"}),
    ):
        log.observe(engine.decide(address, **signals))
    assert log.flush(WAIT)
    log.close()

    assert 8 == len(kept.lines)
    assert "t13d1516h2_8daaf6152771_02713d6af862" == kept.lines[-1]["signals"]["ja4"]
    again = Ruleset.from_text(RULES, source="copy.yaml")
    for line in kept.lines:
        assert {} == replay(json.loads(json.dumps(line)), again).differences
    banned = Engine(engine.ruleset)
    banned.ban("192.0.3.0/24", duration="1h", reason="by hand")
    log = DecisionLog(kept)
    log.observe(banned.decide("192.0.3.9"))
    assert log.flush(WAIT)
    log.close()
    assert ("ban", "ban", "192.0.3.0/24", "by hand") == tuple(
        kept.lines[-1][member] for member in ("action", "cause", "ban", "reason")
    )
    replayed = replay(kept.lines[-1], again)
    assert ({}, ("the ban of 192.0.3.0/24 is taken from the log",)) == (replayed.differences, replayed.notes)
    other = Ruleset.from_text("rules:\n  - {id: a, when: any, action: allow}\n", source="other.yaml")
    with pytest.raises(GobanError, match=r"was made by ruleset [0-9a-f]+, other.yaml is"):
        replay(kept.lines[0], other)


def test_what_live_state_decided_is_noted(kept):
    """A tracker's decision is told from the rules' part of it, and says what was taken from the log."""
    text = "trackers: {request_rate: {limit: 5, window: 10s, action: challenge}}\n" + RULES.lstrip()
    engine = Engine(Ruleset.from_text(text, source="rules.yaml"), clock=lambda: 1000.0)
    log = DecisionLog(kept)
    for _ in range(8):
        log.observe(engine.decide("1.1.1.1"))
    assert log.flush(WAIT)
    log.close()
    line = kept.lines[-1]
    again = replay(line, Ruleset.from_text(text, source="copy.yaml"))

    assert ("challenge", "tracker", "request_rate") == (line["action"], line["cause"], line["rule"])
    assert ({}, 1) == (again.differences, len(again.notes))
    assert "the state of the tracker then is not in the log" in again.notes[0]
    with pytest.raises(GobanError, match=r"says score 0\.2 under threshold 0\.6"):
        replay({**line, "cause": "score", "score": 0.2, "threshold": 0.6}, engine.ruleset)


def test_a_request_is_decided_again_by_its_headers_and_path(kept):
    """What rules ask of a request is in its line: headers, method and path, from ASGI pairs and a WSGI environ."""
    text = """
rules:
  - {id: scanners, when: {header: {user-agent: {contains: sqlmap}}}, action: ban}
  - {id: probes, when: {path: /admin/**, method: [GET]}, action: challenge}
"""
    engine = Engine(Ruleset.from_text(text, source="rules.yaml"))
    log = DecisionLog(kept)
    environ = {"HTTP_USER_AGENT": "Sqlmap/1.7", "HTTP_COOKIE": "a=b", "REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    for request in (
        {"headers": [(b"user-agent", b"sqlmap/1.7"), (b"cookie", b"a=b")], "method": "GET", "path": "/", "http": "2"},
        {"headers": environ, "method": "GET", "path": "/"},
        {"headers": [(b"user-agent", b"x")], "method": "GET", "path": "/admin/x", "http": "1.1"},
    ):
        log.observe(engine.decide("1.1.1.1", **request))
    environ["application.state"] = 1
    assert log.flush(WAIT)
    log.close()
    again = Ruleset.from_text(text, source="copy.yaml")

    assert ["scanners", "scanners", "probes"] == [line["rule"] for line in kept.lines]
    assert [{}, {}, {}] == [replay(line, again).differences for line in kept.lines]
    assert "a=b" not in json.dumps(kept.lines)


SHARING = """
rules:
  - {id: bad, when: {prefix: 198.51.100.0/24}, action: ban}
share:
  - {id: rebind, when: {not: {host: [api.example.com]}}, action: refuse}
  - {id: app, when: {path: /api/**, origin: "https://app.example.com"}, action: grant, methods: [PUT]}
  - {id: odd, when: {path: /api/**, origin: malformed}, action: withhold, mode: shadow}
"""


def test_what_is_shared_is_logged_and_decided_again(kept, fits):
    """Withheld and refused answers are lines with the origin, shadow share rules too; grants alone are plain."""
    engine, log = Engine(Ruleset.from_text(SHARING, source="rules.yaml")), DecisionLog(kept)
    host, app = (b"host", b"api.example.com"), (b"origin", b"https://app.example.com")
    asks = (b"access-control-request-method", b"PUT")
    environ = {"HTTP_HOST": "evil.test", "REQUEST_METHOD": "GET", "PATH_INFO": "/api/x", "wsgi.url_scheme": "https"}
    for request in (
        {"headers": [host, app], "method": "GET"},
        {"headers": [host, (b"origin", b"https://evil.test")], "method": "GET"},
        {"headers": [host, (b"origin", b"no origin")], "method": "GET"},
        {"headers": [host, (b"origin", b"https://evil.test"), asks], "method": "OPTIONS"},
        {"headers": environ},
        {"headers": [(b"host", b"proxied"), app], "method": "GET", "host": "api.example.com:80", "scheme": "http"},
        {"headers": [(b"host", b"api.example.com"), app], "method": "GET", "host": "other.test", "scheme": "https"},
    ):
        given = request if request["headers"] is environ else {**request, "path": "/api/x"}
        log.observe(engine.decide("192.0.2.1", **given))
    assert log.flush(WAIT)
    log.close()
    again = Ruleset.from_text(SHARING, source="copy.yaml")

    assert [
        ("withheld", None, [], False, "https://evil.test"),
        ("withheld", None, ["odd"], False, "no origin"),
        ("withheld", None, [], True, "https://evil.test"),
        ("refused", "rebind", [], False, None),
        ("refused", "rebind", [], False, "https://app.example.com"),
    ] == [
        (line["share"], line["share_rule"], line["share_shadow"], line["preflight"], line["signals"]["origin"])
        for line in kept.lines
    ]
    assert ("https", "other.test") == (kept.lines[3]["signals"]["scheme"], kept.lines[4]["signals"]["host"])
    for line in kept.lines:
        fits(line)
        assert {} == replay(line, again).differences
    changed = {**kept.lines[0], "share": "granted"}
    assert {"share": ("granted", "withheld")} == replay(changed, again).differences
    older = {name: value for name, value in kept.lines[0].items() if "share" not in name and name != "preflight"}
    assert {} == replay(older, again).differences


@pytest.mark.parametrize("origin", ["https://a" * 3000, "https://\x85.\xff", "x\u2028"])
def test_an_origin_in_a_line_is_bounded_and_escaped(origin, kept, fits):
    """Whatever a client sends as Origin: the line has one line, and at most 4,096 characters of it."""
    engine, log = Engine(Ruleset.from_text(SHARING, source="rules.yaml")), DecisionLog(kept)
    headers = [(b"host", b"api.example.com"), (b"origin", origin.encode())]
    log.observe(engine.decide("192.0.2.1", headers=headers, method="GET", path="/api/x"))
    assert log.flush(WAIT)
    log.close()
    (line,) = kept.lines

    fits(line)
    assert origin.encode().decode("latin-1").startswith(line["signals"]["origin"])
    assert len(line["signals"]["origin"]) == min(len(origin.encode()), 4096)


def test_finding_a_line(engine, tmp_path):
    """A line is found by its id; none, and a damaged one, are errors with the place."""
    path = tmp_path / "log.jsonl"
    ids = logged(FileSink(path), engine, 20)
    with path.open() as lines:
        assert ids[7] == find_line(lines, ids[7])["id"]
    named = DecisionLog(FileSink(path))
    named.observe(engine.decide("198.51.100.7"), request_id="req-9")
    assert named.flush(WAIT)
    named.close()
    with path.open() as lines:
        assert "req-9" == find_line(lines, "req-9")["request"]
    with path.open() as lines, pytest.raises(GobanError, match="no decision has the id 'x-1'"):
        find_line(lines, "x-1")
    with pytest.raises(GobanError, match=r"line is not JSON .* at offset 3"):
        find_line(["{}\n", '{"id":"x-1'], "x-1")


def test_explain_command_decides_a_line_again(engine, tmp_path):
    """`explain --log --id --rules` says which rule, and that the decision is the same."""
    pytest.importorskip("typer", reason="the command line needs the extra cli")
    from typer.testing import CliRunner

    from gobanfast.cli.app import app

    rules, path = tmp_path / "rules.yaml", tmp_path / "log.jsonl"
    rules.write_text(RULES)
    ids = logged(FileSink(path), Engine(Ruleset.load(rules)))
    result = CliRunner().invoke(app, ["explain", "--log", str(path), "--id", ids[0], "-r", str(rules)])
    assert 0 == result.exit_code, result.output
    assert "ban for 1h by rule 'spam'" in result.output
    assert "decided again: the same" in result.output
    for arguments in (["explain", "-r", str(rules)], ["explain", "8.8.8.8", "--log", str(path), "-r", str(rules)]):
        assert 2 == CliRunner().invoke(app, arguments).exit_code
