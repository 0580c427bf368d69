"""aiohttp.web middleware: decides before the handler runs, for requests, streams and WebSockets.

    app = web.Application()
    setup(app, Engine.load("rules.yaml"))

Handlers find the exchange under the key EXCHANGE: `request[EXCHANGE].decision`, `.request_id` and, if a trusted proxy
spoke for the client, `.client` (a ClientInfo, see `trust`). Responses get an `x-request-id`. Bodies are not touched.
Under a guarded SSLContext the ClientHello is asked for, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal

from aiohttp import web
from multidict import CIMultiDict

from gobanfast._core.exchange import Exchange, names_websocket
from gobanfast.frontends.http.guard import HttpGuard, Mode
from gobanfast.frontends.http.layers import TracerLook, tracers
from gobanfast.frontends.http.rate_limits import When
from gobanfast.frontends.tls import handshake_of
from gobanfast.wire.target import read_target

if TYPE_CHECKING:
    import asyncio

    from gobanfast import Decision
    from gobanfast.engine import Engine
    from gobanfast.frontends.challenge import Challenge
    from gobanfast.frontends.trust import Trust
    from gobanfast.telemetry.log import DecisionLog
    from gobanfast.telemetry.metrics import Metrics

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TEXT = "utf-8", "surrogateescape"  # as aiohttp reads headers
EXCHANGE = web.RequestKey("gobanfast.exchange", Exchange)


def setup(
    app: web.Application,
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
) -> HttpGuard:
    """Asks `engine` about every request before `app` and its other middlewares see it; the guard made of the options.

    `http.HttpGuard` says what each option means. Call it for the outermost application, before it runs. A WebSocket is
    refused before it is accepted. Clients on a UNIX socket have no address: rules that ask for one do not match them.
    `on_response_prepare` of a sub-application comes last: it must not write `access-control-*`.
    """
    guard = HttpGuard(
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

    guard.tracer = TracerLook(guard, partial(tracers, app))

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        path = read_target(request.raw_path)
        mode = guard.mode(path, guard.mount)
        if mode == "off":
            return await handler(request)
        transport = request.transport
        exchange = Exchange(
            guard,
            request.raw_headers,
            peer=peer_of(transport),
            method=None if opens_socket(request) else request.method,
            path=path,
            mount=guard.mount,
            http=f"{request.version.major}.{request.version.minor}",
            scheme="https" if transport is not None and transport.get_extra_info("ssl_object") else "http",
            handshake=None if transport is None else handshake_of(transport.get_extra_info("ssl_object")),
            mode=mode,
            query=request.raw_path.partition("?")[2],
        )
        denial = exchange.begin()
        if denial is not None:
            headers = [(name.decode(), value.decode("latin-1")) for name, value in denial.headers]
            exchange.finish(denial.status)
            return web.Response(status=denial.status, headers=headers, body=denial.body)
        request[EXCHANGE] = exchange
        handed = exchange.request_headers(request.raw_headers)
        if handed is not None:
            texts = [(name.decode(*TEXT), value.decode(*TEXT)) for name, value in handed]
            request = request.clone(headers=CIMultiDict(texts))  # the keys are copied, too
        exchange.enter()
        try:
            response = await handler(request)
        except BaseException as error:
            exchange.finish(error.status if isinstance(error, web.HTTPException) else 500)
            raise
        finally:
            exchange.leave()
        exchange.finish(response.status)
        return response

    app.middlewares.insert(0, middleware)
    app.on_response_prepare.append(dress)
    app.on_startup.append(dress_last)
    return guard


async def dress_last(app: web.Application) -> None:
    """Moves `dress` behind what was set up later, such as aiohttp_cors: what it strips must have been written."""
    if not app.on_response_prepare.frozen:  # it is in a sub-application
        app.on_response_prepare.remove(dress)
        app.on_response_prepare.append(dress)


async def dress(request: web.Request, response: web.StreamResponse) -> None:
    """Puts what the exchange adds on a response, before its headers are sent."""
    exchange: Exchange | None = request.get(EXCHANGE)
    if exchange is None:
        return
    before = list(response.headers.items())
    pairs = exchange.response_headers(before, text=True, status=response.status)
    if exchange.is_owned:  # some are gone, or other ones
        response.headers.clear()
    else:
        pairs = pairs[len(before) :]
    for name, value in pairs:
        response.headers.add(name, value)


def opens_socket(request: web.Request) -> bool:
    """Whether it is the handshake of a WebSocket."""
    return request.method == "GET" and names_websocket(",".join(request.headers.getall("Upgrade", ())))


def peer_of(transport: asyncio.Transport | None) -> str | None:
    """The address of the other end; None on a UNIX socket."""
    peer = None if transport is None else transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else None
