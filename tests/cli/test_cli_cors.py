"""`gobanfast cors` against a lab on this machine: failure modes, good answers, servers that do not answer well."""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("typer", reason="the command line needs the extra cli")
pytest.importorskip("httpx", reason="asking a server needs the extra cors")
pytest.importorskip("h2", reason="asking a server needs the extra cors")
pytest.importorskip("uvicorn", reason="the lab is served by uvicorn")

from typer.testing import CliRunner, Result

import sse_lab
from gobanfast.cli import cors
from gobanfast.cli.app import app
from gobanfast.wire.cors_findings import MODES
from servers import WAIT, certificate, in_thread, listening, server_context, uvicorn_on  # noqa: F401 - a fixture

CASES = Path(__file__).parents[1] / "cases" / "cors"
ORIGIN = "https://app.example"
STAR, EXACT, TRUE = (
    "access-control-allow-origin: *",
    f"access-control-allow-origin: {ORIGIN}",
    "access-control-allow-credentials: true",
)
VARY, RESUMES = "vary: Origin", "access-control-allow-headers: last-event-id"
GOOD: dict[str, Any] = {"echo": 1, "h": [VARY], "p": [RESUMES]}
ES, FETCH, SSE = "EventSource", "fetch", "fetch-SSE"


@pytest.fixture(scope="module")
def lab() -> Iterator[tuple[sse_lab.Lab, int]]:
    with sse_lab.running() as (app_, port):
        yield app_, port


def run(*arguments: str, status: int = 0) -> Result:
    """What the command leaves behind, without a proxy between it and this machine."""
    environ = {"COLUMNS": "200", "TERM": "dumb", "NO_PROXY": "127.0.0.1,localhost"}
    result = CliRunner().invoke(app, ["cors", *arguments], env=environ)
    assert status == result.exit_code, result.output
    return result


def url_of(port: int, name: str, query: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{port}/case/{name}?{urlencode(query, doseq=True)}"


def asked(port: int, query: dict[str, Any], *more: str, status: int = 0) -> dict[str, Any]:
    """The JSON of one run."""
    shown = run(url_of(port, "a", query), "--origin", ORIGIN, "--json", *more, status=status).stdout
    return json.loads(shown)  # type: ignore[no-any-return]


def steps(found: dict[str, Any]) -> dict[str, str | None]:
    """By client: None where it can read, else where its walk ended."""
    return {one["client"]: None if one["readable"] else f"{one['asking']} {one['step']}" for one in found["clients"]}


def named(found: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(one["severity"], one["code"], one["mode"]) for one in found["findings"]}


# ---- T-03: HEAD, a stream that never ends, a preflight; good answers


def test_a_good_server_is_readable_and_nothing_is_found(lab: tuple[sse_lab.Lab, int]) -> None:
    """The four askings of a page, an endless stream left after a second; each carries the Origin, none a cookie."""
    app_, port = lab
    app_.log.clear()

    found = asked(port, GOOD | {"body": "endless", "h": [VARY, "set-cookie: a=b"]})

    members = ["url", "origin", "credentials", "method", "headers", "readable", "clients", "findings", "answers",
               "not_looked_at"]  # fmt: skip
    assert members == list(found)
    assert {ES: None, FETCH: None, SSE: None} == steps(found)
    assert set() == named(found)
    assert [("OPTIONS", 204), ("HEAD", 200), ("GET", 200)] == [(it["asking"], it["status"]) for it in found["answers"]]
    assert ["OPTIONS", "HEAD", "GET"] == [it.method for it in app_.log]
    assert {ORIGIN.encode()} == {it.headers.get(b"origin") for it in app_.log}
    assert {None} == {it.headers.get(b"cookie") for it in app_.log}
    preflight = app_.log[0].headers
    assert b"GET" == preflight[b"access-control-request-method"]
    assert b"last-event-id" == preflight[b"access-control-request-headers"]


@pytest.mark.parametrize(
    ("query", "more", "ended"),
    [
        (GOOD, (), {ES: None, FETCH: None, SSE: None}),
        ({"h": [STAR], "p": [RESUMES]}, (), {ES: None, FETCH: None, SSE: None}),
        ({"h": [STAR], "p": ["access-control-allow-headers: *"]}, (), {ES: None, FETCH: None, SSE: None}),
        (GOOD | {"h": [VARY, TRUE]}, ("--credentials",), {ES: None, FETCH: None, SSE: None}),
        (
            {"h": [EXACT, TRUE, VARY], "p": ["access-control-allow-headers: X-A, Last-Event-ID"]},
            ("--credentials", "--header", "x-a: 1"), {ES: "GET cannot-ask", FETCH: None, SSE: None},
        ),
        (
            {"h": [STAR], "p": ["access-control-allow-methods: PUT", RESUMES]}, ("--method", "put"),
            {ES: "GET cannot-ask", FETCH: None, SSE: None},
        ),
        # resuming alone fails, so the status is that of fetch and EventSource
        ({"h": [STAR]}, (), {ES: None, FETCH: None, SSE: "OPTIONS header:last-event-id"}),
        ({"h": [STAR], "mime": "application/json"}, (), {ES: "GET media-type", FETCH: None, SSE: "GET media-type"}),
    ],
)  # fmt: skip
def test_good_answers(
    lab: tuple[sse_lab.Lab, int], query: dict[str, Any], more: tuple[str, ...], ended: dict[str, Any]
) -> None:
    """Status 0: fetch reads, and EventSource where the answer is an event stream."""
    assert ended == steps(asked(lab[1], query, *more))


@pytest.mark.parametrize(
    ("origin", "ended"),
    [
        (ORIGIN, {ES: None, FETCH: None, SSE: None}),
        ("https://evil.example", {ES: "GET acao-missing", FETCH: "GET acao-missing", SSE: "GET acao-missing"}),
        ("http://app.example", {ES: "GET acao-missing", FETCH: "GET acao-missing", SSE: "GET acao-missing"}),
        ("null", {ES: "GET acao-missing", FETCH: "GET acao-missing", SSE: "GET acao-missing"}),
    ],
)
def test_an_application_with_a_list_of_origins(origin: str, ended: dict[str, Any]) -> None:
    """Starlette with its CORS middleware around an endless stream: the listed origin reads, others do not; curl sees
    the same with -I and with a GET that is cut."""
    starlette = pytest.importorskip("starlette.applications", reason="the application is one of Starlette")
    import asyncio
    from collections.abc import AsyncIterator

    import uvicorn
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def beats() -> AsyncIterator[bytes]:
        while True:
            yield b": beat\n\n"
            await asyncio.sleep(0.05)

    async def events(request: Any) -> StreamingResponse:
        return StreamingResponse(beats(), media_type="text/event-stream")

    allowed = Middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_headers=["last-event-id"])
    application = starlette.Starlette(routes=[Route("/events", events)], middleware=[allowed])
    sock = listening()
    url = f"http://127.0.0.1:{sock.getsockname()[1]}/events"
    config = uvicorn.Config(application, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
    with in_thread(uvicorn_on(config, sock)):
        found = json.loads(run(url, "-o", origin, "--json", status=0 if origin == ORIGIN else 1).stdout)
        curl = ("curl", "-s", "--noproxy", "*", "-D-", "-o/dev/null", "--max-time", "1", "-H", f"Origin: {origin}", url)
        shown = [
            subprocess.run(command, capture_output=True, text=True, check=False).stdout.lower()
            for command in ((*curl[:2], "-I", *curl[2:]), curl)
            if which("curl")
        ]

    assert ended == steps(found)
    assert [origin == ORIGIN] * len(shown) == [f"access-control-allow-origin: {ORIGIN}\n" in text for text in shown]


# ---- the five failure modes, and what else has a name


@pytest.mark.parametrize(
    ("query", "more", "fetch", "finding"),
    [
        # too late
        ({"d": [STAR]}, (), "GET acao-missing", ("problem", "headers-too-late", MODES[0])),
        ({"g": [STAR]}, (), None, ("warning", "headers-too-late", MODES[0])),
        ({"h": [EXACT, VARY], "d": [TRUE]}, ("--credentials",), "GET acac", ("problem", "headers-too-late", MODES[0])),
        # overwritten twice
        ({"h": [STAR, EXACT]}, (), "GET acao-mismatch", ("problem", "allow-origin-twice", MODES[1])),
        ({"h": [f"{EXACT}, {ORIGIN}"]}, (), "GET acao-mismatch", ("problem", "allow-origin-twice", MODES[1])),
        # * with credentials
        ({"h": [STAR, TRUE]}, ("--credentials",), "GET acao-mismatch",
         ("problem", "wildcard-with-credentials", MODES[2])),
        ({"h": [STAR, TRUE]}, (), None, ("warning", "wildcard-with-credentials", MODES[2])),
        (
            {"h": [EXACT, TRUE, VARY], "p": ["access-control-allow-headers: *"]}, ("--credentials", "--header", "x-a"),
            "OPTIONS header:x-a", ("warning", "wildcard-with-credentials", MODES[2]),
        ),
        # missing companions
        ({"h": [STAR]}, ("--header", "x-a: 1"), "OPTIONS header:x-a", ("problem", "allow-headers-missing", MODES[3])),
        ({"h": [STAR]}, (), None, ("warning", "allow-headers-missing", MODES[3])),
        ({"h": [STAR]}, ("--method", "PUT"), "OPTIONS method", ("problem", "allow-methods-missing", MODES[3])),
        ({"echo": 1}, (), None, ("warning", "vary-missing", MODES[3])),
        ({"echo": 1, "h": [VARY]}, ("--credentials",), "GET acac", ("problem", "allow-credentials-missing", MODES[3])),
        ({"h": [STAR, "x-request-id: 1", "etag: 1"]}, (), None, ("note", "expose-headers-missing", MODES[3])),
        (
            {"h": [STAR], "p": ["access-control-allow-headers: *"]}, ("--header", "Authorization: Bearer secret"),
            "OPTIONS header:authorization", ("problem", "authorization-under-wildcard", MODES[3]),
        ),
        # error responses without headers
        ({"status": 500}, (), "GET acao-missing", ("problem", "error-without-headers", MODES[4])),
        ({"status": 404, "mime": "-"}, (), "GET acao-missing", ("problem", "error-without-headers", MODES[4])),
        ({"g": [STAR], "pstatus": 401}, ("--header", "x-a"), "OPTIONS acao-missing",
         ("problem", "error-without-headers", MODES[4])),
        # others
        ({"h": [EXACT, VARY, "access-control-allow-credentials: True"]}, ("--credentials",), "GET acac",
         ("problem", "credentials-not-true", "")),
        ({"h": [EXACT + "/"]}, (), "GET acao-mismatch", ("problem", "trailing-slash", "")),
        ({"h": ["access-control-allow-origin: null"]}, (), "GET acao-mismatch", ("problem", "allow-origin-null", "")),
        ({"h": ["access-control-allow-origin: HTTPS://app.example"]}, (), "GET acao-mismatch",
         ("problem", "allow-origin-case", "")),
        ({"h": ["access-control-allow-origin: https://b.example"]}, (), "GET acao-mismatch",
         ("problem", "other-origin", "")),
        ({"echo": 1, "h": [VARY], "p": [RESUMES]}, ("--origin", "null"), None, ("warning", "allow-origin-null", "")),
        ({"h": [STAR], "head": "405"}, (), None, ("note", "head-refused", "")),
        ({"h": [STAR], "status": 204}, (), None, ("note", "no-content", "")),
        ({"h": [STAR], "mime": "text/plain"}, (), None, ("note", "media-type", "")),
        ({"h": [STAR, "connection: keep-alive"]}, (), None, ("note", "connection-header", "")),
    ],
)  # fmt: skip
def test_faults_have_names(
    lab: tuple[sse_lab.Lab, int],
    query: dict[str, Any],
    more: tuple[str, ...],
    fetch: str | None,
    finding: tuple[str, str, str],
) -> None:
    """Each fault is found under its name and failure mode, and fetch ends at its step, with status 1, or reads."""
    found = asked(lab[1], query, *more, status=0 if fetch is None else 1)

    assert fetch == steps(found)[FETCH]
    assert finding in named(found)


@pytest.mark.parametrize(
    ("query", "step"),
    [
        ({"h": [STAR], "status": 204}, "GET status"),
        ({"h": [STAR], "status": 500}, "GET status"),
        ({"h": [STAR], "mime": "text/plain"}, "GET media-type"),
        ({"h": [STAR], "mime": "-"}, "GET media-type"),
        ({"h": [STAR], "mime": "text/event-stream; charset=latin1"}, "GET charset"),
        ({"h": [STAR], "mime": "text/event-stream;charset=UTF-8"}, None),
    ],
)
def test_what_eventsource_does_not_take(lab: tuple[sse_lab.Lab, int], query: dict[str, Any], step: str | None) -> None:
    """Chosen by --client, EventSource alone is the status."""
    found = asked(lab[1], query, "--client", "eventsource", status=0 if step is None else 1)

    assert {ES: step} == steps(found)
    expected = {None: set(), "GET status": {"no-content"}, "GET media-type": {"media-type"}, "GET charset": {"charset"}}
    if query.get("status") != 500:
        assert expected[step] == {code for severity, code, _ in named(found) if severity == "problem"}


def test_a_resume_that_fails_counts_where_it_is_asked_for(lab: tuple[sse_lab.Lab, int]) -> None:
    """An SSE client made of fetch reads at first, and its walk says what happens later."""
    found = asked(lab[1], {"h": [STAR]}, "--client", "fetch-sse", status=1)
    (one,) = found["clients"]

    assert "its events at first; to resume TypeError, and the request itself is never sent" == one["sees"]
    assert "access-control-allow-headers: last-event-id" == one["mend"]


@pytest.mark.parametrize(
    ("status", "mend"),
    [
        (401, "answer preflights before authentication"), (403, "answer preflights before authentication"),
        (404, "answer OPTIONS on this path"), (405, "answer OPTIONS on this path"),
        (307, "a preflight is never redirected"),
        (500, "answer OPTIONS with 204"),
    ],
)  # fmt: skip
def test_preflights_that_are_not_answered_well(lab: tuple[sse_lab.Lab, int], status: int, mend: str) -> None:
    """With or without CORS headers the advice is about what answers OPTIONS."""
    for query, step in (({"h": [STAR]}, "OPTIONS status"), ({"g": [STAR]}, "OPTIONS acao-missing")):
        found = asked(lab[1], query | {"pstatus": status}, "--header", "x-a", status=1)

        assert step == steps(found)[FETCH]
        assert mend in found["clients"][1]["mend"]


def test_a_preflight_whose_lists_are_none(lab: tuple[sse_lab.Lab, int]) -> None:
    """Quotes and blanks break the list, not the element."""
    found = asked(lab[1], {"h": [STAR], "p": ['access-control-allow-headers: "x-a"']}, "--header", "x-a", status=1)

    assert "OPTIONS parse" == steps(found)[FETCH]
    assert "'\"x-a\"': no list of names" in found["clients"][1]["walk"][-1]["what"]


# ---- redirects, same origin, methods that are not sent


@pytest.mark.parametrize(
    ("location", "origin", "words"),
    [
        ("/case/b", ORIGIN, ""),
        ("https://other.example/x", "null", ", where the page's origin becomes null"),
        ("//127.0.0.1:1/x", "null", ", where the page's origin becomes null"),
    ],
)
def test_redirects_are_told_and_not_followed(
    lab: tuple[sse_lab.Lab, int], location: str, origin: str, words: str
) -> None:
    """Behind a redirect to another origin the page's origin is null; without CORS headers the walk ends before."""
    app_, port = lab
    app_.log.clear()
    found = asked(port, {"h": [STAR, f"location: {location}"], "status": 302}, status=1)

    assert "GET redirect" == steps(found)[FETCH] == steps(found)[ES]
    step = found["clients"][1]["walk"][-1]
    assert (words in step["what"], f"--origin {origin} asks it") == (
        True,
        step["mend"][-len(f"--origin {origin} asks it") :],
    )
    assert {"/case/a"} == {it.path for it in app_.log}
    assert "GET acao-missing" == steps(asked(port, {"h": [f"location: {location}"], "status": 302}, status=1))[FETCH]


def test_the_same_origin_needs_no_cors(lab: tuple[sse_lab.Lab, int]) -> None:
    """A page of the server itself sends no Origin with GET, and no preflight; a stream is still one or not."""
    app_, port = lab
    app_.log.clear()
    url = url_of(port, "a", {})

    found = json.loads(run(url, "--origin", f"http://127.0.0.1:{port}", "--json", "--header", "x-a: 1").stdout)

    assert {ES: "GET cannot-ask", FETCH: None, SSE: None} == steps(found)
    assert [("HEAD", None), ("GET", None)] == [(it.method, it.headers.get(b"origin")) for it in app_.log]
    assert {b"1"} == {it.headers.get(b"x-a") for it in app_.log}


def test_methods_with_effects_are_announced_and_never_sent(lab: tuple[sse_lab.Lab, int]) -> None:
    """DELETE is judged by its preflight and the answer to GET; where GET is refused without CORS, nothing is judged."""
    app_, port = lab
    app_.log.clear()
    good = {"h": [STAR], "p": ["access-control-allow-methods: DELETE"]}

    assert steps(asked(port, good, "--method", "delete"))[FETCH] is None
    unknown = asked(
        port, {"p": [STAR, "access-control-allow-methods: DELETE"], "status": 405}, "--method", "DELETE", status=1
    )

    assert (None, "not-asked") == (unknown["clients"][1]["readable"], unknown["clients"][1]["step"])
    assert {"OPTIONS", "HEAD", "GET"} == {it.method for it in app_.log}
    assert "OPTIONS method" == steps(asked(port, good, "--method", "patch", status=1))[FETCH]  # not normalized


def test_https_page_and_http_server() -> None:
    """Mixed content ends the walk, off this machine."""
    from gobanfast.wire.cors_walk import Answer, Answers, Asked, walk

    answer = Answer(200, [("access-control-allow-origin", "*")])
    steps_ = {
        url: walk("fetch", Asked(url, ORIGIN), Answers(answer, answer, {})).readable
        for url in ("http://api.example/", "https://api.example/", "http://localhost/", "http://[::1]:8/")
    }

    assert [False, True, True, True] == [*steps_.values()]


# ---- servers that do not answer


def test_a_head_that_hangs_and_a_get_that_sends_nothing(
    lab: tuple[sse_lab.Lab, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each asking ends after its time: a HEAD that hangs is a finding, a GET without headers no answer."""
    monkeypatch.setattr(cors, "HEADERS_SECONDS", 1.5)
    found = asked(lab[1], GOOD | {"head": "hang"})

    assert ("warning", "head-unanswered", "") in named(found)
    assert {ES: None, FETCH: None, SSE: None} == steps(found)
    monkeypatch.setattr(cors, "HEADERS_SECONDS", 0.2)
    with listening() as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        nothing = json.loads(run(url, "--origin", ORIGIN, "--json", status=1).stdout)
    assert {ES: "GET no-answer", FETCH: "GET no-answer", SSE: "GET no-answer"} == steps(nothing)


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that has `talk` for every connection, which it closes then."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(WAIT)
            with suppress(OSError):  # the command goes when it has seen enough
                talk(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def drip(sock: socket.socket) -> None:
    """Headers one at a time, without an end."""
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        sock.sendall(b"x: y\r\n")
        time.sleep(0.02)


def flood(sock: socket.socket) -> None:
    """A body as fast as it goes, without an end."""
    sock.sendall(b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\ncontent-encoding: gzip\r\n\r\n")
    while True:
        sock.sendall(b"\x1f\x8b\x08\x00" * 4096)


@pytest.mark.parametrize(
    ("talk", "step"),
    [
        (lambda sock: sock.sendall(b"SSH-2.0-OpenSSH\r\n"), "GET no-answer"),
        (lambda sock: None, "GET no-answer"),
        (lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\nx: " + b"y" * (1 << 20)), "GET no-answer"),
        (lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000), "GET no-answer"),
        (drip, "GET no-answer"),
        (flood, None),
    ],
    ids=["other", "nothing", "long", "many", "drip", "flood"],
)
def test_servers_that_are_broken_or_hostile(
    talk: Callable[[socket.socket], None], step: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no HTTP, and headers without an end or of a megabyte, give no answer; a body without an end is left."""
    if talk is drip:
        monkeypatch.setattr(cors, "HEADERS_SECONDS", 0.3)

    def answer(sock: socket.socket) -> None:
        sock.recv(4096)
        talk(sock)

    with talking(answer) as port:
        url = f"http://127.0.0.1:{port}/"
        found = json.loads(run(url, "--origin", ORIGIN, "--json", status=0 if step is None else 1).stdout)

    assert step == steps(found)[FETCH]
    assert (step is None) == (found["answers"][-1]["failure"] is None)


def test_nobody_there_is_status_2() -> None:
    """A port that nobody listens on cannot be judged."""
    with listening() as sock:
        port = sock.getsockname()[1]

    assert f"http://127.0.0.1:{port}/: " in run(f"http://127.0.0.1:{port}/", "--origin", ORIGIN, status=2).stderr


@contextmanager
def http_2(certificate: Any, pairs: list[tuple[str, str]]) -> Iterator[str]:  # noqa: F811
    """The URL of a server that answers 200 with these headers over HTTP/2, also with such as HTTP/2 forbids."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import RequestReceived

    context = server_context(certificate)
    context.set_alpn_protocols(["h2"])

    def answer(plain: socket.socket) -> None:
        config = H2Configuration(client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False)
        connection = H2Connection(config)
        connection.initiate_connection()
        with context.wrap_socket(plain, server_side=True) as sock:
            sock.sendall(connection.data_to_send())
            while data := sock.recv(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, RequestReceived) and event.stream_id is not None:
                        connection.send_headers(event.stream_id, [(":status", "200"), *pairs], end_stream=True)
                sock.sendall(connection.data_to_send())

    with talking(answer) as port:
        yield f"https://localhost:{port}/"


def test_connection_headers_over_http_2(certificate: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """HTTP/2 is asked where the server has it, and a connection header there is found."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    pairs = [("access-control-allow-origin", "*"), ("content-type", "text/event-stream"), ("connection", "keep-alive")]
    with http_2(certificate, pairs) as url:
        found = json.loads(run(url, "--origin", ORIGIN, "--json").stdout)

    assert {"HTTP/2"} == {it["http"] for it in found["answers"]}
    assert ("problem", "connection-header", "") in named(found)


# ---- wrong usage, secrets, what is shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ftp://a.example", "-o", ORIGIN], "no http:// or https:// URL"),
        (["/events", "-o", ORIGIN], "no http:// or https:// URL"),
        (["https://u:secret@a.example/", "-o", ORIGIN], "leave it out"),
        (["https://a.example", "-o", "app.example"], "is no origin"),
        (["https://a.example", "-o", ORIGIN + "/"], f"write {ORIGIN}"),
        (["https://a.example", "-o", "https://App.example:443"], f"write {ORIGIN}"),
        (["https://a.example", "-o", "https://b\u00fccher.example"], "write https://xn--bcher-kva.example"),
        (["https://a.example", "-o", ORIGIN, "--method", "trace"], "none that a page can use"),
        (["https://a.example", "-o", ORIGIN, "--method", "G T"], "none that a page can use"),
        (["https://a.example", "-o", ORIGIN, "--header", "cookie: a=b"], "the browser writes"),
        (["https://a.example", "-o", ORIGIN, "--header", "Sec-Fetch-Site: none"], "the browser writes"),
        (["https://a.example", "-o", ORIGIN, "--header", "a b: c"], "no name of a header"),
        (["https://a.example", "-o", ORIGIN, "--header", "x-a: \u20ac"], "a value that no header can have"),
        (["https://a.example", "-o", ORIGIN, "--header", "x-a: 1\n2"], "a value that no header can have"),
        (["https://a.example"], "--origin"),
    ],
)  # fmt: skip
def test_what_no_page_can_ask_is_wrong_usage(arguments: list[str], words: str) -> None:
    """Status 2, and what would be right; nothing is sent, and no password shown."""
    shown = " ".join(run(*arguments, status=2).output.replace("\u2502", " ").split())

    assert words in shown
    assert "secret" not in shown


def test_values_of_headers_are_not_shown(lab: tuple[sse_lab.Lab, int]) -> None:
    """What may be a secret is sent, and in no output."""
    app_, port = lab
    app_.log.clear()
    arguments = (url_of(port, "a", GOOD), "--origin", ORIGIN, "--header", "authorization: Bearer hidden-token")

    shown = run(*arguments, status=1).output + run(*arguments, "--json", status=1).output

    assert "hidden-token" not in shown
    assert b"Bearer hidden-token" == app_.asked("/case/a", "GET")[-1].headers[b"authorization"]
    assert {None} == {it.headers.get(b"authorization") for it in app_.asked("/case/a", "OPTIONS")}


def test_a_servers_control_characters_do_not_reach_the_terminal(
    certificate: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are shown as escapes, in every place; a URL to ask next is quoted for a shell."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    pairs = [("access-control-allow-origin", "*\x1b[2J"), ("content-type", "text/\x1b[2J")]
    with http_2(certificate, pairs) as url:
        shown = run(url, "--origin", ORIGIN, status=1).output + run(url, "--origin", url[:-1]).output

    assert "\x1b" not in shown
    assert shown.count("\\x1b[2J") > 4


def test_a_url_to_ask_next_is_quoted_for_a_shell(lab: tuple[sse_lab.Lab, int]) -> None:
    """What a server puts into Location is no command."""
    found = asked(lab[1], {"h": [STAR, "location: /$(x);y"], "status": 302}, status=1)

    assert f"gobanfast cors 'http://127.0.0.1:{lab[1]}/$(x);y' --origin {ORIGIN}" in found["clients"][1]["mend"]


@pytest.mark.parametrize("name", ["good", "credentials", "late", "preflight"])
def test_the_page_that_is_printed(lab: tuple[sse_lab.Lab, int], name: str) -> None:
    """Whole outputs, as files in tests/cases/cors; the port is PORT there."""
    query, more, status = {
        "good": (GOOD | {"body": "endless"}, (), 0),
        "credentials": ({"h": [STAR, TRUE]}, ("--credentials",), 1),
        "late": ({"d": [EXACT], "h": [VARY], "status": 500, "mime": "text/plain"}, (), 1),
        "preflight": ({"g": [STAR], "pstatus": 405}, ("--method", "PUT", "--header", "traceparent"), 1),
    }[name]
    shown = run(url_of(lab[1], name, query), "--origin", ORIGIN, *more, status=status).output

    assert (CASES / f"{name}.txt").read_text() == shown.replace(f":{lab[1]}/", ":PORT/")


@pytest.mark.parametrize("missing", ["httpx", "h2"])
def test_without_the_extra_one_line_says_what_to_install(missing: str) -> None:
    """Status 2 and the extra by name; the other commands work."""
    program = f"import sys; sys.modules[{missing!r}] = None; from gobanfast.cli import main; sys.exit(main())"
    command = (sys.executable, "-c", program)
    result = subprocess.run(
        [*command, "cors", "http://127.0.0.1:1/", "-o", ORIGIN], capture_output=True, text=True, check=False
    )

    assert (2, "") == (result.returncode, result.stdout)
    assert f"asking a server needs {missing}: pip install 'gobanfast[cors]'" in " ".join(
        result.stderr.replace("\u2502", " ").split()
    )
    assert 0 == subprocess.run([*command, "check", "192.0.2.1"], capture_output=True, check=False).returncode
