"""The decision service: what proxies ask before they hand a request on, as one small ASGI application.

| path | who asks | answer |
|---|---|---|
| `/check` | nginx `auth_request`, Traefik forwardAuth, Caddy forward_auth | 200, or 403 and the page, or 503 |
| `/check/...` | Envoy ext_authz over HTTP | the same |
| `/refused` | nginx, for the page of a refusal that it was told | the page, and no decision |
| `/live`, `/ready` | probes | 200; `/ready` with the engine's status. Old rules and a lost store are told, not fatal |
| `/metrics` | Prometheus | what it was given to show |
| `/bans` | people, with a bearer token | list (GET), make (POST, JSON), lift (DELETE `/bans/<key>`) |

A body for POST is `{"key": ..., "duration": "1h", "reason": "", "wide": false}`; all but the key may be left out.

`/check` believes peers in `trust` and refuses to answer others. They say for whom they ask in X-Forwarded-For (or what
the Trust has), and for what in X-Forwarded-Method and -Uri, or X-Original-Method and -URI, or, after `/check`, in the
path itself; told twice and differently, it is refused, for one of the two is the client's. An answer carries
`x-gobanfast-action`, `-rule` and `-cause`, which the proxy must keep from the client, and `x-request-id`, which it is
to put on the request it hands on. A refusal has `x-gobanfast-refusal`, too: what its page says, signed. nginx, which
drops the page, asks `/refused` with it.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gobanfast._errors import GobanError
from gobanfast.bans import DEFAULT_DURATION
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.http.guard import ADDRESS_START, Gate, under
from gobanfast.frontends.http.refusal import Answer, Refused
from gobanfast.frontends.trust import Origin, mint_request_id
from gobanfast.wire.target import asgi_target, read_target

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast.engine import Engine
    from gobanfast.frontends.asgi import Receive, Scope, Send

log = logging.getLogger("gobanfast.http")

CHECK, REFUSED = "/check", "/refused"
REFUSAL = b"x-gobanfast-refusal"
REFUSAL_LIMIT = 4096  # characters of that header
BODY_LIMIT = 65536
TOKEN_BYTES = 16
# What the proxy adds to the client's headers, or takes out of them, on this hop: none of it is the client's.
HOP_HEADERS = frozenset(
    b"connection content-length forwarded keep-alive proxy-connection te trailer transfer-encoding upgrade via "
    b"x-forwarded-for x-forwarded-host x-forwarded-method x-forwarded-port x-forwarded-proto x-forwarded-server "
    b"x-forwarded-uri x-original-method x-original-uri x-real-ip x-request-id "
    b"x-envoy-expected-rq-timeout-ms x-envoy-internal x-gobanfast-refusal".split()
)
TARGETS = frozenset({b"x-forwarded-uri", b"x-original-uri"})
METHODS = frozenset({b"x-forwarded-method", b"x-original-method"})
LISTED = ("key", "reason", "rule", "created", "expires", "count", "by")


class DecisionService:
    """The ASGI application; options are those of `gate.Gate`.

    Args:
        token: secret for `/bans`, at least 16 characters; None: there is no `/bans`.
        exposition: makes the text of `/metrics`; None: there is none.
    Raises:
        ValueError: a token that is too short.
    """

    def __init__(
        self, engine: Engine, *, token: str | None = None, exposition: Callable[[], bytes] | None = None, **options: Any
    ) -> None:
        if token is not None and len(token) < TOKEN_BYTES:
            raise ValueError(f"the token for /bans is shorter than {TOKEN_BYTES} characters")
        self.gate = Gate(engine, **options)
        self._engine, self._decide = engine, engine.decide
        self._token = None if token is None else b"Bearer " + token.encode()
        self._exposition = exposition
        self._key = secrets.token_bytes(32)  # of refusals, where no Challenge has one that replicas share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "there is no WebSocket here"})
            return
        path: str = scope["path"]
        if path.startswith(CHECK) and path[len(CHECK) :][:1] in {"", "/"}:
            status, headers, body = self.check(scope)
        elif path == REFUSED:
            status, headers, body = self.refused(scope)
        elif path == "/bans" or path.startswith("/bans/"):
            status, headers, body = await self.bans(scope, receive)
        else:
            status, headers, body = self.probe(path)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def check(self, scope: Scope) -> Answer:
        """What becomes of the request that a proxy asks about."""
        gate, origin = self.gate, self._origin(scope)
        if isinstance(origin, Answer):
            return origin
        request_id = origin.request_id or mint_request_id()
        headers = []
        targets, methods = set(), set()
        for pair in scope["headers"]:
            name = pair[0]
            if name not in HOP_HEADERS:
                headers.append(pair)
            elif name in TARGETS:
                targets.add(pair[1])
            elif name in METHODS:
                methods.add(pair[1])
        path, method = asked_path(scope), scope["method"]
        if not path:
            if len(targets) > 1 or len(methods) > 1:  # the proxy sets one header; another came from the client
                return plain(403, "the request's path or method is told in two ways")
            path = read_target(targets.pop()) if targets else "/"
            method = methods.pop().decode("latin-1") if methods else method
        mode = gate.mode(path, gate.mount)
        if mode == "off":
            return Answer(200, [(b"content-length", b"0"), (b"x-request-id", request_id.encode())], b"")
        accept = ",".join([value.decode("latin-1") for name, value in headers if name == b"accept"])
        try:
            decision = self._decide(
                origin.address,
                sni=origin.signals.get("sni"),
                ja4=origin.signals.get("ja4"),
                headers=headers,
                method=method,
                path=path,
                http=None,  # the proxy's own version is none of the client's
                **under(gate.mount),
            )
            extra = [
                (b"x-request-id", request_id.encode()),
                (b"x-gobanfast-action", decision.action.encode()),
                (b"x-gobanfast-cause", decision.cause.encode()),
            ]
            if decision.rule is not None and decision.rule.isascii():
                extra.append((b"x-gobanfast-rule", decision.rule.encode()))
            answer = None
            if decision.action == "allow":
                if gate.told:
                    gate.tell(decision, request_id)
            else:
                answer, cookies = gate.settle(
                    decision,
                    request_id=request_id,
                    method=method,
                    secure=origin.scheme == "https",
                    accept=accept,
                    cookies="; ".join([value.decode("latin-1") for name, value in headers if name == b"cookie"]),
                    mode=mode,
                )
                extra += cookies
                if answer is not None and mode == "enforce":
                    extra.append((REFUSAL, self._told(decision, request_id, method, accept)))
        except Exception as error:  # noqa: BLE001 - logged there
            answer = gate.failed(error, request_id, accept)
            extra = [(b"x-request-id", request_id.encode())]
        if answer is None or mode == "observe":
            return Answer(200, [(b"content-length", b"0"), *extra], b"")
        return Answer(answer.status, [*answer.headers, *extra[1:]], answer.body)

    def refused(self, scope: Scope) -> Answer:
        """The page of a refusal, from what `/check` told the proxy of it; a plain one for anything else."""
        gate, origin = self.gate, self._origin(scope)
        if isinstance(origin, Answer):
            return origin
        request_id = origin.request_id or mint_request_id()
        headers = [pair for pair in scope["headers"] if pair[0] not in HOP_HEADERS]
        accept = ",".join([value.decode("latin-1") for name, value in headers if name == b"accept"])
        told = [value.decode("latin-1") for name, value in scope["headers"] if name == REFUSAL]
        facts = self._read(told[0], request_id) if len(told) == 1 else None
        if facts is None:
            return gate.refusal("banned", request_id, accept)
        if facts["kind"] == "task" and isinstance(gate.challenge, Challenge):
            fingerprint = None
            if gate.challenge.bind != "client":
                fingerprint = self._engine.peek(origin.address, headers=headers).fingerprint
            return gate.task(origin.address, fingerprint, request_id)
        decision = Refused(facts["cause"], facts["reason"], facts["expires"])
        return gate.refusal("banned" if facts["kind"] == "banned" else "challenge", request_id, accept, decision)

    def _origin(self, scope: Scope) -> Origin | Answer:
        """For whom a proxy asks; the answer to a peer that is none."""
        gate = self.gate
        trust = gate.trust
        client = scope.get("client")
        peer = client[0] if client else None
        if peer is not None and (not peer or peer[0] not in ADDRESS_START):
            peer = None
        if not trust.believes(peer):
            return plain(403, f"peer {peer or 'on a UNIX socket'} is not in trust")
        return trust.resolve(peer, scope["headers"])

    def _told(self, decision: Decision, request_id: str, method: str, accept: str) -> bytes:
        """What the page of a refusal says, and for which request, signed: nobody else can make one."""
        kind = "banned" if decision.action == "ban" else "task" if self.gate.gives_task(method, accept) else "challenge"
        facts: dict[str, Any] = {
            "kind": kind,
            "id": request_id,
            "expires": decision.expires,
            "cause": "",
            "reason": None,
        }
        if self.gate.show_reason:
            facts |= {"cause": decision.cause, "reason": decision.reason and decision.reason[:512]}
        text = base64.urlsafe_b64encode(json.dumps(facts, separators=(",", ":")).encode()).decode()
        return f"{text}.{self._sign(text)}".encode()

    def _read(self, told: str, request_id: str) -> dict[str, Any] | None:
        """The facts that `_told` signed for this request; None for anything else."""
        text, _, signature = told.partition(".")
        if len(told) > REFUSAL_LIMIT or not told.isascii() or not hmac.compare_digest(self._sign(text), signature):
            return None
        facts: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text))
        return facts if facts["id"] == request_id else None

    def _sign(self, text: str) -> str:
        if isinstance(self.gate.challenge, Challenge):
            return self.gate.challenge.signature("gobanfast-refusal", text)
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()

    def probe(self, path: str) -> Answer:
        """`/live`, `/ready` and `/metrics`."""
        if path == "/live":
            return plain(200, "live")
        if path == "/ready":
            return answer_json(200, self._engine.status())
        if path == "/metrics" and self._exposition is not None:
            text = self._exposition()
            return Answer(200, [(b"content-type", b"text/plain; version=0.0.4"), length(text)], text)
        return plain(404, "there is /check, /refused, /live, /ready, /metrics and /bans here")

    async def bans(self, scope: Scope, receive: Receive) -> Answer:
        """The bans in force, for those who know the token."""
        if self._token is None:
            return plain(404, "no token is set, so there is no /bans here")
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or not hmac.compare_digest(given[0], self._token):
            refused = plain(401, "a bearer token is needed")
            refused.headers.append((b"www-authenticate", b'Bearer realm="gobanfast"'))
            return refused
        key = unquote(scope["path"][len("/bans/") :])
        method = scope["method"]
        try:
            if method == "GET" and not key:
                return answer_json(200, [listed(ban) for ban in self._engine.bans()])
            if method == "POST" and not key:
                asked = wanted_ban(await read_body(receive))
                return answer_json(201, listed(self._engine.ban(asked.pop("key"), **asked)))
            if method == "DELETE" and key:
                lifted = self._engine.unban(key)
                return plain(404, f"{key} is not banned") if lifted is None else answer_json(200, listed(lifted))
        except (ValueError, OverflowError) as error:
            return plain(400, str(error).replace("say wide=True", 'write "wide": true'))
        except GobanError as error:
            return plain(503, str(error))  # there is no room for the ban
        return plain(405, "GET and POST /bans, DELETE /bans/<key>")


def asked_path(scope: Scope) -> str:
    """The path that a proxy puts after `/check`, as the client sent it; empty where it tells it in a header."""
    path, raw = scope["path"][len(CHECK) :], scope.get("raw_path")
    if raw is not None and raw.startswith(CHECK.encode()):
        return asgi_target(path, raw[len(CHECK) :]) if path else ""
    return asgi_target(path, None) if path else ""


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def wanted_ban(body: bytes) -> dict[str, Any]:
    """Key, duration and reason of the ban that a body asks for; ValueError if it does not."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(asked, dict) or not isinstance(asked.get("key"), str):
        raise ValueError('the body has no key; write {"key": "203.0.113.7", "duration": "1h", "reason": "..."}')
    duration, reason, wide = asked.get("duration"), asked.get("reason", ""), asked.get("wide", False)
    if duration is None:  # not said, or null
        duration = DEFAULT_DURATION
    if isinstance(duration, bool) or not isinstance(duration, (str, int, float)):
        raise ValueError("the duration is neither text nor a number of seconds; write 1h or permanent")
    if not isinstance(wide, bool):
        raise ValueError(f"wide is {wide!r}; write true or false")
    meant = {"key": asked["key"], "duration": duration, "reason": str(reason)}
    return meant | {"wide": True} if wide else meant


async def read_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > BODY_LIMIT:
            raise ValueError(f"a body of more than {BODY_LIMIT} bytes")
        if not message.get("more_body"):
            return body


def length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(body)


def plain(status: int, text: str) -> Answer:
    body = text.encode() + b"\n"
    return Answer(status, [(b"content-type", b"text/plain; charset=utf-8"), length(body)], body)


def answer_json(status: int, value: Any) -> Answer:
    body = json.dumps(value, default=str).encode()
    return Answer(status, [(b"content-type", b"application/json"), length(body), (b"cache-control", b"no-store")], body)


def listed(ban: Any) -> dict[str, Any]:
    """A Ban as JSON members."""
    return {name: getattr(ban, name) for name in LISTED}
