"""The aiohttp.web middleware on aiohttp's own server: requests, streams, WebSockets, exceptions."""

from __future__ import annotations

import asyncio
import inspect
import json

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.http import HttpGuard
from test_challenge import solve

aiohttp = pytest.importorskip("aiohttp")
from aiohttp import web  # noqa: E402

from gobanfast.frontends.aiohttp import EXCHANGE, setup  # noqa: E402

RULES = """
trust: [127.0.0.0/8]
rules:
- {id: bad, when: {prefix: 203.0.113.66/32}, action: ban, for: 1h}
- {id: odd, when: {prefix: 203.0.113.77/32}, action: challenge}
- {id: tool, when: {header: {user-agent: {contains: xtool}}, path: /x/y}, action: ban}
"""
GOOD, BANNED, CHALLENGED = "203.0.113.9", "203.0.113.66", "203.0.113.77"


async def plain(request):
    exchange = request.get(EXCHANGE)
    if exchange is None:
        return web.json_response({"action": None})
    action, client = exchange.decision.action, exchange.client
    return web.json_response({"action": action, "client": client and client.address, "id": exchange.request_id})


async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one")
    await response.write(b"two")
    return response


async def socket(request):
    answered = web.WebSocketResponse()
    await answered.prepare(request)
    await answered.send_str("hello")
    await answered.close()
    return answered


async def missing(request):
    raise web.HTTPNotFound(headers={"X-Request-ID": "mine"})


async def broken(request):
    raise OSError("the handler is broken")


def served(talk, **options):
    """What `talk`, with a session and the server's address, makes of a server with these options."""

    async def run():
        app = web.Application()
        handlers = {"/": plain, "/off": plain, "/x/y": plain, "/stream": stream, "/socket": socket, "/missing": missing}
        app.add_routes([web.get(path, handler) for path, handler in (handlers | {"/broken": broken}).items()])
        app.router.add_post("/", plain)
        guard = setup(app, Engine(Ruleset.from_text(RULES)), **options)
        assert isinstance(guard, HttpGuard)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                return await talk(session)
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def about(client, **headers):
    return {"X-Forwarded-For": client, "X-Request-ID": "r-1"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }


async def fetch(session, path="/", client=GOOD, method="GET", **headers):
    async with session.request(method, path, headers=about(client, **headers)) as answered:
        return answered.status, answered.headers, await answered.read()


def test_a_handler_finds_the_decision():
    """Decision, client and request id are in the request; the response carries the id."""
    status, headers, body = served(fetch)

    assert (200, "r-1") == (status, headers["X-Request-ID"])
    assert {"action": "allow", "client": GOOD, "id": "r-1"} == json.loads(body)


def test_banned_requests_reach_no_handler():
    """By address and by header, names in whatever case; a page or a problem document; HEAD has no body."""

    async def talk(session):
        return [
            await fetch(session, client=BANNED),
            await fetch(session, client=BANNED, Accept="text/html"),
            await fetch(session, client=BANNED, method="HEAD"),
            await fetch(session, "/x/%79?query", USER_AGENT="xtool/1"),
            await fetch(session, "/x/%79?query", user_agent="other/1"),
        ]

    problem, page, head, tool, other = served(talk)

    assert [403, 403, 403, 403, 200] == [answer[0] for answer in (problem, page, head, tool, other)]
    assert "r-1" == json.loads(problem[2])["request_id"] == problem[1]["X-Request-ID"]
    assert ("application/problem+json", "no-store") == (problem[1]["Content-Type"], problem[1]["Cache-Control"])
    assert b"<h1>Access denied</h1>" in page[2]
    assert b"" == head[2]
    assert 1 == len(problem[1].getall("X-Request-ID"))


def test_streams_and_websockets_carry_the_id():
    """A response whose headers a handler sends itself has the id, and so has the answer to a handshake."""

    async def talk(session):
        streamed = await fetch(session, "/stream")
        async with session.ws_connect("/socket", headers=about(GOOD)) as opened:
            said = await opened.receive_str()
            header = opened._response.headers["X-Request-ID"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect("/socket", headers=about(BANNED))
        return streamed, said, header, refused.value.status

    streamed, said, header, refused = served(talk)

    assert (b"onetwo", "r-1") == (streamed[2], streamed[1]["X-Request-ID"])
    assert ("hello", "r-1", 403) == (said, header, refused)


def test_exceptions_routes_and_ends():
    """A route that is off is not asked; a handler's own id stays; `finish` gets the status of each exchange once."""
    ends = []

    class Observer:
        def __call__(self, decision, request_id):
            """Nothing of decisions."""

        def finish(self, exchange):
            ends.append(exchange.status)

    async def talk(session):
        paths = ["/off", "/", "/missing", "/nowhere", "/broken", "/socket"]
        found = [await fetch(session, path) for path in paths[:-1]]
        async with session.ws_connect("/socket", headers=about(GOOD)) as opened:
            await opened.receive_str()
        return [*found, await fetch(session, client=BANNED)]

    found = served(talk, routes={"/off": "off"}, on_decision=Observer())

    assert [200, 200, 404, 404, 500, 403] == [status for status, _, _ in found]
    assert None is json.loads(found[0][2])["action"]
    assert ["mine"] == found[2][1].getall("X-Request-ID")
    assert [200, 404, 404, 500, 101, 403] == ends


def test_challenge_gives_a_cookie():
    """A solved challenge lets the request through, with a pass in the response that lets in the next one."""

    class Page:
        def __init__(self, body):
            self.body = body

    async def talk(session):
        _, _, body = await fetch(session, client=CHALLENGED, Accept="text/html")
        solved = await fetch(session, client=CHALLENGED, Accept="text/html", Cookie=solve(Page(body)))
        given = solved[1].getall("Set-Cookie")
        return solved, given, await fetch(session, client=CHALLENGED, Cookie=given[0].partition(";")[0])

    solved, given, passed = served(talk, challenge=Challenge(["k" * 16], difficulty=4))

    assert [200, 200] == [solved[0], passed[0]]
    assert ["gobanfast-pass", "gobanfast-work"] == [text.partition("=")[0] for text in given]


def test_options_are_those_of_a_guard():
    """Name, kind, default and type of each option."""
    expected = list(inspect.signature(HttpGuard).parameters.values())

    assert expected == list(inspect.signature(setup).parameters.values())[1:]


@pytest.mark.parametrize("is_sub", [False, True])
def test_signals_of_others_come_before_ours(is_sub):
    """aiohttp_cors and the like write their lines into a response, whenever they were set up; ours replace them. In a
    sub-application, whose signals are frozen, the guard is set up all the same."""
    rules = "share: [{id: own, when: {path: [/, /sub/], origin: 'https://app.example'}, action: grant}]"

    async def theirs(request, response):
        response.headers["Access-Control-Allow-Origin"] = "*"

    async def run():
        app, outer = web.Application(), web.Application()
        app.router.add_get("/", plain)
        if is_sub:
            app.on_response_prepare.append(theirs)
        setup(app, Engine(Ruleset.from_text(rules)))
        if not is_sub:
            app.on_response_prepare.append(theirs)
        else:
            outer.add_subapp("/sub", app)
        runner = web.AppRunner(outer if is_sub else app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/{'sub/' if is_sub else ''}"
        try:
            found = []
            for origin in ("https://app.example", "https://evil.example"):
                async with aiohttp.ClientSession() as session, session.get(url, headers={"Origin": origin}) as answered:
                    found.append(answered.headers.getall("Access-Control-Allow-Origin", []))
            return found
        finally:
            await runner.cleanup()

    assert [["https://app.example"], []] == asyncio.run(run())
