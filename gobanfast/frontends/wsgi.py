"""WSGI middleware: decides before the application is called, on any server and framework.

    app = Gobanfast(app, Engine.load("rules.yaml"))
    flask_app.wsgi_app = Gobanfast(flask_app.wsgi_app, engine)

The application finds in its environ `gobanfast.decision`, `gobanfast.request_id`, and, if a trusted proxy spoke for the
client, `gobanfast.origin` (see `trust`). Bodies are not touched. Under gunicorn and werkzeug a guarded SSLContext is
asked for the ClientHello.

WSGI shows headers without their order and case, and `X_Forwarded_For` as if it were `X-Forwarded-For`: the server or
the proxy must drop names with underscores, as gunicorn and nginx do, and granian does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from gobanfast.frontends.http.guard import ADDRESS_START, Extra, Gate, Mode, is_secure
from gobanfast.frontends.http.refusal import Answer
from gobanfast.frontends.tls import handshake_of
from gobanfast.frontends.trust import mint_request_id
from gobanfast.wire.target import environ_target, is_odd

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast.engine import Engine
    from gobanfast.frontends.challenge import Challenge
    from gobanfast.frontends.trust import Trust
    from gobanfast.telemetry.log import DecisionLog
    from gobanfast.telemetry.metrics import Metrics

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

SOCKETS = ("gunicorn.socket", "werkzeug.socket")  # where servers put the connection


class Gobanfast:
    """Asks `engine` about every request before `app` sees it; `gate.Gate` says what each option means.

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
        log: DecisionLog | str | None = None,
        metrics: Metrics | None = None,
        on_decision: Callable[[Decision, str], object] | None = None,
        on_error: Literal["refuse", "allow"] = "refuse",
    ) -> None:
        self.app = app
        self.gate = Gate(
            engine,
            trust=trust,
            routes=routes,
            challenge=challenge,
            names=names,
            mount=mount,
            contact=contact,
            show_reason=show_reason,
            log=log,
            metrics=metrics,
            on_decision=on_decision,
            on_error=on_error,
        )
        self._decide = engine.decide
        self._engine = engine

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """The application's answer, or ours."""
        gate = self.gate
        path: str | None = environ.get("PATH_INFO", "")
        mount: str | None = None
        if environ.get("SCRIPT_NAME") or gate.mount or not path or is_odd(path) or not path.isascii():
            path, mount = environ_target(environ, gate.mount)
        path = path or "/"
        mode = gate.mode(path, mount or "") if gate.routes else "enforce"
        if mode == "off":
            return self.app(environ, start_response)
        trust = gate.trust
        peer = environ.get("REMOTE_ADDR")
        if peer and peer[0] in ADDRESS_START:
            believed = peer in trust.peers
        else:
            peer, believed = None, trust.unix
        origin = handshake = hello = sni = ja4 = None
        address = peer
        request_id = None
        scheme = environ["wsgi.url_scheme"]
        if believed:
            origin = environ["gobanfast.origin"] = trust.resolve_environ(peer, environ)
            address, request_id = origin.address, origin.request_id
            sni, ja4 = origin.signals.get("sni"), origin.signals.get("ja4")
        elif scheme == "https":
            handshake = handshake_of(socket_of(environ))
            if handshake is not None:
                hello = handshake.hello
                if hello is None:
                    sni = handshake.sni
        if request_id is None:
            request_id = mint_request_id()
        environ["gobanfast.request_id"] = request_id
        answer = None
        extra: Extra = []
        try:
            method, http = environ["REQUEST_METHOD"], environ.get("SERVER_PROTOCOL", "HTTP/1.1")[5:]
            if mount:
                decision = self._decide(
                    address, sni=sni, hello=hello, ja4=ja4, headers=environ, method=method, path=path, http=http,
                    mount=mount,
                )  # fmt: skip
            else:
                decision = self._decide(
                    address, sni=sni, hello=hello, ja4=ja4, headers=environ, method=method, path=path, http=http
                )
            environ["gobanfast.decision"] = decision
            if decision.action == "allow":
                if gate.told:
                    gate.tell(decision, request_id)
            else:
                answer, extra = gate.settle(
                    decision,
                    request_id=request_id,
                    method=environ["REQUEST_METHOD"],
                    secure=is_secure(scheme, origin),
                    accept=environ.get("HTTP_ACCEPT", ""),
                    cookies=environ.get("HTTP_COOKIE", ""),
                    mode=mode,
                )
            if answer is None and handshake is not None and gate.names is not None:
                host, accept = environ.get("HTTP_HOST", ""), environ.get("HTTP_ACCEPT", "")
                answer = gate.misdirected(handshake, host, request_id, accept)
        except Exception as error:  # noqa: BLE001 - logged there
            answer = gate.failed(error, request_id, environ.get("HTTP_ACCEPT", ""))
        if answer is not None and mode == "enforce":
            start_response(status_line(answer), native(answer.headers))
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

        def marked(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            for name, _ in headers:
                if name.lower() == "x-request-id":
                    break
            else:
                headers = [*headers, ("X-Request-ID", request_id)]
            if extra:
                headers = [*headers, *native(extra)]
            return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

        return self.app(environ, marked)


def socket_of(environ: Environ) -> Any:
    """The connection, from servers that show it."""
    return next((environ[name] for name in SOCKETS if name in environ), None)


def status_line(answer: Answer) -> str:
    """The status of an answer as WSGI has it."""
    return f"{answer.status} {HTTPStatus(answer.status).phrase}"


def native(headers: Extra) -> list[tuple[str, str]]:
    """Header pairs as WSGI has them."""
    return [(name.decode(), value.decode("latin-1")) for name, value in headers]
