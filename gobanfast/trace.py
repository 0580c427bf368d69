"""Trace context propagation: W3C Trace Context, Baggage and B3 in and out of carriers, and across threads."""

from __future__ import annotations

from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

from gobanfast._core.trace_carriers import EXTRACTED, INJECTED, PROPAGATORS, extract, inject
from gobanfast._core.trace_context import CURRENT, TraceContext, current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor, Future
    from contextvars import Token
    from types import TracebackType

__all__ = [
    "EXTRACTED",
    "INJECTED",
    "PROPAGATORS",
    "ContextExecutor",
    "TraceContext",
    "bind",
    "continued",
    "current",
    "envelope",
    "extract",
    "inject",
    "kafka_setter",
    "linked",
    "read_envelope",
    "use",
]

P = ParamSpec("P")
T = TypeVar("T")


class use:  # noqa: N801 - read as a verb: with use(context)
    """Context manager in which `context` is the current one; None: in which there is none."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: TraceContext | None) -> None:
        if context is not None and not isinstance(context, TraceContext):
            raise TypeError(f"context is {context!r:.80}, not a TraceContext; extract(carrier) makes one")
        self._context = context
        self._token: Token[TraceContext | None] | None = None

    def __enter__(self) -> TraceContext | None:
        if self._token is not None:
            raise RuntimeError("this use() is in force already; make another one")
        self._token = CURRENT.set(self._context)
        return self._context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            CURRENT.reset(token)


class _Bound(Generic[P, T]):
    """A function that runs with a context of its own; a class, so that a pool of processes can pickle it."""

    def __init__(self, function: Callable[P, T], context: TraceContext | None) -> None:
        self.function, self.context = function, context
        update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **options: P.kwargs) -> T:
        with use(self.context):
            return self.function(*args, **options)

    def __reduce__(self) -> tuple[type[_Bound[P, T]], tuple[Callable[P, T], TraceContext | None]]:
        return type(self), (self.function, self.context)


def bind(function: Callable[P, T], /) -> Callable[P, T]:
    """The function with the trace context of now, whatever thread, process, timer or callback runs it.

    Tasks and `asyncio.to_thread` carry the context by themselves; threads, executors and timers do not. An `async def`
    runs in a task, which needs no binding either; create the task where the context is current.

    Raises:
        TypeError: not a function, or an `async def`.
    """
    from inspect import iscoroutinefunction

    if not callable(function) or iscoroutinefunction(function):
        raise TypeError(f"{function!r:.80} is not a plain function; a task carries the context of where it is created")
    return _Bound(function, current())


class ContextExecutor:
    """An executor whose calls run with the trace context of where they were submitted; `executor` does the work."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def submit(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> Future[T]:
        """As `Executor.submit`."""
        return self.executor.submit(bind(function), *args, **options)

    def map(
        self, function: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """As `Executor.map`."""
        return self.executor.map(bind(function), *iterables, timeout=timeout, chunksize=chunksize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `Executor.shutdown`."""
        self.executor.shutdown(wait, cancel_futures=cancel_futures)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()


class continued(use):  # noqa: N801 - read as a verb, too
    """Context manager for work that is one message's or call's: a span of its own in the trace that the carrier brings.

    A carrier that brings none has none: inside, `current()` is None.
    """

    __slots__ = ()

    def __init__(self, carrier: Any, propagators: Iterable[str] = EXTRACTED) -> None:
        received = extract(carrier, propagators)
        super().__init__(None if received is None else received.child())


class linked(use):  # noqa: N801 - read as a verb, too
    """Context manager for a consumer: a trace of its own, and links to the traces of the messages that it processes.

    A batch has no one parent, and a message may be processed long after its trace was told, so the spans are linked and
    not nested (the default of OpenTelemetry's messaging conventions); `continued` nests that of one message. `links`
    has those of the carriers, in order; messages without one have no link. Sampled if one of them was.
    """

    __slots__ = ("links",)

    def __init__(self, *carriers: Any, propagators: Iterable[str] = EXTRACTED) -> None:
        found = [extract(carrier, propagators) for carrier in carriers]
        self.links = tuple([link for link in found if link is not None and link.trace_id is not None])
        super().__init__(TraceContext.start(sampled=any(link.sampled for link in self.links)))

    def __enter__(self) -> Self:  # type: ignore[override]
        super().__enter__()
        return self

    @property
    def context(self) -> TraceContext:
        """Of the processing, which is current inside."""
        assert self._context is not None  # noqa: S101 - for type checkers
        return self._context


def kafka_setter(carrier: list[tuple[str, bytes]], name: str, value: str) -> None:
    """Puts a header where an empty list does not say that values are bytes, as kafka-python and aiokafka want them."""
    carrier.append((name, value.encode()))


def envelope(body: Any, context: TraceContext | None = None, *, baggage: bool = False) -> str:
    """JSON text with `body` and the context, for what has no headers: MQTT 3.1.1, Redis lists and channels.

    Raises:
        TypeError: `body` is nothing that JSON has.
    """
    from json import dumps

    headers: dict[str, str] = {}
    return dumps({"headers": inject(headers, context, baggage=baggage), "body": body}, separators=(",", ":"))


def read_envelope(text: str | bytes) -> tuple[TraceContext | None, Any]:
    """(context or None, body) of an envelope; of anything else None and `text` itself."""
    from json import loads

    try:
        found = loads(text)
    except (ValueError, RecursionError):
        return None, text
    if not isinstance(found, dict) or found.keys() != {"headers", "body"} or not isinstance(found["headers"], dict):
        return None, text
    return extract(found["headers"]), found["body"]
