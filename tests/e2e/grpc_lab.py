"""gRPC servers and channels as docs/carriers.md makes them, in a process of its own, with calls of all kinds over them.

`python grpc_lab.py PORT AIO_PORT` reads the page's blocks from standard input, as JSON, and writes what handlers saw:
`{"sync": {kind: [...]}, "aio": {...}, "alone": [...]}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import grpc.aio

from gobanfast import trace

CONTEXT = trace.TraceContext(
    "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True, tracestate="a=1", baggage={"user": "ann"}
)
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def seen() -> bytes:
    """What is current in a handler."""
    found = trace.current()
    told = found and [found.trace_id, found.parent_id, found.span_id, found.sampled, found.tracestate, found.baggage]
    return json.dumps(told).encode()


class Plain:
    """Handlers that are functions."""

    def unary_unary(self, request, context):
        return seen()

    def unary_stream(self, request, context):
        for _ in range(3):
            yield seen()

    def stream_unary(self, requests, context):
        list(requests)
        return seen()

    def stream_stream(self, requests, context):
        for _ in requests:
            yield seen()


class Async:
    """Handlers that are coroutines, and one that writes."""

    async def unary_unary(self, request, context):
        await asyncio.sleep(0)
        return seen()

    async def unary_stream(self, request, context):
        for _ in range(3):
            await asyncio.sleep(0)
            yield seen()

    async def stream_unary(self, requests, context):
        async for _ in requests:
            pass
        return seen()

    async def stream_stream(self, requests, context):
        async for _ in requests:
            yield seen()

    async def writes(self, request, context):
        await context.write(seen())


def handlers(service: str, methods: dict[str, Any]) -> Any:
    made = {name: getattr(grpc, f"{name.partition('/')[0]}_rpc_method_handler")(method)
            for name, method in methods.items()}  # fmt: skip
    return grpc.method_handlers_generic_handler(service, {name.replace("/", "_"): it for name, it in made.items()})


def of(methods: object) -> dict[str, Any]:
    return {kind: getattr(methods, kind) for kind in KINDS}


def sync_calls(server: Any, channel: Any, target: str) -> dict[str, list[Any]]:
    server.add_generic_rpc_handlers([handlers("s", of(Plain()))])
    server.add_insecure_port(target)
    server.start()
    unary_unary, unary_stream, stream_unary, stream_stream = [getattr(channel, kind)(f"/s/{kind}") for kind in KINDS]
    with trace.use(CONTEXT):
        found = {
            "unary_unary": [unary_unary(b"", metadata=(("own-bin", b"\0\xff"),), wait_for_ready=True)],
            "future": [unary_unary.future(b"").result()],
            "unary_stream": list(unary_stream(b"")),
            "stream_unary": [stream_unary(iter([b"", b""]))],
            "stream_stream": list(stream_stream(iter([b"", b""]))),
        }
    found["none"] = [unary_unary(b"") for _ in range(20)] + list(unary_stream(b""))  # in every thread of the pool
    channel.close()
    server.stop(None).wait()
    return found


async def aio_calls(server: Any, channel: Any, target: str) -> dict[str, list[Any]]:
    plain = {f"{kind}/plain": method for kind, method in of(Plain()).items()}
    server.add_generic_rpc_handlers([handlers("s", of(Async()) | plain | {"unary_stream/w": Async().writes})])
    server.add_insecure_port(target)
    await server.start()

    async def called(kind: str, name: str) -> list[bytes]:
        request = iter([b"", b""]) if kind.startswith("stream") else b""
        more = {"metadata": grpc.aio.Metadata(("own-bin", b"\0\xff"))} if "plain" in name else {}
        call = getattr(channel, kind)(f"/s/{name}")(request, wait_for_ready=True, **more)
        return [each async for each in call] if kind.endswith("stream") else [await call]

    names = [*KINDS, *[f"{kind}_plain" for kind in KINDS], "unary_stream_w"]
    with trace.use(CONTEXT):
        found = {name: await called("_".join(name.split("_")[:2]), name) for name in names}
    found["none"] = [line for _ in range(5) for name in KINDS for line in await called(name, name)]
    await channel.close()
    await server.stop(None)
    return found


async def main(targets: list[str], blocks: list[str]) -> dict[str, Any]:
    names: dict[str, Any] = {"target": targets[0]}
    beginning, sync, aio = blocks
    exec(beginning, names)  # noqa: S102
    exec(sync, names)  # noqa: S102
    found = {"sync": await asyncio.to_thread(sync_calls, names["server"], names["channel"], targets[0])}
    names["target"] = targets[1]
    exec(aio, names)  # noqa: S102
    found["aio"] = await aio_calls(names["aio_server"], names["aio_channel"], targets[1])
    return {kind: {name: [json.loads(line) for line in lines] for name, lines in calls.items()}
            for kind, calls in found.items()}  # fmt: skip


if __name__ == "__main__":
    addresses = [f"127.0.0.1:{port}" for port in sys.argv[1:]]
    sys.stdout.write(json.dumps(asyncio.run(main(addresses, json.load(sys.stdin)))))
