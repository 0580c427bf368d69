"""HEAD of an event stream: the headers of its GET, then the end, and the application hears of it."""

from __future__ import annotations

import asyncio
import http.client
import threading
from contextlib import suppress

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi, wsgi
from gobanfast.frontends.http.heads import is_stream
from gobanfast.sse import HEADERS, TEXT_HEADERS, encode
from servers import WAIT, in_thread, listening, uvicorn_on
from test_frontend_asgi import ask
from test_frontend_wsgi import ask as ask_wsgi

SHARE = 'share: [{id: g, when: {path: /**, origin: "https://a.example"}, action: grant}]'  # every resource is owned


def engine(rules=SHARE):
    return Engine(Ruleset.from_text(rules))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text/event-stream", True), ("Text/Event-Stream ; charset=utf-8", True), (b"text/event-stream", True),
        ("text/event-streams", False), ("text/plain", False), ("", False),
    ],
)  # fmt: skip
def test_which_headers_are_of_a_stream(value, expected):
    """The media type alone counts, of text and of bytes."""
    name = b"Content-Type" if isinstance(value, bytes) else "Content-Type"

    assert expected == is_stream([("x-a", "text/event-stream"), (name, value)])
    assert not is_stream([])


class Stream:
    """ASGI application whose stream has no end of its own; `way`: what it does behind its start."""

    def __init__(self, way):
        self.way, self.ended = way, False

    async def __call__(self, scope, receive, send):
        await receive()
        try:
            await getattr(self, self.way)(send)
        finally:
            self.ended = True

    async def start(self, send):
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})

    async def sends(self, send):
        await self.start(send)
        while True:
            await send({"type": "http.response.body", "body": encode("x"), "more_body": True})

    async def waits(self, send):
        await self.start(send)
        await asyncio.Event().wait()

    async def in_tasks(self, send):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sends(send))
            group.create_task(asyncio.Event().wait())

    async def refuses_to_end(self, send):
        with suppress(asyncio.CancelledError):
            await self.start(send)
        try:
            await self.sends(send)
        except OSError as error:
            raise RuntimeError("of a framework") from error


@pytest.mark.parametrize("way", ["sends", "waits", "in_tasks", "refuses_to_end"])
def test_a_stream_ends_at_its_headers(way):
    """One start and one empty body, under `asgi.Gobanfast`; the application ends, and its task lives on."""
    app, after = Stream(way), []
    middleware = asgi.Gobanfast(app, engine())

    async def server(scope, receive, send):
        await middleware(scope, receive, send)
        await asyncio.sleep(0)
        after.append(asyncio.current_task().cancelling())

    sent = ask(server, method="HEAD")

    assert ["http.response.start", "http.response.body"] == [message["type"] for message in sent]
    assert (200, b"", False) == (sent[0]["status"], sent[1]["body"], sent[1].get("more_body", False))
    assert set(HEADERS) < set(sent[0]["headers"])
    assert (True, [0]) == (app.ended, after)


def test_a_server_that_stops_is_heard():
    """Its cancellation goes through, while the stream ends, too."""

    async def app(scope, receive, send):
        asyncio.current_task().cancel()
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})

    with pytest.raises(asyncio.CancelledError):
        ask(asgi.Gobanfast(app, engine()), method="HEAD")


def test_other_answers_to_head_are_the_applications():
    """Nothing is added or taken, and its errors are its own."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ask(asgi.Gobanfast(app, engine()), method="HEAD")


def test_an_application_that_waits_for_its_client_is_answered():
    """`receive` hands on what the server says while the stream has not begun."""
    seen = []

    async def app(scope, receive, send):
        seen.append(await receive())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    ask(asgi.Gobanfast(app, engine()), method="HEAD")

    assert [{"type": "http.request"}] == seen


class Body:
    """WSGI body without end; it notes how many parts were taken, and that it was closed."""

    def __init__(self, start_response=None):
        self.start_response, self.taken, self.closed = start_response, 0, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.start_response is not None and not self.taken:
            self.start_response("200 OK", list(TEXT_HEADERS))
        self.taken += 1
        assert self.taken < 5, "a stream that nobody reads goes on"
        return b": x\n\n"

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("rules", ["rules: []", SHARE], ids=["plain", "owned"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_stream_of_wsgi_ends_at_its_headers(rules, lazy):
    """The start alone is sent; the body is closed once; one that starts at its first part gives no second one."""
    bodies = []

    def app(environ, start_response):
        bodies.append(Body(start_response if lazy else None))
        if not lazy:
            start_response("200 OK", list(TEXT_HEADERS))
        return bodies[0]

    started = []
    middleware = wsgi.Gobanfast(app, engine(rules))
    environ = {"REQUEST_METHOD": "HEAD", "wsgi.url_scheme": "http", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"}
    answer = middleware(environ, lambda *start: started.append(start))
    parts = list(answer)
    answer.close()

    assert ([], 1) == (parts, len(started))
    assert set(TEXT_HEADERS) < set(started[0][1])
    assert (int(lazy), 1) == (bodies[0].taken, bodies[0].closed)


def test_other_answers_of_wsgi_to_head_are_the_applications():
    """Their parts are handed on."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"one", b"two"]

    assert b"onetwo" == ask_wsgi(wsgi.Gobanfast(app, engine()), REQUEST_METHOD="HEAD")[2]


def starlette_app(ended):
    """A stream that says nothing, as sse-starlette and FastAPI write it, beside another page."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    async def silent():
        await asyncio.Event().wait()
        yield b""

    app = Starlette(routes=[
        Route("/events", lambda request: StreamingResponse(silent(), headers=dict(TEXT_HEADERS))),
        Route("/page", lambda request: PlainTextResponse("page")),
    ])  # fmt: skip

    async def noted(scope, receive, send):
        try:
            await app(scope, receive, send)
        finally:
            ended.set()

    return noted


def test_a_connection_goes_on_behind_the_head_of_a_stream():
    """uvicorn answers the next request on it, and Starlette's response has ended."""
    pytest.importorskip("starlette")
    uvicorn = pytest.importorskip("uvicorn")
    ended = threading.Event()
    app = asgi.Gobanfast(starlette_app(ended), engine())
    sock = listening()
    config = uvicorn.Config(app, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
    with in_thread(uvicorn_on(config, sock)):
        client = http.client.HTTPConnection("127.0.0.1", sock.getsockname()[1], timeout=WAIT)
        client.request("HEAD", "/events")
        head = client.getresponse()
        assert (200, "text/event-stream", b"") == (head.status, head.headers["content-type"], head.read())
        client.request("GET", "/page")
        assert b"page" == client.getresponse().read()
        assert ended.wait(WAIT)
        client.close()
