"""gRPC interceptors: the trace context into the metadata of a call, and out of it around its handler; extra `grpc`.

Headers go as plain ASCII metadata, under the names that they have in HTTP. gRPC runs the interceptors and the handler
of a call in one contextvars.Context of that call's own, so a server interceptor has nothing to put back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio

from gobanfast.trace import EXTRACTED, INJECTED, continued, extract, inject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["AioServerInterceptor", "ClientInterceptor", "ServerInterceptor", "aio_client_interceptors"]


def _known(propagators: Iterable[str]) -> tuple[str, ...]:
    """The names; an error here, and not at the first call, where one is wrong."""
    propagators = tuple(propagators)
    extract((), propagators)
    return propagators


class _Fields(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Details(_Fields, grpc.ClientCallDetails):
    """What a channel is told of a call; one of aio has no compression."""


class _Injecting:
    """Hands a call on with the headers of the current context; each call has a parent id of its own."""

    def __init__(self, propagators: Iterable[str] = INJECTED, *, baggage: bool = False) -> None:
        self._propagators, self._baggage = _known(propagators), baggage

    def _call(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        pairs = inject(list(details.metadata or ()), propagators=self._propagators, baggage=self._baggage)
        told = _Details(*[getattr(details, name, None) for name in _Fields._fields])
        return continuation(told._replace(metadata=tuple(pairs)), request)


class ClientInterceptor(
    _Injecting,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """`grpc.intercept_channel(channel, ClientInterceptor())`: calls take the current context along.

    Args:
        propagators: what to write, of `trace.PROPAGATORS`.
        baggage: send it along, too; only to servers of one's own.
    """

    intercept_unary_unary: Any = _Injecting._call
    intercept_unary_stream: Any = _Injecting._call
    intercept_stream_unary: Any = _Injecting._call
    intercept_stream_stream: Any = _Injecting._call


class _AioInjecting(_Injecting):
    async def _acall(self, continuation: Callable[..., Awaitable[Any]], details: Any, request: Any) -> Any:
        return await self._call(continuation, details, request)


class _AioUnaryUnary(_AioInjecting, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary: Any = _AioInjecting._acall


class _AioUnaryStream(_AioInjecting, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream: Any = _AioInjecting._acall


class _AioStreamUnary(_AioInjecting, grpc.aio.StreamUnaryClientInterceptor):
    intercept_stream_unary: Any = _AioInjecting._acall


class _AioStreamStream(_AioInjecting, grpc.aio.StreamStreamClientInterceptor):
    intercept_stream_stream: Any = _AioInjecting._acall


def aio_client_interceptors(
    propagators: Iterable[str] = INJECTED, *, baggage: bool = False
) -> list[grpc.aio.ClientInterceptor]:
    """`grpc.aio.insecure_channel(target, interceptors=aio_client_interceptors())`: one for each kind of call."""
    propagators = tuple(propagators)
    return [
        kind(propagators, baggage=baggage)
        for kind in (_AioUnaryUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream)
    ]


class ServerInterceptor(grpc.ServerInterceptor):
    """`grpc.server(pool, interceptors=[ServerInterceptor()])`: handlers have a child of the caller's context.

    It takes contexts from anybody: for servers that only one's own clients reach.
    """

    def __init__(self, propagators: Iterable[str] = EXTRACTED) -> None:
        self._propagators = _known(propagators)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Of gRPC."""
        continued(handler_call_details.invocation_metadata, self._propagators).__enter__()
        return continuation(handler_call_details)


class AioServerInterceptor(grpc.aio.ServerInterceptor):
    """`grpc.aio.server(interceptors=[AioServerInterceptor()])`, as `ServerInterceptor`.

    A handler that is a plain function runs in a thread, to which `migration_thread_pool=trace.ContextExecutor(pool)`
    carries the context.
    """

    def __init__(self, propagators: Iterable[str] = EXTRACTED) -> None:
        self._propagators = _known(propagators)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Of gRPC."""
        continued(handler_call_details.invocation_metadata, self._propagators).__enter__()
        return await continuation(handler_call_details)
