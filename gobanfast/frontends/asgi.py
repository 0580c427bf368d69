"""ASGI middleware: decides before the application runs, for HTTP and WebSocket, on any server and framework.

    app = Gobanfast(app, Engine.load("rules.yaml"))

The application finds in its scope `gobanfast` (the Decision), `gobanfast.request_id`, and, if a trusted proxy spoke for
the client, `gobanfast.client` (a ClientInfo, see `trust`; `gobanfast.origin` is the same for one more release).
Responses get an `x-request-id`. Bodies are not touched; HEAD of an event stream ends at its headers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from gobanfast._core.asgi import AsgiMiddleware
from gobanfast.frontends.http.guard import HttpGuard, Mode
from gobanfast.frontends.http.heads import asgi_head
from gobanfast.frontends.http.layers import TracerLook, tracers
from gobanfast.frontends.http.leases import open_lease
from gobanfast.frontends.http.rate_limits import When
from gobanfast.frontends.http.refusal import HttpResponse
from gobanfast.frontends.tls import CURRENT

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast.engine import Engine
    from gobanfast.frontends.challenge import Challenge
    from gobanfast.frontends.trust import Trust
    from gobanfast.telemetry.log import DecisionLog
    from gobanfast.telemetry.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

WRAPPERS = 32  # middlewares that are looked through


class Gobanfast:
    """Asks `engine` about every request before `app` sees it; `http.HttpGuard` says what each option means.

    A WebSocket is refused before it is accepted: with the whole answer where the server can send one, else with the
    server's 403. Clients on a UNIX socket, and test clients, have no address: rules that ask for one do not match them.
    """

    def __init__(
        self,
        app: Application,
        engine: Engine,
        *,
        trust: Trust | Iterable[str] | None = None,
        routes: Mapping[str, Mode] | None = None,
        challenge: Challenge | Literal["refuse", "allow"] = "refuse",
        names: Iterable[str] | None = None,
        mount: str | None = None,
        contact: str | None = None,
        show_reason: bool = False,
        rate_limit_headers: When = "refused",
        old_rate_limit_headers: bool = False,
        log: DecisionLog | str | None = None,
        metrics: Metrics | None = None,
        on_decision: Callable[[Decision, str], object] | None = None,
        on_error: Literal["refuse", "allow"] = "refuse",
    ) -> None:
        self.app = app
        self.guard = HttpGuard(
            engine,
            trust=trust,
            routes=routes,
            challenge=challenge,
            names=names,
            mount=mount,
            contact=contact,
            show_reason=show_reason,
            rate_limit_headers=rate_limit_headers,
            old_rate_limit_headers=old_rate_limit_headers,
            log=log,
            metrics=metrics,
            on_decision=on_decision,
            on_error=on_error,
        )
        self.guard.tracer = TracerLook(self.guard, partial(tracers, app))
        own = self.guard.mount if mount is not None else mount_of(app)
        middleware = AsgiMiddleware(
            app, self.guard, mount=own, handshake=CURRENT.get, head_app=asgi_head(app), send_response=send_response,
            open_lease=open_lease,
        )  # fmt: skip
        self._handle = middleware.handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers for the application, or runs it."""
        exchange, answered = self._handle(scope, receive, send)
        if exchange is None:
            await answered
            return
        try:
            await answered
        except BaseException as error:
            try:
                if isinstance(error, Exception) and exchange.is_owned and not exchange.answered:
                    # The server's own page for an error has no header of ours, and the page that asked could not read
                    # it.
                    response = exchange.failure()
                    if response is not None:
                        with suppress(Exception):  # the client may be gone: the error is what the server has to see
                            await send_response(scope, receive, send, response)
            finally:
                exchange.finish(500, aborted=not isinstance(error, Exception))
                exchange.leave()
            raise
        exchange.finish()
        exchange.leave()


def mount_of(app: Any) -> str:
    """The mount that an application has set for itself: `root_path` of FastAPI, which puts it into the scope inside.
    Looked for through middlewares around it."""
    for _ in range(WRAPPERS):
        mount = getattr(app, "root_path", None)
        if isinstance(mount, str) and mount.strip("/"):
            return "/" + mount.strip("/")
        app = getattr(app, "app", None)
    return ""


async def send_response(scope: Scope, receive: Receive, send: Send, response: HttpResponse) -> None:
    """Sends a whole response; a request's body is left to the server to drop."""
    start, body = "http.response.start", "http.response.body"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
            return
        start, body = "websocket.http.response.start", "websocket.http.response.body"
    await send({"type": start, "status": response.status, "headers": response.headers})
    await send({"type": body, "body": b"" if scope.get("method") == "HEAD" else response.body})
