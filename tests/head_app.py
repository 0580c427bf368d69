"""Streams without end behind the middlewares, and how many of them run: what tests of HEAD serve."""

from __future__ import annotations

import asyncio
import time

from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.frontends.wsgi import Gobanfast as WsgiGobanfast
from gobanfast.sse import HEADERS, TEXT_HEADERS, encode

ENGINE = Engine(Ruleset.from_text("rules: []"))
SECONDS = 0.02  # between events
running = 0


async def asgi_application(scope, receive, send):
    global running  # noqa: PLW0603
    assert scope["type"] == "http"
    if scope["path"] != "/events":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"%d" % running})
        return
    running += 1
    try:
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        while True:
            await send({"type": "http.response.body", "body": encode("x"), "more_body": True})
            await asyncio.sleep(SECONDS)
    finally:
        running -= 1


def wsgi_application(environ, start_response):
    if environ["PATH_INFO"] != "/events":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % running]
    start_response("200 OK", list(TEXT_HEADERS))
    return endless()


def endless():
    global running  # noqa: PLW0603
    running += 1
    try:
        while True:
            yield encode("x")
            time.sleep(SECONDS)
    finally:
        running -= 1


asgi = Gobanfast(asgi_application, ENGINE)
wsgi = WsgiGobanfast(wsgi_application, ENGINE)
