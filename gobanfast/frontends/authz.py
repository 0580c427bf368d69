"""Decision service for proxies (auth_request, forwardAuth, ext_authz), as one small ASGI application.

| path | who asks | answer |
|---|---|---|
| `/check` | nginx `auth_request`, Traefik forwardAuth, Caddy forward_auth | 200, or 403 and the page |
| `/check/...` | Envoy ext_authz over HTTP | the same |
| `/preflight`, `/preflight/...` | the same, with a client's preflight | for the client: 204 with the grant, or 403 |
| `/refused` | nginx, for the page of a refusal that it was told | the page with its true status, and no decision |
| `/live`, `/ready` | probes | 200; `/ready` with the engine's status. Old rules and a lost store are told, not fatal |
| `/metrics` | Prometheus | what it was given to show |
| `/bans` | people, with a bearer token | list (GET), make (POST, JSON), lift (DELETE `/bans/<key>`) |
| `/labels` | the same | list, put (POST, JSON), take off (DELETE `/labels/<word>/<key>`) |

A body for POST is `{"key": ..., "duration": "1h", "reason": "", "wide": false}`, for `/labels` with `"word"`,
without `wide`; all but key and word may be left out.

`/check` trusts peers in `trust` and refuses to answer others. They say for whom they ask in X-Forwarded-For (or what
the Trust has), and for what in X-Forwarded-Method and -Uri, or X-Original-Method and -URI, or, after `/check`, in the
path itself; told twice and differently, it is refused, for one of the two is the client's. A GET with
Sec-WebSocket-Version opens a WebSocket: proxies keep Upgrade to themselves, and no page can leave the other out.

It says 200 or 403 alone: nginx makes 500 of anything else, and others take all of 2xx for "go on". So a preflight, an
OPTIONS with Access-Control-Request-Method, goes to `/preflight`, told in the same ways; the answer is for the client.
An answer of `/check` carries `x-gobanfast-action`, `-rule` and `-cause`, which the proxy must keep from the client, and
`x-request-id`, which it is to put on the request it hands on; `vary` and `access-control-*`, of what share rules own,
are for the client's response. A refusal has `x-gobanfast-status`, the status that the client is to see (403, 421, 503),
and `x-gobanfast-refusal`: what its page says, signed. nginx, which drops the page, asks `/refused` with it.

The service sees no response. It takes nothing out of the application's (the proxy is to hide its `access-control-*`),
and knows neither its status nor how long it took; streams and sockets that it let in are not asked about again.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gobanfast._core.exchange import Exchange
from gobanfast._errors import GobanError
from gobanfast.bans import DEFAULT_DURATION
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.http.guard import ADDRESS_START, HttpGuard
from gobanfast.frontends.http.refusal import HttpResponse, Kind, Refused, ResponseKind
from gobanfast.frontends.trust import Trust, mint_request_id
from gobanfast.wire.target import asgi_target, read_target

if TYPE_CHECKING:
    from gobanfast.engine import Engine
    from gobanfast.frontends.asgi import Receive, Scope, Send

log = logging.getLogger("gobanfast.http")

CHECK, PREFLIGHT, REFUSED = "/check", "/preflight", "/refused"
STATUS, REFUSAL = b"x-gobanfast-status", b"x-gobanfast-refusal"
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
TARGETS = {name.encode(): name for name in ("x-forwarded-uri", "x-original-uri")}
METHODS = {name.encode(): name for name in ("x-forwarded-method", "x-original-method")}
SOCKET = "sec-websocket-version"
SOCKETS = {SOCKET.encode(): SOCKET}
TOLD: frozenset[ResponseKind] = frozenset({"banned", "challenge", "limited"})  # refusals that say what decided
LISTED = ("key", "reason", "rule", "created", "expires", "count", "by")
LABEL = ("key", "word", "reason", "created", "expires", "by")


class DecisionService:
    """The ASGI application; options are those of `http.HttpGuard`.

    Args:
        token: secret for `/bans` and `/labels`, at least 16 characters; None: there are none.
        exposition: makes the text of `/metrics`; None: there is none.
    Raises:
        ValueError: a token that is too short.
    """

    def __init__(
        self, engine: Engine, *, token: str | None = None, exposition: Callable[[], bytes] | None = None, **options: Any
    ) -> None:
        if token is not None and len(token) < TOKEN_BYTES:
            raise ValueError(f"the token for /bans is shorter than {TOKEN_BYTES} characters")
        self.guard = HttpGuard(engine, **options)
        self._engine = engine
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
        if is_below(path, CHECK):
            answer = self.check(scope)
        elif is_below(path, PREFLIGHT):
            answer = self.preflight(scope)
        elif path == REFUSED:
            answer = self.refused(scope)
        elif is_below(path, "/bans"):
            answer = await self.bans(scope, receive)
        elif is_below(path, "/labels"):
            answer = await self.labels(scope, receive)
        else:
            answer = self.probe(path)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    def check(self, scope: Scope) -> HttpResponse:
        """What becomes of the request that a proxy asks about."""
        exchange = self._exchange(scope, CHECK)
        response, decision = exchange.begin(), exchange.decision
        if response is None or response.status < 300:  # a granted preflight, which was for /preflight, goes on
            status, made = 200, HttpResponse(200, exchange.response_headers([(b"content-length", b"0")]), b"")
        else:
            status, made = response.status, response._replace(status=403)
            made.headers.append((STATUS, b"%d" % response.status))
            if response.kind is not None:
                made.headers.append((REFUSAL, self._sign_facts(exchange, response.kind)))
        if decision is not None and not exchange.failed:
            made.headers.append((b"x-gobanfast-action", decision.action.encode()))
            made.headers.append((b"x-gobanfast-cause", decision.cause.encode()))
            if decision.rule is not None and decision.rule.isascii():
                made.headers.append((b"x-gobanfast-rule", decision.rule.encode()))
        exchange.finish(status)
        return made

    def preflight(self, scope: Scope) -> HttpResponse:
        """The answer to a preflight; to what is none, or about a resource that share rules do not own, it is 403."""
        exchange = self._exchange(scope, PREFLIGHT)
        response = exchange.begin()
        if response is None:
            response = self.guard.denial(exchange, "cross-origin", told=False)
            response.headers[:] = exchange.response_headers(response.headers)
        exchange.finish(response.status)
        return response

    def _exchange(self, scope: Scope, under: str) -> Exchange:
        """The exchange that a proxy asks about at this path; `http` stays None: the proxy's own is none of the
        client's."""
        return Exchange(
            self.guard,
            scope["headers"],
            peer=peer_of(scope),
            method=scope["method"],
            path=asked_path(scope, under),
            mount=self.guard.mount,
            about=ASKED,
            query=scope.get("query_string"),
        )

    def refused(self, scope: Scope) -> HttpResponse:
        """The page of a refusal, from what `/check` said to the proxy of it; a plain one for anything else."""
        guard, peer = self.guard, peer_of(scope)
        trust = guard.trust
        if not trust.believes(peer):
            return ASKED.stranger(peer)
        names = trust.fields | {REFUSAL: REFUSAL.decode(), b"accept": "accept"}
        headers, picked = parted(scope["headers"], names)
        client = trust.client_from(peer, {name: ",".join(texts) for name, texts in picked.items()})
        request_id, accept = client.request_id or mint_request_id(), ",".join(picked.get("accept", ()))
        signed = picked.get(REFUSAL.decode(), [])
        facts = self._read(signed[0], request_id) if len(signed) == 1 else None
        if facts is None:
            response = guard.denial_of("banned", request_id, accept)
        elif facts["kind"] == "task" and isinstance(guard.challenge, Challenge):
            fingerprint = None
            if guard.challenge.bind != "client":
                fingerprint = self._engine.peek(client.address, headers=headers).fingerprint
            response = guard.task(client.address, fingerprint, request_id)
        else:
            kind: Kind = "challenge" if facts["kind"] == "task" else facts["kind"]
            decision = Refused(facts["cause"], facts["reason"], facts["expires"]) if kind in TOLD else None
            response = guard.denial_of(kind, request_id, accept, decision)
        response.headers.append((b"x-request-id", request_id.encode()))
        return response

    def _sign_facts(self, exchange: Exchange, kind: ResponseKind) -> bytes:
        """What the page of a refusal says, and for which request, signed: nobody else can make one."""
        facts: dict[str, Any] = {"kind": kind, "id": exchange.request_id, "expires": None, "cause": "", "reason": None}
        if kind in TOLD:
            decision = exchange.decision
            facts["expires"] = decision.expires
            if kind == "limited" and decision.limit is not None:
                facts["expires"] = time.time() + decision.limit.wait
            if self.guard.show_reason:
                facts |= {"cause": decision.cause, "reason": decision.reason and decision.reason[:512]}
        text = base64.urlsafe_b64encode(json.dumps(facts, separators=(",", ":")).encode()).decode()
        return f"{text}.{self._sign(text)}".encode()

    def _read(self, signed: str, request_id: str) -> dict[str, Any] | None:
        """The facts that `_sign_facts` signed for this request; None for anything else."""
        text, _, signature = signed.partition(".")
        if len(signed) > REFUSAL_LIMIT or not signed.isascii() or not hmac.compare_digest(self._sign(text), signature):
            return None
        facts: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text))
        return facts if facts["id"] == request_id else None

    def _sign(self, text: str) -> str:
        if isinstance(self.guard.challenge, Challenge):
            return self.guard.challenge.signature("gobanfast-refusal", text)
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()

    def probe(self, path: str) -> HttpResponse:
        """`/live`, `/ready` and `/metrics`."""
        if path == "/live":
            return plain(200, "live")
        if path == "/ready":
            return answer_json(200, self._engine.status())
        if path == "/metrics" and self._exposition is not None:
            text = self._exposition()
            return HttpResponse(200, [(b"content-type", b"text/plain; version=0.0.4"), length(text)], text)
        return plain(404, "there is /check, /refused, /live, /ready, /metrics and /bans here")

    async def bans(self, scope: Scope, receive: Receive) -> HttpResponse:
        """The bans in force, for those who know the token."""
        if (refused := self._stranger(scope, "/bans")) is not None:
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

    async def labels(self, scope: Scope, receive: Receive) -> HttpResponse:
        """The labels in force, for those who know the token."""
        if (refused := self._stranger(scope, "/labels")) is not None:
            return refused
        word, _, key = unquote(scope["path"][len("/labels/") :]).partition("/")
        method = scope["method"]
        try:
            if method == "GET" and not word:
                return answer_json(200, [listed(label, LABEL) for label in self._engine.labels()])
            if method == "POST" and not word:
                asked = wanted_label(await read_body(receive))
                return answer_json(201, listed(self._engine.label(asked.pop("key"), asked.pop("word"), **asked), LABEL))
            if method == "DELETE" and key:
                gone = self._engine.unlabel(key, word)
                if gone is None:
                    return plain(404, f"{key} is not labelled {word}")
                return answer_json(200, listed(gone, LABEL))
        except (ValueError, OverflowError) as error:
            return plain(400, str(error))
        except GobanError as error:
            return plain(503, str(error))  # there is no room for the label
        return plain(405, "GET and POST /labels, DELETE /labels/<word>/<key>")

    def _stranger(self, scope: Scope, path: str) -> HttpResponse | None:
        """The answer to who does not know the token; None: he does."""
        if self._token is None:
            return plain(404, f"no token is set, so there is no {path} here")
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) == 1 and hmac.compare_digest(given[0], self._token):
            return None
        refused = plain(401, "a bearer token is needed")
        refused.headers.append((b"www-authenticate", b'Bearer realm="gobanfast"'))
        return refused


class Asked:
    """What a proxy asks about: the path after `/check` or in a header, and the headers that are the client's."""

    hop = HOP_HEADERS

    def names(self, trust: Trust) -> dict[bytes, str]:
        """The headers whose texts are wanted."""
        return trust.fields | TARGETS | METHODS | SOCKETS

    def stranger(self, peer: str | None) -> HttpResponse:
        """The answer to a peer that is not trusted."""
        return plain(403, f"peer {peer or 'on a UNIX socket'} is not in trust")

    def __call__(self, exchange: Exchange, picked: dict[str, Any]) -> HttpResponse | None:
        """Says to the exchange what is asked for; or the answer to a proxy that says it twice and differently."""
        if exchange.path:
            exchange.retarget(method_in(exchange.method, picked), exchange.path)
            return None
        targets, methods = texts_of(picked, TARGETS), texts_of(picked, METHODS)
        if len(targets) > 1 or len(methods) > 1:  # the proxy sets one header; another came from the client
            return plain(403, "the request's path or method is told in two ways")
        target = targets.pop() if targets else "/"
        method = methods.pop() if methods else exchange.method
        exchange.retarget(method_in(method, picked), read_target(target.encode("latin-1")), target.partition("?")[2])
        return None


ASKED = Asked()


def method_in(method: str, picked: dict[str, Any]) -> str | None:
    """The method in question; None where a WebSocket is to be opened."""
    return None if method == "GET" and SOCKET in picked else method


def texts_of(picked: dict[str, Any], names: dict[bytes, str]) -> set[str]:
    """The different texts of the headers of these names."""
    found: set[str] = set()
    for name in names.values():
        text = picked.get(name, [])
        found.update([text] if isinstance(text, str) else text)
    return found


def peer_of(scope: Scope) -> str | None:
    """The address of the proxy; None on a UNIX socket."""
    client = scope.get("client")
    peer: str | None = client[0] if client else None
    return peer if peer and peer[0] in ADDRESS_START else None


def parted(
    headers: Iterable[tuple[bytes, bytes]], names: dict[bytes, str]
) -> tuple[list[tuple[bytes, bytes]], dict[str, list[str]]]:
    """(the client's headers, the texts of those that `names` lists)."""
    rest: list[tuple[bytes, bytes]] = []
    picked: dict[str, list[str]] = {}
    for name, value in headers:
        if name not in HOP_HEADERS:
            rest.append((name, value))
        if name in names:
            picked.setdefault(names[name], []).append(value.decode("latin-1"))
    return rest, picked


def is_below(path: str, place: str) -> bool:
    return path.startswith(place) and path[len(place) :][:1] in {"", "/"}


def asked_path(scope: Scope, under: str) -> str:
    """The path that a proxy puts after `/check`, as the client sent it; empty where it tells it in a header."""
    path, raw = scope["path"][len(under) :], scope.get("raw_path")
    if raw is not None and raw.startswith(under.encode()):
        return asgi_target(path, raw[len(under) :]) if path else ""
    return asgi_target(path, None) if path else ""


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def wanted_label(body: bytes) -> dict[str, Any]:
    """Key, word, duration and reason of the label that a body asks for; ValueError if it does not."""
    meant = wanted_ban(body)
    word = json.loads(body).get("word")
    if not isinstance(word, str):
        raise ValueError('the body has no word; write {"key": "203.0.113.7", "word": "captcha", "duration": "1h"}')
    meant.pop("wide", None)
    return meant | {"word": word}


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


def plain(status: int, text: str) -> HttpResponse:
    body = text.encode() + b"\n"
    return HttpResponse(status, [(b"content-type", b"text/plain; charset=utf-8"), length(body)], body)


def answer_json(status: int, value: Any) -> HttpResponse:
    body = json.dumps(value, default=str).encode()
    return HttpResponse(
        status, [(b"content-type", b"application/json"), length(body), (b"cache-control", b"no-store")], body
    )


def listed(stored: Any, names: tuple[str, ...] = LISTED) -> dict[str, Any]:
    """A Ban or Label as JSON members."""
    return {name: getattr(stored, name) for name in names}
