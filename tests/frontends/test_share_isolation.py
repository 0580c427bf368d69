"""No answer has anything of another one: under threads with middlewares that change lists, and on one connection."""

from __future__ import annotations

import asyncio
import http.client
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi, wsgi
from servers import in_thread, listening, uvicorn_on
from share_forms import FOREIGN, PAGE, RULES, TENANT, Plan, Server, asgi_app, ask_asgi, environ_of

REQUESTS = [
    ("GET", "/own", {"origin": PAGE}),
    ("GET", "/own", {"origin": TENANT, "x-auth-bypass": "1"}),
    ("GET", "/own", {"origin": FOREIGN}),
    ("HEAD", "/own", {"origin": PAGE}),
    ("GET", "/own", {}),
    ("GET", "/plain", {"origin": PAGE, "cookie": "a=b"}),
    ("GET", "/public", {"origin": FOREIGN, "authorization": "Bearer x"}),
    ("POST", "/writes", {"origin": FOREIGN, "sec-fetch-site": "cross-site"}),
    ("POST", "/writes", {"origin": PAGE, "sec-fetch-site": "cross-site"}),
    ("OPTIONS", "/own", {"origin": PAGE, "access-control-request-method": "PUT"}),
    ("OPTIONS", "/own", {"origin": TENANT, "access-control-request-method": "GET",
                         "access-control-request-headers": "x-a"}),
    ("OPTIONS", "/own", {"origin": FOREIGN, "access-control-request-method": "PUT"}),
    ("GET", "/own", {"origin": PAGE, "user-agent": "bad"}),
    ("GET", "/elsewhere", {"origin": PAGE, "user-agent": "odd"}),
    ("GET", "/site", {"origin": PAGE, "sec-fetch-site": "same-site"}),
]  # fmt: skip
WRITTEN = [("Access-Control-Allow-Origin", "*"), ("Vary", "accept"), ("X-B", "1")]


def told(answer):
    """What does not differ between requests that are alike."""
    return answer.status, sorted((name.lower(), value) for name, value in answer.pairs if is_of_answer(name))


def is_of_answer(name):
    return name.lower() not in {"x-request-id", "date", "server", "content-length", "transfer-encoding", "connection"}


# ---- lists that others change


class Spoiled:
    """An application with one list of headers for all answers, and an outer middleware that ruins what it got."""

    def __init__(self, engine):
        self.lines = [(name.encode(), value.encode()) for name, value in WRITTEN]
        self.guarded = asgi.Gobanfast(self.inner, engine)

    async def inner(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": self.lines})
        await send({"type": "http.response.body", "body": b""})

    async def __call__(self, scope, receive, send):
        async def ruining(message):
            await send(message | {"headers": list(message["headers"])} if "headers" in message else message)
            if "headers" in message:
                message["headers"].reverse()
                message["headers"][0] = (b"access-control-allow-origin", b"https://ruined.example")
                message["headers"].append((b"access-control-allow-credentials", b"ruined"))
                message["status"] = 599

        await self.guarded(scope, receive, ruining)


class SpoiledWsgi:
    """The same for WSGI."""

    def __init__(self, engine):
        self.lines = list(WRITTEN)
        self.guarded = wsgi.Gobanfast(self.inner, engine)

    def inner(self, environ, start_response):
        start_response("200 OK", self.lines)
        return [b""]

    def __call__(self, environ, start_response):
        def ruining(status, headers, *more):
            write = start_response(status, list(headers), *more)
            headers.reverse()
            headers[0] = ("Access-Control-Allow-Origin", "https://ruined.example")
            headers.append(("Access-Control-Allow-Credentials", "ruined"))
            return write

        return self.guarded(environ, ruining)


def ask_wsgi(app, path, method, pairs):
    return Server().run(app, environ_of(path, method, pairs))


@pytest.mark.parametrize(("made", "asked"), [(Spoiled, ask_asgi), (SpoiledWsgi, ask_wsgi)], ids=["asgi", "wsgi"])
def test_middlewares_that_change_lists_change_no_other_answer(made, asked):
    """1,000 requests from 8 threads, of all kinds: each is answered as if it were alone."""
    app = made(Engine(Ruleset.from_text(RULES)))

    def run(number):
        method, path, headers = REQUESTS[number % len(REQUESTS)]
        return told(asked(app, path, method, [("host", "api.example"), *headers.items()]))

    alone = [run(number) for number in range(len(REQUESTS))]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(run, range(1000)))

    assert [] == [number for number, answer in enumerate(answers) if answer != alone[number % len(REQUESTS)]]
    assert "ruined" not in repr(alone)
    assert WRITTEN == [tuple(part if type(part) is str else part.decode() for part in pair) for pair in app.lines]


# ---- one connection


@pytest.fixture(scope="module")
def served():
    """A port, and what each request gets alone."""
    uvicorn = pytest.importorskip("uvicorn")
    engine = Engine(Ruleset.from_text(RULES))
    app = asgi.Gobanfast(asgi_app(Plan(headers=WRITTEN)), engine)
    alone = [told(ask_asgi(app, path, method, [("host", "api.example"), *headers.items()]))
             for method, path, headers in REQUESTS]  # fmt: skip
    sock = listening()
    config = uvicorn.Config(app, lifespan="off", log_level="critical", http="h11", timeout_graceful_shutdown=1)
    with in_thread(uvicorn_on(config, sock)):
        yield sock.getsockname()[1], alone


@settings(max_examples=40, deadline=None)
@given(order=st.lists(st.integers(0, len(REQUESTS) - 1), min_size=2, max_size=12))
def test_requests_of_one_connection_are_answered_as_if_alone(served, order):
    """In any order, on one connection that stays open: nothing of a request is in the answer to the next."""
    port, alone = served
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.connect()
        own = connection.sock.getsockname()
        for number in order:
            method, path, headers = REQUESTS[number]
            connection.request(method, path, headers={"host": "api.example"} | headers)
            with connection.getresponse() as response:
                response.read()
                pairs = sorted((name.lower(), value) for name, value in response.getheaders() if is_of_answer(name))
            assert alone[number] == (response.status, pairs)
            assert own == connection.sock.getsockname()
    finally:
        connection.close()


@settings(max_examples=40, deadline=None)
@given(order=st.lists(st.integers(0, len(REQUESTS) - 1), min_size=2, max_size=12))
def test_requests_at_the_same_time_are_answered_as_if_alone(order):
    """Interleaved in one loop, with the application waiting in each."""
    engine = Engine(Ruleset.from_text(RULES))

    async def app(scope, receive, send):
        await asyncio.sleep(0)
        pairs = [(name.encode(), value.encode()) for name, value in WRITTEN]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})

    guarded = asgi.Gobanfast(app, engine)

    async def one(number):
        method, path, headers = REQUESTS[number]
        started = []

        async def send(message):
            await asyncio.sleep(0)
            started.append(message)

        pairs = [(name.encode(), value.encode()) for name, value in {"host": "api.example", **headers}.items()]
        scope = {"type": "http", "path": path, "method": method, "headers": pairs, "client": ("203.0.113.9", 1),
                 "scheme": "https", "http_version": "1.1"}  # fmt: skip
        await guarded(scope, None, send)
        lines = [(name.decode(), value.decode()) for name, value in started[0]["headers"]]
        return started[0]["status"], sorted((name.lower(), value) for name, value in lines if is_of_answer(name))

    async def together():
        return await asyncio.gather(*map(one, order))

    assert [asyncio.run(one(number)) for number in order] == asyncio.run(together())
