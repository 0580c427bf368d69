"""The preset `mcp` in front of a real server of the MCP SDK: sessions begin, and other hosts and pages do not."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.rules.presets import preset_text
from servers import WAIT, in_thread, listening, uvicorn_on

pytest.importorskip("mcp.server.mcpserver", reason="the MCP SDK 2 is not installed")
pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

import httpx
import uvicorn
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

OWN_CHECK_OFF = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # so that what refuses is ours
ASKED = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}  # fmt: skip


def application(transport: str) -> Any:
    """An MCP server with one tool."""
    server = MCPServer("tools")

    @server.tool()
    def add(first: int, second: int) -> int:
        return first + second

    if transport == "sse":
        return server.sse_app(transport_security=OWN_CHECK_OFF)
    return server.streamable_http_app(transport_security=OWN_CHECK_OFF)


@contextmanager
def served(transport: str, *, guarded: bool = True) -> Iterator[str]:
    """The address of a server behind the preset, as `gobanfast init` writes it, or without it."""
    app = application(transport)
    if guarded:
        app = Gobanfast(app, engine=Engine(Ruleset.from_text(preset_text("mcp"))))
    sock = listening()
    config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    with in_thread(uvicorn_on(config, sock)):
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


def asked(url: str, transport: str, host: str | None = None, origin: str | None = None) -> Any:
    """The start of the answer to the first request of a client."""
    headers = ASKED | ({"host": host} if host else {}) | ({"origin": origin} if origin else {})
    with httpx.Client(timeout=WAIT, trust_env=False) as client:
        if transport == "sse":  # the stream has no end: its start is the answer
            with client.stream("GET", f"{url}/sse", headers=headers) as answer:
                return answer
        return client.post(f"{url}/mcp", headers=headers, content=json.dumps(INITIALIZE))


def use(client: Client) -> int:
    """What the tool says after a whole session: initialize, list, call."""

    async def session() -> int:
        async with asyncio.timeout(WAIT), client as connected:
            assert ["add"] == [tool.name for tool in (await connected.list_tools()).tools]
            found = await connected.call_tool("add", {"first": 2, "second": 3})
            return int(found.content[0].text)  # type: ignore[union-attr]

    return asyncio.run(session())


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_session_of_streamable_http_passes(mode: Any) -> None:
    """The SDK's own client, which sends no Origin, through the middleware."""
    with served("http") as url:
        assert 5 == use(Client(f"{url}/mcp", mode=mode))


def test_a_session_of_sse_passes() -> None:
    """The older transport: a stream that stays open, and messages beside it."""
    with served("sse") as url:
        assert 5 == use(Client(sse_client(f"{url}/sse"), mode="legacy"))


@pytest.mark.parametrize("transport", ["http", "sse"])
def test_hosts_and_pages_are_guarded(transport: str) -> None:
    """Own names at any port and own pages pass; a rebound host is 421, another page 403, before the SDK is asked."""
    with served(transport) as url:
        assert [200] * 5 == [
            asked(url, transport, host, origin).status_code
            for host, origin in (
                (None, None),
                ("localhost:49152", None),
                ("[::1]:8000", None),
                ("mcp-server:8000", None),  # as other containers call it
                (None, "http://localhost:6274"),  # MCP Inspector
            )
        ]
        assert [421] * 3 == [
            asked(url, transport, host, origin).status_code
            for host, origin in (
                ("evil.example", None),
                ("evil.example:8000", "http://evil.example:8000"),
                ("0.0.0.0:8000", None),
            )
        ]
        assert [403] * 3 == [
            asked(url, transport, None, origin).status_code
            for origin in ("https://evil.example", "http://localhost:6274@evil.example", "null")
        ]


@pytest.mark.parametrize("transport", ["http", "sse"])
def test_the_server_alone_lets_them_in(transport: str) -> None:
    """Without the middleware, and without the SDK's own check, a rebound host and another page begin a session."""
    with served(transport, guarded=False) as url:
        assert 200 == asked(url, transport, "evil.example:8000", "http://evil.example:8000").status_code


def test_a_page_may_read_its_session() -> None:
    """A listed page reads the session's id and, asked first, may send its headers; another page may not."""
    with served("http") as url, httpx.Client(timeout=WAIT, trust_env=False) as client:
        answer = asked(url, "http", None, "http://localhost:6274")
        asks = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,mcp-protocol-version,mcp-session-id",
        }
        first = client.options(f"{url}/mcp", headers={**asks, "origin": "http://localhost:6274"})
        foreign = client.options(f"{url}/mcp", headers={**asks, "origin": "https://evil.example"})

    assert "http://localhost:6274" == answer.headers["access-control-allow-origin"]
    assert "mcp-session-id" in answer.headers["access-control-expose-headers"]
    assert answer.headers["mcp-session-id"]
    assert (204, "http://localhost:6274") == (first.status_code, first.headers["access-control-allow-origin"])
    assert 403 == foreign.status_code
    assert "access-control-allow-origin" not in foreign.headers


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """A WebSocket server that accepts whoever asks."""
    assert "websocket" == scope["type"]
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "hello"})
    await send({"type": "websocket.close"})


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (None, None, 101),  # no browser
        (None, "http://localhost:6274", 101),
        ("mcp-server:8000", None, 101),
        (None, "https://evil.example", 403),
        ("evil.example:8000", "http://evil.example:8000", 421),
    ],
)
def test_a_websocket_is_guarded_as_the_rest(host: str | None, origin: str | None, status: int) -> None:
    """Before it is accepted: a page that is not listed, and a rebound host, get no socket."""
    client = pytest.importorskip("websockets.sync.client")
    exceptions = pytest.importorskip("websockets.exceptions")
    app = Gobanfast(echo, engine=Engine(Ruleset.from_text(preset_text("mcp"))))
    sock = listening()
    config = uvicorn.Config(app, log_level="error", lifespan="off", ws="websockets-sansio")
    port = sock.getsockname()[1]
    with in_thread(uvicorn_on(config, sock)), socket.create_connection(("127.0.0.1", port), WAIT) as connection:
        try:
            with client.connect(f"ws://{host or f'127.0.0.1:{port}'}/ws", sock=connection, origin=origin) as opened:
                found = 101 if opened.recv(WAIT) == "hello" else 0
        except exceptions.InvalidStatus as refused:
            found = refused.response.status_code
    assert status == found
