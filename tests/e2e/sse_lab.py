"""Lab server for CORS and event streams (ASGI): a query says what the answer is, a log keeps every request.

`/case/<name>?...` is answered as its query says; other paths are pages that a test put there, and `/report` takes what
a page found. Facts are asserted from the log: a browser's page cannot see its own preflights.

Keys of the query. `status`, `mime` (`-` for none), `h=name:value` (repeatable): the answer to everything. `echo=1`: its
Access-Control-Allow-Origin is the request's Origin. `g`, `d`, `p` are as `h`, for GET, HEAD and OPTIONS alone.
`head=405` and `head=hang`; `pstatus`: status of OPTIONS. `body=endless`; `resume=1`: a stream that ends after event 7,
and is a 204 to whoever resumes.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import parse_qs

from servers import in_thread, listening, uvicorn_on

EVENT = b"id: 7\ndata: 1\n\n"


class Request(NamedTuple):
    """One request as the server got it."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    port: int


class Lab:
    """ASGI application, its log, its pages, and the last report."""

    def __init__(self):
        self.log: list[Request] = []
        self.pages: dict[str, str] = {}
        self.report = None
        self.reported = threading.Event()

    def asked(self, path, method=None):
        """Requests for a path, in order."""
        return [it for it in self.log if it.path == path and method in {None, it.method}]

    async def __call__(self, scope, receive, send):
        assert scope["type"] == "http"
        path, method = scope["path"], scope["method"]
        headers = {bytes(name): bytes(value) for name, value in scope["headers"]}
        self.log.append(Request(method, path, headers, scope["client"][1]))
        if path == "/report":
            body = b""
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            self.report = json.loads(body)
            await answer(send, 204, [])
            self.reported.set()
        elif path in self.pages:
            await answer(send, 200, [(b"content-type", b"text/html")], self.pages[path].encode())
        elif path.startswith("/case/"):
            await self.case(parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True), method, headers,
                            receive, send)  # fmt: skip
        else:
            await answer(send, 404, [])

    async def case(self, query, method, headers, receive, send):
        def one(name, default):
            return query.get(name, [default])[0]

        lines = query.get("h", []) + query.get({"GET": "g", "HEAD": "d", "OPTIONS": "p"}.get(method, "g"), [])
        pairs = [tuple(part.encode("latin-1") for part in line.split(":", 1)) for line in lines]
        if "echo" in query and b"origin" in headers:
            pairs.append((b"access-control-allow-origin", headers[b"origin"]))
        status = int(one("status", "200"))
        if method == "OPTIONS":
            await answer(send, int(one("pstatus", "204")), pairs)
            return
        if method == "HEAD" and one("head", "") == "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        if method == "HEAD" and one("head", "") == "405":
            await answer(send, 405, [])
            return
        if "resume" in query and b"last-event-id" in headers:
            status = 204
        mime = one("mime", "text/event-stream")
        if mime != "-" and status != 204:
            pairs.append((b"content-type", mime.encode()))
        if status == 204 or method == "HEAD":
            await answer(send, status, pairs)
        elif one("body", "") == "endless":
            await endless(send, receive, status, pairs)
        else:
            await answer(send, status, pairs, b"retry: 200\n" * ("resume" in query) + EVENT)


async def answer(send, status, pairs, body=b""):
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


async def endless(send, receive, status, pairs):
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    gone = asyncio.ensure_future(disconnected(receive))
    while not gone.done():
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        await asyncio.wait([gone], timeout=0.05)


async def disconnected(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


@contextmanager
def running():
    """A lab that listens on a port of this machine, and the port."""
    import uvicorn

    lab, sock = Lab(), listening()
    config = uvicorn.Config(lab, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
    with in_thread(uvicorn_on(config, sock)):
        yield lab, sock.getsockname()[1]
