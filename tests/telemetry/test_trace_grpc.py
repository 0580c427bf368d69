"""gRPC interceptors without a channel: what they make of a call's details; tests/e2e/test_carriers.py has calls."""

from __future__ import annotations

import asyncio
import contextvars
from types import SimpleNamespace
from typing import Any

import pytest

from gobanfast.trace import TraceContext, current, extract, inject, use

pytest.importorskip("grpc")

import grpc

from gobanfast.telemetry.trace_grpc import (
    AioServerInterceptor,
    ClientInterceptor,
    ServerInterceptor,
    aio_client_interceptors,
)

CONTEXT = TraceContext(
    "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True, tracestate="a=1", baggage={"user": "ann"}
)
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def details(metadata: Any = None) -> Any:
    """Of a call, as another interceptor may hand it on: without what it knows nothing of."""
    return SimpleNamespace(method="/s/m", timeout=3.5, metadata=metadata, credentials="c", wait_for_ready=True)


def calls(metadata: Any = None, *arguments: Any, **options: Any) -> list[Any]:
    """What the continuation is given, for each kind of call of both kinds of channels."""

    async def later(told: Any, request: Any) -> tuple[Any, Any]:
        return told, request

    client = ClientInterceptor(*arguments, **options)
    found = [getattr(client, f"intercept_{kind}")(lambda *given: given, details(metadata), "r") for kind in KINDS]
    for kind, one in zip(KINDS, aio_client_interceptors(*arguments, **options), strict=True):
        found.append(asyncio.run(getattr(one, f"intercept_{kind}")(later, details(metadata), "r")))
    assert {"r"} == {request for _, request in found}
    return [told for told, _ in found]


def test_details_stay_as_they_are() -> None:
    """All of them but the metadata, which has the headers behind what was there; without a context nothing is added."""
    own = (("own-bin", b"\0"), ("own", "1"))
    for told in calls(own):
        assert isinstance(told, grpc.ClientCallDetails)
        assert ("/s/m", 3.5, "c", True, None) == (
            told.method, told.timeout, told.credentials, told.wait_for_ready, told.compression,
        )  # fmt: skip
        assert own == told.metadata
    assert {()} == {told.metadata for told in calls()}
    with use(CONTEXT):
        many = [told.metadata for told in calls(own)]
    assert [own] * 8 == [metadata[:2] for metadata in many]
    assert {("traceparent", "tracestate")} == {tuple(name for name, _ in metadata[2:]) for metadata in many}
    assert 8 == len({dict(metadata)["traceparent"] for metadata in many})


def test_options() -> None:
    """Baggage goes when asked for, other headers by name; a context that is there from elsewhere is replaced."""
    received = inject((), TraceContext.start())
    with use(CONTEXT):
        for told in calls(received, baggage=True):
            assert ["baggage", "traceparent", "tracestate"] == sorted(name for name, _ in told.metadata)
            found = extract(told.metadata)
            assert found is not None
            assert CONTEXT.trace_id == found.trace_id
        for told in calls(None, ["b3"]):
            assert ["b3"] == [name for name, _ in told.metadata]
    for kind in (ClientInterceptor, ServerInterceptor, AioServerInterceptor, aio_client_interceptors):
        with pytest.raises(ValueError, match="propagator 'jaeger'"):
            kind(("jaeger",))


@pytest.mark.parametrize(
    "metadata", [(), None, (("traceparent", "zz"),), (("traceparent-bin", b"\xff"),), (("b3", "0"),)]
)
@pytest.mark.parametrize("aio", [False, True])
def test_server_without_a_context(metadata: Any, aio: bool) -> None:
    """Nothing, or what is malformed, is none; a decision without ids holds for the trace that begins here."""
    found = handled(aio, metadata)

    assert (found is not None) == (metadata == (("b3", "0"),))
    assert found is None or (found.sampled, found.parent_id) == (False, None)


@pytest.mark.parametrize("aio", [False, True])
def test_server(aio: bool) -> None:
    """A child of what came, in the call's own Context alone; with the propagators that are asked for."""
    metadata = inject((("user-agent", "x"),), CONTEXT, baggage=True)
    found = handled(aio, metadata)

    assert found is not None
    assert (CONTEXT.trace_id, True, "a=1") == (found.trace_id, found.sampled, found.tracestate)
    assert dict(metadata)["traceparent"][36:52] == found.parent_id
    assert CONTEXT.baggage == found.baggage
    assert current() is None
    assert handled(aio, metadata, ("b3",)) is None


def handled(aio: bool, metadata: Any, *arguments: Any) -> TraceContext | None:
    """What is current behind a server interceptor."""
    call = SimpleNamespace(method="/s/m", invocation_metadata=metadata)

    async def handler(_: Any) -> Any:
        return current()

    async def intercepted() -> Any:
        return await AioServerInterceptor(*arguments).intercept_service(handler, call)

    if aio:
        return asyncio.run(intercepted())
    return contextvars.copy_context().run(ServerInterceptor(*arguments).intercept_service, lambda _: current(), call)
