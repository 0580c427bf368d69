"""Sessions and users through HTTP frontends: cookies, queries, headers of trusted peers; Vary; and never in a log."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi, wsgi
from gobanfast.frontends.authz import DecisionService
from gobanfast.frontends.http import Exchange, HttpGuard
from gobanfast.frontends.trust import Trust
from gobanfast.telemetry.log import DecisionLog
from gobanfast.telemetry.replay import replay

RULES = """
trust: [10.0.0.1]
session: {cookie: sid, query: ticket, uid: x-user}
rules:
- {id: out, when: {label: revoked, not: {path: /login}}, action: ban}
share:
- {id: feed, when: {path: /feed, origin: "https://app.example.com", not: {label: hidden}}, action: grant}
"""
PROXY, CLIENT = "10.0.0.1", "203.0.113.9"


def engine() -> Engine:
    return Engine(Ruleset.from_text(RULES))


def ask_asgi(
    made: Engine, path: str, headers: list[tuple[bytes, bytes]], *, query: bytes = b"", peer: str = CLIENT
) -> tuple[int, dict[str, str]]:  # fmt: skip
    """(status, headers) of one request."""
    sent: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query,
        "scheme": "http", "headers": headers, "client": (peer, 1), "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    asyncio.run(asgi.Gobanfast(application, made)(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def ask_wsgi(made: Engine, path: str, cookie: str = "", query: str = "") -> str:
    """Status of one request."""
    told: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": query, "REMOTE_ADDR": CLIENT,
        "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "SERVER_NAME": "a",
        "SERVER_PORT": "80", **({"HTTP_COOKIE": cookie} if cookie else {}),
    }  # fmt: skip

    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b""]

    list(wsgi.Gobanfast(application, made)(environ, lambda status, *_: told.append(status)))
    return told[0]


def test_a_revoked_cookie_is_refused_until_it_logs_in() -> None:
    """Under ASGI and WSGI, at the next request; another session, and the login page, are not."""
    made = engine()
    cookie = [(b"cookie", b"theme=dark; sid=abc")]
    assert 200 == ask_asgi(made, "/", cookie)[0]
    made.revoke_session("abc")

    assert [403, 200, 200] == [
        ask_asgi(made, path, headers)[0]
        for path, headers in (("/", cookie), ("/login", cookie), ("/", [(b"cookie", b"sid=x")]))
    ]
    assert ["403", "200", "200"] == [
        ask_wsgi(made, path, cookie)[:3] for path, cookie in (("/", "sid=abc"), ("/login", "sid=abc"), ("/", "sid=x"))
    ]
    both = [(b"cookie", b"sid=new"), (b"cookie", b"sid=abc")]
    assert 403 == ask_asgi(made, "/", both)[0]  # whichever the server takes


def test_a_ticket_in_the_query_is_a_session() -> None:
    """Of EventSource, which can send no header; a cookie is asked first."""
    made = engine()
    made.revoke_session("t/1")

    assert [403, 403, 200, 200] == [
        ask_asgi(made, "/events", headers, query=query)[0]
        for headers, query in (
            ([], b"ticket=t/1"), ([], b"x=1&ticket=t%2F1"), ([], b"ticket=t2"),
            ([(b"cookie", b"sid=a")], b"ticket=t/1"),
        )
    ]  # fmt: skip
    assert ["403", "200"] == [ask_wsgi(made, "/", query=query)[:3] for query in ("ticket=t%2F1", "ticket=t2")]


def test_only_a_trusted_peer_says_who_is_logged_in() -> None:
    """The header of `uid:` counts where the peer is in trust, and is nobody's word elsewhere."""
    made = engine()
    made.ban("uid:42")
    user = [(b"x-user", b"42"), (b"x-forwarded-for", CLIENT.encode())]

    assert [403, 200, 200] == [
        ask_asgi(made, "/", user, peer=PROXY)[0],
        ask_asgi(made, "/", user, peer=CLIENT)[0],
        ask_asgi(made, "/", [(b"x-user", b"43"), *user[1:]], peer=PROXY)[0],
    ]
    made.unban("uid:42")
    made.label("uid:42", "revoked")
    assert [403, 200] == [ask_asgi(made, "/", user, peer=peer)[0] for peer in (PROXY, CLIENT)]


def test_vary_names_the_headers_of_a_session() -> None:
    """Where it could have changed what is shared, with and without an Origin, and on refusals."""
    made = engine()
    origin = (b"origin", b"https://app.example.com")
    for headers in ([origin], []):
        assert "Origin, Cookie" == ask_asgi(made, "/feed", headers)[1]["vary"]
    assert "https://app.example.com" == ask_asgi(made, "/feed", [origin])[1]["access-control-allow-origin"]
    made.label(CLIENT, "hidden")
    hidden = ask_asgi(made, "/feed", [origin])[1]
    assert ("Origin, Cookie", None) == (hidden["vary"], hidden.get("access-control-allow-origin"))
    assert "vary" not in ask_asgi(made, "/", [origin])[1]


def test_the_decision_service_reads_what_proxies_tell() -> None:
    """Cookie, query of the told target, and user."""
    made = engine()
    made.revoke_session("abc")
    service = DecisionService(made, trust=Trust(["10.0.0.0/8"]))

    def check(path: str, query: bytes = b"", **headers: str) -> int:
        sent: list[Any] = []
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http", "method": "GET", "path": path, "headers": [(b"x-forwarded-for", CLIENT.encode()), *pairs],
            "client": (PROXY, 1), "scheme": "http", "query_string": query,
        }  # fmt: skip

        async def run() -> None:
            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b""}

            async def send(message: Any) -> None:
                sent.append(message)

            await service(scope, receive, send)

        asyncio.run(run())
        return int(sent[0]["status"])

    assert 200 == check("/check", x_forwarded_uri="/x", cookie="sid=a")
    assert 403 == check("/check", x_forwarded_uri="/x", cookie="sid=abc")
    assert 403 == check("/check", x_forwarded_uri="/x?ticket=abc")
    assert 200 == check("/check", x_forwarded_uri="/login?ticket=abc")
    assert 403 == check("/check/x", b"ticket=abc")
    made.label("uid:7", "revoked")
    assert [403, 200] == [check("/check", x_forwarded_uri="/x", x_user=user) for user in ("7", "8")]


class Lines:
    """A sink that keeps lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, lines: list[bytes]) -> None:
        self.lines += lines

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("where", ["cookie", "query", "referer"])
def test_the_value_reaches_no_log(where: str) -> None:
    """Neither as a cookie, nor in a path, nor in the Referer of what a page asks for next; the key does."""
    made = engine()
    made.revoke_session("s3cr3t")
    kept = Lines()
    log = DecisionLog(kept)
    headers = {
        "cookie": [(b"cookie", b"sid=s3cr3t")], "query": [],
        "referer": [(b"referer", b"https://app.example.com/events?ticket=s3cr3t"), (b"cookie", b"sid=s3cr3t")],
    }[where]  # fmt: skip
    exchange = Exchange(
        HttpGuard(made, log=log), headers, peer=CLIENT, method="GET", path="/x", mount="", http="1.1", scheme="http",
        handshake=None, mode="enforce", query=b"ticket=s3cr3t" if where == "query" else b"",
    )  # fmt: skip
    denial = exchange.begin()
    decision = exchange.decision
    exchange.finish(403)
    log.close()
    told = json.dumps(decision.to_dict())

    assert denial is not None
    assert 403 == denial.status
    assert made.session_key("s3cr3t") == decision.session == json.loads(told)["session"]
    assert ["revoked"] == json.loads(told)["labels"]
    (line,) = map(json.loads, kept.lines)
    assert (["revoked"], decision.session) == (line["labels"], line["session"])
    again = replay(line, made.ruleset)
    assert ({}, "ban", "out") == (again.differences, again.decision.action, again.decision.rule)
    assert ("that it carried revoked is taken from the log",) == again.notes
    assert "s3cr3t" not in told + str(line) + made.explain(decision) + repr(decision) + denial.body.decode()
