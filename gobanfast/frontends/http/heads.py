"""Ends of HEAD requests on event streams: the answer is the headers, however long the stream of a GET would be.

An application that answers HEAD with the body of its GET, which servers drop, would hold such a stream open for as long
as it has events: a connection, a task or a thread for an answer that the client already has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
AsgiApp = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
                   Awaitable[None]]  # fmt: skip
WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

STREAM = "text/event-stream"


def is_stream(headers: Iterable[tuple[Any, Any]]) -> bool:
    """Whether response headers, text or bytes, say that an event stream follows."""
    for name, value in headers:
        key, said = (part.decode("latin-1") if isinstance(part, bytes) else str(part) for part in (name, value))
        if key.lower() == "content-type":
            return said.partition(";")[0].strip().lower() == STREAM
    return False


class GoneError(OSError):
    """Raised in an application that sends on after its stream has ended, as servers do when a client is gone."""


def asgi_head(app: AsgiApp) -> AsgiApp:
    """The application, for HEAD requests: at the headers of a stream it is cancelled, as by a server that stops."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        task = running_task()
        before = 0 if task is None else task.cancelling()
        head = HeadSend(send, task)
        try:
            await app(scope, receive, head)
        except asyncio.CancelledError:
            if task is None or not head.ended or task.cancelling() > before + 1:
                raise  # somebody else cancels
        except Exception:
            if not head.ended:
                raise  # behind the end it is what frameworks make of a GoneError
        finally:
            if task is not None and head.ended and task.cancelling() > before:
                task.uncancel()

    return answer


class HeadSend:
    """An ASGI `send` that ends a response at the headers of a stream, and cancels the task that made it."""

    def __init__(self, send: Callable[[Message], Awaitable[None]], task: asyncio.Task[Any] | None) -> None:
        self._send, self._task = send, task
        self.ended = False

    async def __call__(self, message: Message) -> None:
        """Sends a message."""
        if self.ended:
            raise GoneError("a HEAD request has its answer")
        await self._send(message)
        if message["type"] == "http.response.start" and is_stream(message.get("headers") or ()):
            await self._send({"type": "http.response.body", "body": b""})
            self.ended = True
            if self._task is not None:
                self._task.cancel()
                await asyncio.sleep(0)  # raises here, where the application did not leave it to a task of its own


def running_task() -> asyncio.Task[Any] | None:
    """The task of asyncio that runs; None: of another event loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def wsgi_head(app: WsgiApp) -> WsgiApp:
    """The application, for HEAD requests: a stream ends at its headers, and is closed with the answer."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> HeadBody:
        made = HeadBody(start_response)
        made.body = app(environ, made.start)
        return made

    return answer


class HeadBody:
    """The body of an application, empty where its headers say that it is a stream."""

    def __init__(self, start_response: Callable[..., Any]) -> None:
        self._start_response = start_response
        self._headers: list[tuple[str, str]] = []
        self.body: Iterable[bytes] = ()

    def start(self, status: str, headers: Any, *error: Any) -> Any:
        """The `start_response` that the application is given."""
        self._headers = list(headers)
        return self._start_response(status, self._headers, *error)

    def __iter__(self) -> Iterator[bytes]:
        """No part of a stream; a generator says with its first part that it is one."""
        if not is_stream(self._headers):
            for part in self.body:
                if is_stream(self._headers):
                    return
                yield part

    def close(self) -> None:
        """Called by the server, whatever happened."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()
