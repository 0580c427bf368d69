"""Applications behind proxies for tests of share rules: `plain` says itself who may read, wrongly; `guarded` has the
middleware by the rules file that TEST_RULES names. Both say what they were handed."""

from __future__ import annotations

import json
import os

from gobanfast import Engine
from gobanfast.frontends.asgi import Gobanfast


async def plain(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "open"})
        await send({"type": "websocket.close"})
        return
    handed = {"headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]}
    if "gobanfast" in scope:
        handed |= {"address": scope["gobanfast"].address, "request_id": scope["gobanfast.request_id"]}
    body = json.dumps(handed).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)),
               (b"cache-control", b"public, max-age=60"), (b"vary", b"Accept-Encoding"),
               (b"access-control-allow-origin", b"*"), (b"access-control-allow-methods", b"*")]  # fmt: skip
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def guarded():
    """A factory."""
    return Gobanfast(plain, Engine.load(os.environ["TEST_RULES"]))
