"""ASGI middleware: decides before the application runs, for HTTP and WebSocket, on any server and framework.

    app = Gobanfast(app, Engine.load("rules.yaml"))

The application finds in its scope `gobanfast` (the Decision), `gobanfast.request_id`, and, if a trusted proxy spoke for
the client, `gobanfast.origin` (see `trust`). Responses get an `x-request-id`. Bodies are not touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from gobanfast._http import MarkedSend
from gobanfast.frontends.gate import ADDRESS_START, Extra, Gate, is_secure
from gobanfast.frontends.refusal import Answer
from gobanfast.frontends.tls import CURRENT
from gobanfast.frontends.trust import mint_request_id

if TYPE_CHECKING:
    from gobanfast.engine import Engine

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

KINDS = frozenset({"http", "websocket"})
SECURE = frozenset({"https", "wss"})


class Gobanfast:
    """Asks `engine` about every request before `app` sees it; options are those of `gate.Gate`.

    A WebSocket is refused before it is accepted: with the whole answer where the server can send one, else with the
    server's 403. Clients on a UNIX socket, and test clients, have no address: rules that ask for one do not match them.
    """

    def __init__(self, app: Application, engine: Engine, **options: Any) -> None:
        self.app = app
        self.gate = Gate(engine, **options)
        self._decide = engine.decide
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers for the application, or runs it."""
        kind = scope["type"]
        gate = self.gate
        mode = gate.mode(scope["path"]) if gate.routes and kind in KINDS else "enforce"
        if kind not in KINDS or mode == "off":
            await self.app(scope, receive, send)
            return
        if gate.follows and gate.generation != self._engine.generation:
            gate.follow()
        trust = gate.trust
        client, headers = scope.get("client"), scope["headers"]
        peer = client[0] if client else None
        if peer and peer[0] in ADDRESS_START:
            believed = peer in trust.peers
        else:
            peer, believed = None, trust.unix
        origin = handshake = hello = sni = None
        address = peer
        request_id = None
        if believed:
            origin = scope["gobanfast.origin"] = trust.resolve(peer, headers)
            address, sni, request_id = origin.address, origin.signals.get("sni"), origin.request_id
        elif scope["scheme"] in SECURE:
            handshake = CURRENT.get()  # of this connection: where a proxy believed spoke, it would be the proxy's
            if handshake is not None:
                hello = handshake.hello
                if hello is None:
                    sni = handshake.sni
        if request_id is None:
            request_id = mint_request_id()
        scope["gobanfast.request_id"] = request_id
        answer = None
        extra: Extra | None = None
        try:
            decision = scope["gobanfast"] = self._decide(
                address,
                sni=sni,
                hello=hello,
                headers=headers,
                method=scope.get("method", "GET"),
                path=scope["path"],
                http=scope["http_version"],
            )
            if gate.log is not None:
                gate.log.record(
                    decision,
                    headers=headers,
                    method=scope.get("method", "GET"),
                    path=scope["path"],
                    http=scope["http_version"],
                    request_id=request_id,
                )
            if gate.on_decision is not None:
                gate.on_decision(decision, request_id)
            if decision.action != "allow":
                answer, extra = gate.settle(
                    decision,
                    request_id=request_id,
                    method=scope.get("method", ""),
                    secure=is_secure(scope["scheme"], origin),
                    accept=joined(headers, b"accept", ","),
                    cookies=joined(headers, b"cookie", "; "),
                )
            if answer is None and handshake is not None and gate.names is not None:
                answer = gate.misdirected(
                    handshake, joined(headers, b"host", ","), request_id, joined(headers, b"accept", ",")
                )
        except Exception as error:  # noqa: BLE001 - logged there
            answer = gate.failed(error, request_id, joined(headers, b"accept", ","))
        if answer is not None and mode == "enforce":
            await refuse(scope, receive, send, answer)
            return
        await self.app(scope, receive, MarkedSend(send, request_id, extra))


def joined(headers: Any, wanted: bytes, separator: str) -> str:
    """Values of one request header as one text."""
    return separator.join([value.decode("latin-1") for name, value in headers if name == wanted])


async def refuse(scope: Scope, receive: Receive, send: Send, answer: Answer) -> None:
    """Sends a whole response; a request's body is left to the server to drop."""
    start, body = "http.response.start", "http.response.body"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
            return
        start, body = "websocket.http.response.start", "websocket.http.response.body"
    await send({"type": start, "status": answer.status, "headers": answer.headers})
    await send({"type": body, "body": b"" if scope.get("method") == "HEAD" else answer.body})
