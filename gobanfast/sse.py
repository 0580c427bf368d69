"""Server-sent events: the encoder, the response headers, and heartbeats. `docs/streams.md` shows them in frameworks.

async def events():
    yield encode("hello", id=1)

StreamingResponse(with_heartbeats(events()), headers=dict(TEXT_HEADERS))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gobanfast._core.sse import encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

__all__ = ["HEADERS", "HEARTBEAT", "TEXT_HEADERS", "encode", "with_heartbeats"]

HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
)
"""Response headers of a stream, as ASGI has them: not stored, not transformed, not held back by nginx.
`connection` is not among them: HTTP/2 and 3 forbid it, and HTTP/1.1 keeps connections anyway."""

TEXT_HEADERS = tuple((name.decode(), value.decode()) for name, value in HEADERS)
"""The same as text, for WSGI and for responses of frameworks."""

HEARTBEAT = b":\n\n"
"""A comment: clients pass over it, proxies see a connection in use."""


def with_heartbeats(events: AsyncIterable[bytes], every: float = 15.0) -> AsyncIterator[bytes]:
    """What `events` yields, and a heartbeat whenever that is nothing for `every` seconds (asyncio).

    Proxies cut connections that are idle for a minute or so, and a server learns that a client is gone when it writes.
    `events` runs in tasks of its own, each item in one; it is closed with the stream.
    """
    if not every > 0:
        raise ValueError(f"every={every!r} is not a number of seconds above 0")
    return _with_heartbeats(events, every)


async def _with_heartbeats(events: AsyncIterable[bytes], every: float) -> AsyncIterator[bytes]:
    import asyncio

    source = aiter(events)
    item: asyncio.Future[bytes] | None = None
    try:
        while True:
            item = asyncio.ensure_future(anext(source))
            while not (await asyncio.wait({item}, timeout=every))[0]:
                yield HEARTBEAT
            try:
                made = item.result()
            except StopAsyncIteration:
                return
            yield made
    finally:
        if item is not None:
            item.cancel()
            await asyncio.wait({item})
            if not item.cancelled():
                item.exception()  # what ends with the stream is nobody's to handle
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
