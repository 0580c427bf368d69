"""Open streams on real servers: a ban ends them, the application hears of it, and a restart tells all to come back."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from contextlib import ExitStack
from importlib.util import find_spec

import pytest

from servers import WAIT
from test_http_servers import free_port, python, spawned

ASGI = {
    "uvicorn": ["uvicorn", "lease_app:asgi", "--port", "{}"],
    "hypercorn": ["hypercorn", "lease_app:asgi", "--bind", "127.0.0.1:{}"],
    "granian": ["granian", "--interface", "asgi", "--port", "{}", "lease_app:asgi"],
}
WSGI = {"gunicorn": ["gunicorn", "-k", "gthread", "--threads", "8", "lease_app:wsgi", "--bind", "127.0.0.1:{}"]}
SERVERS = {**ASGI, **WSGI}


def connected(port: int, path: str, *, upgrade: bool = False, source: str = "127.0.0.5") -> socket.socket:
    """A client that asks for a stream or a socket, its answer begun."""
    client = socket.create_connection(("127.0.0.1", port), timeout=3 * WAIT, source_address=(source, 0))
    lines = [f"GET {path} HTTP/1.1", "Host: x", "Accept: text/event-stream"]
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]  # fmt: skip
    client.sendall("\r\n".join([*lines, "", ""]).encode())
    wanted, found = (b"hello" if upgrade else b"data:"), b""
    while wanted not in found:
        part = client.recv(4096)
        assert part, found
        found += part
    return client


def rest(client: socket.socket) -> bytes:
    """What comes until the other end closes, or says that the answer is over."""
    found = b""
    while part := client.recv(4096):
        found += part
        if found.endswith(b"0\r\n\r\n"):
            break
    return found


def asked(port: int, path: str) -> dict[str, int]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=3 * WAIT)
    client.request("GET", path)
    answer = json.loads(client.getresponse().read())
    client.close()
    return answer


def until(port: int, name: str, value: int) -> dict[str, int]:
    stop = time.monotonic() + 3 * WAIT
    while (found := asked(port, "/seen"))[name] != value and time.monotonic() < stop:
        time.sleep(0.05)
    return found


def started(name: str, port: int, monkeypatch: pytest.MonkeyPatch, **environ: str):
    command = SERVERS[name]
    if find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    return spawned(*python("-m", *(part.format(port) for part in command)), port=port)


@pytest.mark.parametrize("name", SERVERS)
def test_a_ban_ends_what_is_open(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The banned client's stream ends, another's goes on; the application hears that its client is gone."""
    port = free_port()
    with (
        started(name, port, monkeypatch),
        connected(port, "/events") as banned,
        connected(port, "/events", source="127.0.0.6") as other,
    ):
        asked(port, "/ban")
        rest(banned)
        assert other.recv(64)
        assert 1 == until(port, "gone", 1)["gone"]


@pytest.mark.parametrize("name", ASGI)
def test_what_is_silent_ends_within_a_tick(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with started(name, port, monkeypatch, LAB_TICK="0.2"):
        with connected(port, "/silent") as silent, connected(port, "/socket", upgrade=True) as opened:
            asked(port, "/ban")
            rest(silent)
            closing = opened.recv(64)
            assert (0x88, 1008) == (closing[0], int.from_bytes(closing[2:4], "big"))
        assert 2 == until(port, "gone", 2)["gone"]
        assert 0 == until(port, "open", 0)["open"]


def test_a_restart_tells_all_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM: uvicorn waits for open streams, which end at once, each with a time of its own to come back."""
    port = free_port()
    with started("uvicorn", port, monkeypatch, LAB_CLOSE="1") as process, ExitStack() as stack:
        clients = [stack.enter_context(connected(port, "/silent")) for _ in range(30)]
        os.kill(process.pid, signal.SIGTERM)
        told = [rest(client).split(b"retry: ")[1].split(b"\n")[0] for client in clients]
        assert all(1000 <= int(wait) <= 3000 for wait in told)
        assert len(set(told)) > 15
        process.wait(3 * WAIT)
