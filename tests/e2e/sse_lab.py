"""Lab server for CORS and event streams (ASGI): a query says what the answer is, a log keeps every request.

`/case/<name>?...` and `/race/<name>?...` are answered as their queries say; other paths are pages that a test put
there, and `/report` takes what a page found. Facts are asserted from the log, which may also be a file of JSON lines:
a browser's page cannot see its own preflights.

Keys of a case. `status`, `mime` (`-` for none), `h=name:value` (repeatable): the answer to everything. `echo=1`: its
Access-Control-Allow-Origin is the request's Origin. `g`, `d`, `p` are as `h`, for GET, HEAD and OPTIONS alone.
`head=405` and `head=hang`; `pstatus`: status of OPTIONS. `body=endless`; `resume=1`: a stream that ends after event 7,
and is a 204 to whoever resumes.

Keys of a race, a stream of numbered events that goes on behind the Last-Event-ID it is asked with, and is a 204 behind
the last: `chunks`, how many; `pad`, bytes more in each; `delay` and `jitter`, milliseconds between them, in at most
`pauses` places; `split`, bytes of a send (0: one event each; `all`: all in one); `drop_after`, how many events until
the connection breaks, in the middle of the next; `body` and `cut`, base64 of a stream in the place of the events, sent
in two parts. `cors=wildcard|origin|none`, `creds=1`, `dup_acao=1`, `status`, `mime`, `redirect=URL`, `retry`.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from base64 import b64decode
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import parse_qs

from gobanfast.sse import encode
from servers import in_thread, listening, uvicorn_on

EVENT = b"id: 7\ndata: 1\n\n"


class Request(NamedTuple):
    """One request as the server got it."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    port: int

    def line(self, query):
        """The same as a JSON line."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers.items()}
        fields = {"method": self.method, "path": self.path, "query": query.decode("latin-1"), "port": self.port}
        return json.dumps({**fields, "headers": headers}) + "\n"


class BrokenError(Exception):
    """Breaks the connection: a server has nothing else to do with an error behind the start."""


class Lab:
    """ASGI application, its log, its pages, and the last report."""

    def __init__(self, log_file=None):
        self.log: list[Request] = []
        self.log_file = log_file
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
        if self.log_file is not None:
            with self.log_file.open("a") as file:
                file.write(self.log[-1].line(scope["query_string"]))
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
        elif path.startswith("/race/"):
            query = parse_qs(scope["query_string"].decode("latin-1"))
            await race({key: values[0] for key, values in query.items()}, method, headers, send)
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


async def race(query, method, headers, send):
    """Answers a request for a race."""
    pairs = cors_lines(query, headers.get(b"origin", b""))
    if method == "OPTIONS":
        await answer(send, 204, [*pairs, (b"access-control-allow-headers", b"last-event-id")])
        return
    if "redirect" in query:
        await answer(send, 302, [*pairs, (b"location", query["redirect"].encode("latin-1"))])
        return
    last = headers.get(b"last-event-id", b"")
    if last == query.get("chunks", "3").encode():
        await answer(send, 204, pairs)
        return
    pairs += [(b"content-type", query.get("mime", "text/event-stream").encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": int(query.get("status", 200)), "headers": pairs})
    for part, pause in race_parts(query, last):
        if part:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if pause is not None:
            await asyncio.sleep(pause)
    await send({"type": "http.response.body", "body": b""})


def cors_lines(query, origin):
    """Response headers that let a page of another origin read, or do not."""
    value = {"wildcard": b"*", "origin": origin, "none": None}[query.get("cors", "origin")]
    pairs = [] if value is None else [(b"access-control-allow-origin", value)]
    return pairs * (1 + ("dup_acao" in query)) + [(b"access-control-allow-credentials", b"true")] * ("creds" in query)


def race_parts(query, last):
    """(bytes of a send, seconds to wait behind it or None), in order; a BrokenError where it is to break."""
    if "body" in query:
        body, cut = b64decode(query["body"].replace(" ", "+")), int(query["cut"])
        yield body[:cut], 0.003
        yield body[cut:], None
        return
    chunks, delay, jitter, most, drop_after = (int(query.get(key, default)) for key, default in (
        ("chunks", 3), ("delay", 0), ("jitter", 0), ("pauses", 100), ("drop_after", 0)))  # fmt: skip
    first = int(last) + 1 if last.isdigit() else 1
    breaks = 0 < drop_after <= chunks - first
    end = first + drop_after if breaks else chunks + 1
    split, every, draw = query.get("split", "0"), max(1, chunks // most), random.Random(0)
    waiting = encode(retry=int(query["retry"])) if "retry" in query else b""
    for number in range(first, end):
        waiting += numbered(number, query)
        if split == "all":
            continue
        step = int(split) or len(waiting)
        while len(waiting) >= step:
            part, waiting = waiting[:step], waiting[step:]
            yield part, None
        if (delay or jitter) and number % every == 0:
            yield b"", (delay + draw.uniform(0, jitter)) / 1000
    yield waiting + (numbered(end, query)[:-3] if breaks else b""), None
    if breaks:
        raise BrokenError


def numbered(number, query):
    """One event of a race."""
    return encode(f"{number}" + " " * int(query.get("pad", 0)), id=number)


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
def running(log_file=None):
    """A lab that listens on a port of this machine, and the port."""
    import uvicorn

    lab, sock = Lab(log_file), listening()
    config = uvicorn.Config(lab, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
    with in_thread(uvicorn_on(config, sock)):
        yield lab, sock.getsockname()[1]
