"""Guarded applications for servers in processes of their own: `asgi` and `wsgi` say what they know of a request."""

from __future__ import annotations

import asyncio
import json
import os

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi as asgi_frontend
from gobanfast.frontends import wsgi as wsgi_frontend
from gobanfast.frontends.authz import DecisionService
from gobanfast.frontends.doctor import Doctor, WsgiDoctor
from gobanfast.frontends.trust import Trust

TOKEN = "a token of 20 bytes."  # noqa: S105
trust = Trust(json.loads(os.environ.get("TEST_TRUST", "[]")))


class FailingEngine(Engine):
    """Fails for one client, as no engine should."""

    __slots__ = ()

    def decide(self, address, /, **signals):
        if address == "127.0.0.99":
            raise RuntimeError("the engine is broken")
        return super().decide(address, **signals)


RULES = """
version: 1
rules:
  - {id: probes, when: {prefix: [127.0.0.66/32, 203.0.113.66/32]}, action: ban, reason: <probing>}
  - {id: tools, when: {header: {user-agent: {contains: nobody/}}}, action: ban, reason: so that headers are read}
"""
engine = FailingEngine(Ruleset.from_text(RULES))


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["gobanfast"].address})
        await send({"type": "websocket.close"})
        return
    if scope["path"] == "/events":  # server-sent events, until the client has seen enough
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b""})
        return
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = json.dumps(told(scope["gobanfast"], scope["gobanfast.request_id"], length, scope)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def told(decision, request_id, length, scope):
    origin = scope.get("gobanfast.origin")
    return {
        "address": decision.address,
        "request_id": request_id,
        "length": length,
        "status": None if origin is None else origin.status,
        "scheme": None if origin is None else origin.scheme,
    }


def wsgi_application(environ, start_response):
    length = len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    body = json.dumps(told(environ["gobanfast.decision"], environ["gobanfast.request_id"], length, environ)).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


asgi = asgi_frontend.Gobanfast(application, engine, trust=trust, show_reason=True)
wsgi = wsgi_frontend.Gobanfast(wsgi_application, engine, trust=trust, show_reason=True)
service = DecisionService(engine, trust=trust, show_reason=True)
doctor = Doctor(asgi, engine, token=TOKEN, trust=trust)
wsgi_doctor = WsgiDoctor(wsgi, engine, token=TOKEN, trust=trust)


def proxy_fixed():
    """A factory: the WSGI doctor behind the middleware of werkzeug that believes everyone."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    return ProxyFix(wsgi_doctor)


def ruled():
    """A factory: the ASGI application guarded by the rules file that TEST_RULES names."""
    return asgi_frontend.Gobanfast(application, Engine.load(os.environ["TEST_RULES"]), show_reason=True)
