"""Leases of open streams and WebSockets, which end when their request would not be let in any more.

A stream is decided again before each of its events, when a ban, a label or the rules have changed since (one comparison
else), and every 15 seconds without events, by one timer for all streams of a loop. There is no task for a stream.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import Context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from gobanfast._core.exchange import Exchange

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

TICK = 15.0  # seconds without events after which a stream is decided again
BATCH = 500  # streams that are decided again before others run
POLICY, RESTART = 1008, 1012  # codes of RFC 6455, section 7.4, and its registry


class Lease:
    """One open stream of an ASGI server, for as long as its `send` is somebody's; `open_lease` makes it.

    Attributes:
        exchange: its Exchange, whose `holds` says whether it may go on.
        ended: whether its end was sent: what the application sends from then on goes nowhere.
        between: whether the client is between two events, not in the middle of one.
    """

    __slots__ = ("__weakref__", "_send", "between", "ended", "exchange")

    def __init__(self, send: Send, exchange: Exchange) -> None:
        self._send, self.exchange, self.ended, self.between = send, exchange, False, True

    async def end(self, *, last: bytes = b"", code: int = POLICY) -> None:
        """Ends the stream, once, with `last` in front of its end, or a WebSocket with `code`.

        ASGI cannot abort a connection: the server tells the application that the client is gone.
        """
        if self.ended:
            await asyncio.sleep(0)  # an application that sends and sends must not keep others from running
            return
        self.ended = True
        try:
            if self.exchange.is_websocket:
                await self._send({"type": "websocket.close", "code": code, "reason": ""})
            else:
                last = last if self.between else b""  # it would become part of the event that is cut short
                await self._send({"type": "http.response.body", "body": last, "more_body": False})
        finally:
            self.exchange.finish()


class Leases:
    """The leases of one event loop, the one that runs, and its timer."""

    def __init__(self) -> None:
        self.open = WeakSet[Lease]()
        self._ending: set[asyncio.Task[None]] = set()
        self._ticks = False

    def add(self, lease: Lease) -> None:
        """Looks after a lease from now on."""
        self.open.add(lease)
        if not self._ticks:
            self._ticks = True
            self._tick(asyncio.get_running_loop())

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(TICK, self.look, context=Context())  # the first stream's would be there for good

    def end(self, lease: Lease, *, last: bytes = b"", code: int = POLICY) -> asyncio.Task[None]:
        """Ends a stream whose application is not sending."""
        task = asyncio.get_running_loop().create_task(lease.end(last=last, code=code))
        self._ending.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled():
            task.exception()  # the client is gone: nobody is left to tell

    def look(self, left: list[Lease] | None = None) -> None:
        """Decides streams again, some at a time, so that others run between."""
        loop = asyncio.get_running_loop()
        left = [lease for lease in self.open if not lease.ended] if left is None else left
        for lease in left[:BATCH]:
            if not lease.ended and not lease.exchange.holds():
                self.end(lease)
        if len(left) > BATCH:
            loop.call_soon(self.look, left[BATCH:])
            return
        self._ticks = bool(left)
        if left:
            self._tick(loop)


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Leases] = WeakKeyDictionary()


def leases_of(loop: asyncio.AbstractEventLoop) -> Leases:
    """The leases of a loop."""
    found = _by_loop.get(loop)
    if found is None:
        found = _by_loop[loop] = Leases()
    return found


def open_lease(send: Send, exchange: Exchange) -> Lease:
    """The lease of a stream that starts in the running loop."""
    lease = Lease(send, exchange)
    leases_of(asyncio.get_running_loop()).add(lease)
    return lease


def open_streams() -> int:
    """How many event streams and WebSockets are open in this process."""
    return sum(not lease.ended for leases in list(_by_loop.values()) for lease in list(leases.open))


async def close_all(*, retry: float = 5.0) -> int:
    """Ends all event streams and WebSockets of the running loop, as before a restart; how many there were.

    EventSources are told to come back after `retry` seconds, each a half more or less, so that they do not come at
    once; WebSockets get code 1012. A server that waits for open streams, as uvicorn does, can stop then.
    """
    leases = leases_of(asyncio.get_running_loop())
    closing = [leases.end(lease, last=goodbye(retry), code=RESTART) for lease in list(leases.open) if not lease.ended]
    await asyncio.gather(*closing, return_exceptions=True)
    return len(closing)


def goodbye(retry: float) -> bytes:
    """The line that tells an EventSource when to come back: milliseconds, a half more or less."""
    return b"retry: %d\n\n" % int(1000 * retry * random.uniform(0.5, 1.5))
