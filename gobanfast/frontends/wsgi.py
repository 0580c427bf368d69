"""WSGI middleware: decides before the application is called, on any server and framework.

    app = Gobanfast(app, Engine.load("rules.yaml"))
    flask_app.wsgi_app = Gobanfast(flask_app.wsgi_app, engine)

The application finds in its environ `gobanfast.decision`, `gobanfast.request_id`, and, if a trusted proxy spoke for the
client, `gobanfast.client` (a ClientInfo, see `trust`; `gobanfast.origin` is the same for one more release). Bodies are
not touched; HEAD of an event stream ends at its headers. Under gunicorn and werkzeug a guarded SSLContext is asked for
the ClientHello.

WSGI shows headers without their order and case, and `X_Forwarded_For` as if it were `X-Forwarded-For`: the server or
the proxy must drop names with underscores, as gunicorn and nginx do, and granian does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from gobanfast._core.exchange import Exchange
from gobanfast._core.wsgi import WsgiMiddleware
from gobanfast.frontends.http.guard import HttpGuard, Mode
from gobanfast.frontends.http.heads import wsgi_head
from gobanfast.frontends.http.layers import TracerLook, tracers
from gobanfast.frontends.http.rate_limits import When
from gobanfast.frontends.http.refusal import HttpResponse
from gobanfast.frontends.tls import Handshake, handshake_of

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast.engine import Engine
    from gobanfast.frontends.challenge import Challenge
    from gobanfast.frontends.trust import Trust
    from gobanfast.telemetry.log import DecisionLog
    from gobanfast.telemetry.metrics import Metrics

logger = logging.getLogger("gobanfast.http")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

SOCKETS = ("gunicorn.socket", "werkzeug.socket")  # where servers put the connection


class Gobanfast:
    """Asks `engine` about every request before `app` sees it; `http.HttpGuard` says what each option means.

    Clients on a UNIX socket have no address: rules that ask for one do not match them.
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
        self._handle = WsgiMiddleware(
            app,
            self.guard,
            head_app=wsgi_head(app),
            handshake_of=connection_handshake,
            send_response=send_response,
            watch=Body,
        ).handle

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """The application's answer, or ours."""
        answer: Iterable[bytes] = self._handle(environ, start_response)
        return answer


def send_response(
    environ: Environ, start_response: StartResponse, exchange: Exchange, response: HttpResponse
) -> list[bytes]:
    """Answers with a whole response."""
    start_response(status_line(response), native(response.headers))
    exchange.finish()
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]


class Body:
    """The application's answer, whose end is noted: what a server closes.

    On an owned resource the first bytes are asked for at once, and the start is handed on with them: until then an
    error can still be answered, by a page that may be read, and servers see one start, whatever the application says.
    """

    def __init__(self, app: Application, environ: Environ, exchange: Exchange, start_response: StartResponse) -> None:
        self._exchange = exchange
        self._body: Iterable[bytes] = ()
        try:
            if exchange.is_owned:
                self._parts = self._opened(app, environ, start_response)
            else:
                self._body = app(environ, start_response)
                self._parts = self._body
        except BaseException:
            try:
                self._close()
            finally:
                exchange.finish(500)
                exchange.leave()
            raise

    def __iter__(self) -> Iterator[bytes]:
        """The parts of the body; of a stream those until its lease is lost."""
        if isinstance(self._parts, (list, tuple)):
            return iter(self._parts)
        return self._held()

    def _held(self) -> Iterator[bytes]:
        exchange = self._exchange
        try:
            for part in self._parts:
                if exchange.leased and not exchange.holds():
                    return
                yield part
        except Exception:
            exchange.finish(500)
            raise

    def _opened(self, app: Application, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start = HeldStart(start_response)
        try:
            self._body = app(environ, start)
            parts = iter(self._body)
            first = next(filter(None, parts), b"")
        except Exception as error:
            if start.begun:
                raise
            # The server's own page for an error has no header of ours, and a page could not read it; nobody else logs.
            logger.error("request %s: the application failed", self._exchange.request_id, exc_info=error)
            response = self._exchange.guard.failure()
            start_response(status_line(response), native(response.headers))
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]
        start.begin()
        return chain((first,), parts) if first else ()

    def _close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()

    def close(self) -> None:
        """Called by the server, whatever happened."""
        try:
            self._close()
        finally:
            self._exchange.finish()
            self._exchange.leave()


class HeldStart:
    """A `start_response` that is handed on with the first bytes; until then another one, with exc_info, replaces it."""

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self._said: tuple[str, list[tuple[str, str]]] | None = None
        self._write: Callable[[bytes], object] | None = None
        self.begun = False

    def __call__(self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None) -> Callable[..., Any]:
        """Keeps the start; after the first bytes it raises the error, as PEP 3333 has it."""
        if self.begun and exc_info is not None:
            raise exc_info[1]
        if self._said is not None and exc_info is None:
            raise AssertionError("start_response was called before, without exc_info")
        self._said = status, list(headers)
        return self.write

    def begin(self) -> None:
        """Hands the start on, once; an application that has none is the server's to judge."""
        if self._said is not None and not self.begun:
            self.begun = True
            self._write = self._start_response(*self._said)

    def write(self, part: bytes) -> None:
        """The callable that applications write with which cannot give their parts."""
        self.begin()
        if self._write is not None:
            self._write(part)


def connection_handshake(environ: Environ) -> Handshake | None:
    """The handshake of the connection, under servers that show it."""
    return handshake_of(socket_of(environ))


def socket_of(environ: Environ) -> Any:
    """The connection, from servers that show it."""
    return next((environ[name] for name in SOCKETS if name in environ), None)


def status_line(response: HttpResponse) -> str:
    """The status of a response as WSGI has it."""
    return f"{response.status} {HTTPStatus(response.status).phrase}"


def native(headers: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Header pairs as WSGI has them."""
    return [(name.decode(), value.decode("latin-1")) for name, value in headers]
