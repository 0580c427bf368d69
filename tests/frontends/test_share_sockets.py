"""WebSockets before share rules: which page opens one, under every frontend that sees a handshake."""

from __future__ import annotations

import asyncio

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi
from share_forms import (
    FOREIGN,
    PAGE,
    RULES,
    Plan,
    ask,
)

pytest.importorskip("django", reason="one table for all frontends")
pytest.importorskip("aiohttp", reason="one table for all frontends")

SOCKETS = {  # Origin -> whether it is let in, by path
    "own page": ("https://api.example", {"/own": True, "/plain": True, "/public": True, "/shut": True}),
    "granted page": (PAGE, {"/own": True, "/plain": False, "/public": False, "/shut": False}),
    "foreign page": (FOREIGN, {"/own": False, "/plain": False, "/public": False, "/elsewhere": True}),
    "no page": (None, {"/own": True, "/plain": True, "/public": True, "/shut": True}),
    "another port": ("https://api.example:8443", {"/own": False}),
    "null": ("null", {"/own": False, "/public": False}),
    "junk": ("https://api.example/", {"/own": False}),
}
ROWS = [(name, origin, path, allowed) for name, (origin, paths) in SOCKETS.items() for path, allowed in paths.items()]
HANDSHAKE = {
    "upgrade": "WebSocket", "connection": "Upgrade", "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip


def socket_messages(path, origin, host="api.example", extensions=None, more=(), rules=RULES, **options):
    """What the server is told, and whether the application was asked."""
    sent, called = [], []
    headers = [(b"host", host.encode()), *([] if origin is None else [(b"origin", origin.encode())])]

    async def app(scope, receive, send):
        called.append(scope)
        await receive()
        await send({"type": "websocket.accept"})

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket", "path": path, "headers": headers, "scheme": "wss", "client": ("203.0.113.9", 1),
        "extensions": extensions or {},
    }  # fmt: skip
    scope |= dict(more)
    asyncio.run(asgi.Gobanfast(app, Engine(Ruleset.from_text(rules)), **options)(scope, receive, send))
    return sent, bool(called)


@pytest.mark.parametrize(("name", "origin", "path", "allowed"), ROWS)
def test_websocket_of_a_page(name, origin, path, allowed):
    """A handshake carries cookies: only the own page, a grant with credentials, or no page opens a socket."""
    sent, called = socket_messages(path, origin)

    assert (allowed, ["websocket.accept" if allowed else "websocket.close"]) == (called, [it["type"] for it in sent])


UNREADABLE = {
    "a control byte": [("cookie", "a=\x01")],
    "too long": [("cookie", "a" * 70_000)],
    "too many": [(f"x-{number}", "1") for number in range(300)],
    "no name": [("b d", "1")],
}
SHARES = RULES[: RULES.index("rules:")] + RULES[RULES.index("share:") :]  # no rule asks whether headers can be read


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("bad", UNREADABLE)
def test_websocket_of_a_foreign_page_with_headers_that_cannot_be_read(bad, first):
    """A page can have long cookies sent, or a hundred of them: what cannot be read is let in for no page."""
    rows, seen = [(name.encode(), value.encode()) for name, value in UNREADABLE[bad]], []
    for origin in (FOREIGN, PAGE, None):
        page = [(b"host", b"api.example"), *([] if origin is None else [(b"origin", origin.encode())])]
        headers = [*page, *rows] if first else [*rows, *page]
        seen.append(socket_messages("/own", None, more=[("headers", headers)], rules=SHARES)[1])

    assert [False, False, True] == seen


@pytest.mark.parametrize("bad", ["a control byte", "too long"])
def test_websocket_of_a_foreign_page_with_an_environ_that_cannot_be_read(bad):
    """The same where a handshake comes as a GET."""
    for origin, allowed in ((FOREIGN, False), (None, True)):
        plan = Plan()
        page = [] if origin is None else [("origin", origin)]
        answer = ask("wsgi", plan, headers=[*HANDSHAKE.items(), *page, *UNREADABLE[bad]], rules=SHARES)
        assert (allowed, 200 if allowed else 403) == (plan.calls == 1, answer.status)


def test_websocket_refusal_has_the_whole_answer():
    """Where the server can send one: 403 for a page, 421 for a host; our lines, not a grant."""
    extensions = {"websocket.http.response": {}}
    foreign, _ = socket_messages("/own", FOREIGN, extensions=extensions)
    rebound, called = socket_messages("/hosts", None, "rebound.example", extensions)

    assert ([403, 421], False) == ([sent[0]["status"] for sent in (foreign, rebound)], called)
    for sent in (foreign, rebound):
        assert ["websocket.http.response.start", "websocket.http.response.body"] == [it["type"] for it in sent]
        assert b"x-request-id" in dict(sent[0]["headers"])
        assert not [name for name, _ in sent[0]["headers"] if name.startswith(b"access-control-")]
    closed, _ = socket_messages("/hosts", None, "rebound.example")
    assert ["websocket.close"] == [it["type"] for it in closed]


@pytest.mark.parametrize("form", ["wsgi", "django-wsgi", "aiohttp"])
@pytest.mark.parametrize(("name", "origin", "path", "allowed"), ROWS)
def test_websocket_that_a_server_shows_as_a_request(form, name, origin, path, allowed):
    """The same where a handshake is a GET with Upgrade."""
    plan = Plan()
    if origin is not None and origin.startswith("https://api.example") and form == "aiohttp":
        origin = origin.replace("https:", "http:")  # the test's server has no TLS
    headers = HANDSHAKE | ({} if origin is None else {"origin": origin})

    answer = ask(form, plan, path, headers=headers)

    assert (200 if allowed else 403, int(allowed)) == (answer.status, plan.calls)


@pytest.mark.parametrize(
    ("host", "origin", "own"),
    [
        ("api.example", "http://api.example", True),  # a proxy ends the TLS
        ("API.example", "https://api.example", True),
        ("api.example:8080", "http://api.example:8080", True),
        ("api.example:8080", "http://api.example", False),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("api.example.", "https://api.example", False),
        ("", "https://api.example", False),
        ("api.example,api.example", "https://api.example", False),
    ],
)
def test_websocket_of_the_own_page_has_its_host_and_port(host, origin, own):
    """Those of the request, whatever the scheme."""
    assert own == socket_messages("/plain", origin, host)[1]


def test_websocket_behind_a_trusted_proxy_and_a_mount():
    """The host is the one that the client asked the proxy for; the path is the whole one."""
    rules = RULES + "trust: {prefix: [203.0.113.0/24], chain: optional, host: x-forwarded-host}\n"
    seen = {}
    for origin in ("https://api.example", FOREIGN, "https://backend.example"):
        scope = {"headers": [(b"host", b"backend.example"), (b"x-forwarded-host", b"api.example"),
                             (b"origin", origin.encode())]}  # fmt: skip
        options = {"more": scope.items(), "rules": rules}
        seen[origin] = socket_messages("/own", origin, **options)[1]
    mounted = socket_messages("/mnt/own", FOREIGN, more={"root_path": "/mnt"}.items())[1]

    assert ({"https://api.example": True, FOREIGN: False, "https://backend.example": False}, False) == (seen, mounted)


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_websocket_where_nothing_is_enforced(mode):
    """A foreign page gets in."""
    assert socket_messages("/own", FOREIGN, routes={"/": mode})[1]


def test_websocket_of_aiohttp_is_opened():
    """Its handshake keeps the lines that make it one, beside ours."""
    import aiohttp
    from aiohttp import web

    from gobanfast.frontends.aiohttp import setup

    async def handler(request):
        answered = web.WebSocketResponse()
        answered.headers["Access-Control-Allow-Origin"] = "*"
        await answered.prepare(request)
        await answered.send_str("hello")
        await answered.close()
        return answered

    async def run():
        app = web.Application()
        app.router.add_get("/own", handler)
        setup(app, Engine(Ruleset.from_text(RULES)))
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"ws://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/own"
        found = []
        try:
            async with aiohttp.ClientSession() as session:
                for origin in (PAGE, FOREIGN):
                    try:
                        async with session.ws_connect(url, origin=origin) as opened:
                            lines = opened._response.headers.getall("Access-Control-Allow-Origin")
                            found.append((lines, await opened.receive_str()))
                    except aiohttp.WSServerHandshakeError as error:
                        found.append(error.status)
            return found
        finally:
            await runner.cleanup()

    assert [([PAGE], "hello"), 403] == asyncio.run(run())
