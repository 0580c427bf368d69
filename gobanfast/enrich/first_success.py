"""First success of several asynchronous calls, each started a moment after the one before; the others are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from gobanfast._errors import GobanError

T = TypeVar("T")


class NoSuccessError(GobanError):
    """None of the calls succeeded; `errors` has what each said, in the order they were started."""

    def __init__(self, errors: Sequence[Exception]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(str(error) or type(error).__name__ for error in errors) or "no source to ask")


async def first_success(calls: Sequence[Callable[[], Awaitable[T]]], *, timeout: float = 1.2, hedge: float = 0.15) -> T:
    """What the first call that does not fail returns.

    The first is started at once, each other `hedge` seconds after the one before, or as soon as one fails. Those that
    are still running at the end are cancelled and awaited.

    Raises:
        NoSuccessError: all failed, or none succeeded within `timeout` seconds.
    """
    waiting = list(calls)
    running: dict[asyncio.Task[T], None] = {}
    errors: list[Exception] = []
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    try:
        while waiting or running:
            if waiting:
                running[asyncio.ensure_future(_call(waiting.pop(0)))] = None
            left = deadline - loop.time()
            wait = min(left, hedge) if waiting else left
            done, _ = await asyncio.wait(running, timeout=max(0.0, wait), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del running[task]
                error = task.exception()
                if error is None:
                    return task.result()
                if not isinstance(error, Exception):
                    raise error
                errors.append(error)
            if loop.time() >= deadline:
                errors.append(TimeoutError(f"no answer within {timeout:g} s"))
                break
        raise NoSuccessError(errors)
    finally:
        for task in running:
            task.cancel()
        for task in running:
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _call(call: Callable[[], Awaitable[T]]) -> T:
    return await call()
