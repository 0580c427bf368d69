"""Open event streams and WebSockets of this process: how many there are, and their end before a restart."""

from __future__ import annotations

import asyncio
import signal
from contextvars import Context
from types import FrameType
from typing import Any

from gobanfast.frontends.http.leases import close_all, open_streams

__all__ = ["close_all", "close_on", "open_streams"]


def close_on(number: int = signal.SIGTERM, *, retry: float = 5.0) -> None:
    """Has all streams of the running loop end when a signal comes, before what else it does: a server that waits for
    them, as uvicorn, stops at once, and EventSources come back after `retry` seconds, a half more or less.

    Call it where the loop runs, in the main thread, once the server has its own handlers: in lifespan's startup.
    """
    loop, before = asyncio.get_running_loop(), signal.getsignal(number)
    closing: set[asyncio.Task[int]] = set()

    def closed(task: asyncio.Task[int]) -> None:
        closing.discard(task)
        if before is signal.SIG_DFL:  # nobody has a handler: the process ends, as it would without ours
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def close() -> None:
        task = loop.create_task(close_all(retry=retry))
        closing.add(task)
        task.add_done_callback(closed)

    def handle(received: int, frame: FrameType | None) -> Any:
        loop.call_soon_threadsafe(close, context=Context())  # not that of the request which the signal interrupts
        if callable(before):
            before(received, frame)

    signal.signal(number, handle)
