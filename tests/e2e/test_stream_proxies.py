"""An event stream through nginx, which compresses it: each event is there before the next one is made."""

from __future__ import annotations

import asyncio
import http.client
import zlib

import pytest

from gobanfast.sse import HEADERS, encode
from servers import WAIT, in_thread, listening, uvicorn_on
from test_proxy_chains import own_nginx

uvicorn = pytest.importorskip("uvicorn")

#: nginx passes over no-transform, and its gzip keeps what is no block yet, unless the application says not to.
NGINX = """
server {
    listen 127.0.0.1:PORT;
    location / { gzip on; gzip_types text/event-stream; gzip_proxied any; proxy_pass http://127.0.0.1:APPLICATION; }
}
"""


class Stream:
    """ASGI application: a stream that goes on when it is told to."""

    def __init__(self):
        self.next = None

    async def __call__(self, scope, receive, send):
        if scope["path"] == "/next":
            self.next.set()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        for number in range(3):
            self.next = asyncio.Event()
            await send({"type": "http.response.body", "body": encode(f"{number}"), "more_body": True})
            await self.next.wait()
        await send({"type": "http.response.body", "body": b""})


def test_nginx_hands_on_each_event(tmp_path):
    """The stream is compressed, and the header that says so to nginx does not reach the client."""
    sock = listening()
    port = sock.getsockname()[1]
    config = uvicorn.Config(Stream(), lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
    with in_thread(uvicorn_on(config, sock)), own_nginx(tmp_path / "nginx", NGINX, port) as proxy:
        client = http.client.HTTPConnection("127.0.0.1", proxy, timeout=3 * WAIT)
        client.request("GET", "/", headers={"accept-encoding": "gzip"})
        answer = client.getresponse()
        assert ("gzip", None) == (answer.headers["content-encoding"], answer.headers["x-accel-buffering"])
        opened = zlib.decompressobj(16 + zlib.MAX_WBITS)
        for number in range(3):
            text = b""
            while text != encode(f"{number}"):
                part = answer.read1()
                assert part, text
                text += opened.decompress(part)
            told = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
            told.request("GET", "/next")
            assert 204 == told.getresponse().status
            told.close()
        assert b"" == opened.decompress(answer.read())
        client.close()
