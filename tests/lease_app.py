"""An application with a stream and a socket without end, which bans its client and says what it has seen."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import suppress

from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.frontends.http import leases
from gobanfast.frontends.wsgi import Gobanfast as WsgiGobanfast
from gobanfast.streams import close_on, open_streams

leases.TICK = float(os.environ.get("LAB_TICK", "15"))
ENGINE = Engine(Ruleset.from_text("rules: []"))
SEEN = {"gone": 0, "sent": 0}


async def asgi_application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if "LAB_CLOSE" in os.environ:
            close_on(retry=2)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        SEEN["gone"] += 1
        return
    if scope["path"] in {"/events", "/silent"}:
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", b"text/event-stream")]})  # fmt: skip
        await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
        ticking = asyncio.ensure_future(tick(send)) if scope["path"] == "/events" else None
        while (await receive())["type"] != "http.disconnect":
            pass
        SEEN["gone"] += 1
        if ticking is not None:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking
        return
    if scope["path"] == "/ban":
        ENGINE.ban("127.0.0.5", duration=60)
    body = json.dumps({**SEEN, "open": open_streams()}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


async def tick(send):
    while True:
        await asyncio.sleep(0.05)
        SEEN["sent"] += 1
        await send({"type": "http.response.body", "body": b"data: more\n\n", "more_body": True})


def wsgi_application(environ, start_response):
    if environ["PATH_INFO"] == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return parts()
    if environ["PATH_INFO"] == "/ban":
        ENGINE.ban("127.0.0.5", duration=60)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(SEEN).encode()]


def parts():
    try:
        for _ in range(2000):
            yield b"data: more\n\n"
            time.sleep(0.05)
    finally:
        SEEN["gone"] += 1


asgi = Gobanfast(asgi_application, ENGINE)
wsgi = WsgiGobanfast(wsgi_application, ENGINE)
