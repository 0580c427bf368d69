"""Services of a chain, each a process: `front`, an ASGI application behind nginx; `orders`, a gRPC server that writes
to Kafka; `consumer`, which reads it.

What each saw goes to the file CHAIN_LOG, a line of JSON each with the order's name. CHAIN_ORDERS, CHAIN_MIDDLE and
CHAIN_ZIPKIN are the ports of the gRPC server and of the services in Go, CHAIN_PAGE the file with the page.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import grpc.aio

from gobanfast import Engine, Ruleset, trace
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.telemetry.trace_grpc import ServerInterceptor, aio_client_interceptors

WAIT = 30
RULES = """
trust: {prefix: [127.0.0.1/32]}
share:
- {id: rebind, when: {not: {host: ["**.localhost:*", "127.0.0.1:*"]}}, action: refuse}
- id: apps
  when: {path: /order/*, origin: "http://www.app.localhost:*"}
  action: grant
- {id: closed, when: {path: /closed/*, origin: "http://www.app.localhost:*"}, action: grant, trace_headers: false}
record:
- {id: orders, when: {path: [/order/*, /middle/*, /zipkin/*]}, action: rate, class: orders, probability: 1%}
trace: {propagators: [tracecontext, baggage, b3], from_untrusted: continue}
"""


def note(service, order, **facts):
    context, keys = trace.current(), ("trace_id", "span_id", "parent_id", "sampled", "tracestate", "baggage")
    seen = context and {key: getattr(context, key) for key in keys}
    with open(os.environ["CHAIN_LOG"], "a") as file:
        file.write(json.dumps({"service": service, "order": order, "seen": seen, **facts}) + "\n")


# ---- the front


async def answer(path, body):
    """(media type, body): `/order/NAME` asks the gRPC server, others a service in Go, which asks for that here."""
    _, kind, name = path.split("/")
    if kind == "page":
        return b"text/html", Path(os.environ["CHAIN_PAGE"]).read_bytes()
    if kind == "report":
        note("page", name, report=json.loads(body))
        return b"text/plain", b""
    if kind == "order":
        note("front", name)
        target = f"127.0.0.1:{os.environ['CHAIN_ORDERS']}"
        async with grpc.aio.insecure_channel(target, interceptors=aio_client_interceptors()) as channel:
            return b"text/plain", await channel.unary_unary("/chain/order")(name.encode(), timeout=WAIT)
    if kind == "closed":
        note("closed", name)
        return b"text/plain", b""
    import httpx

    sent = trace.inject({}, baggage=True, propagators=("b3multi",) if kind == "zipkin" else trace.INJECTED)
    note(kind, name, sent=sent)
    async with httpx.AsyncClient(timeout=WAIT) as client:
        found = await client.get(f"http://127.0.0.1:{os.environ[f'CHAIN_{kind.upper()}']}/order/{name}", headers=sent)
    return b"application/json", found.content


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError("HTTP alone")  # uvicorn takes it that there is no lifespan
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    kind, text = await answer(scope["path"], body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": text})


guarded = Gobanfast(application, Engine(Ruleset.from_text(RULES)))


async def front(scope, receive, send):
    """The guarded application, and a note of each request around it."""

    async def noted(message):
        if message["type"] == "http.response.start":
            asked = dict(scope["headers"]).get(b"access-control-request-headers", b"").decode()
            note(f"edge {scope['method']}", scope["path"].split("/")[-1], status=message["status"], asked=asked)
        await send(message)

    await guarded(scope, receive, noted)


# ---- behind it


def orders():
    """The gRPC server, and the producer that keeps the mock cluster; its address is in the log."""
    from confluent_kafka import Producer

    producer = Producer({"test.mock.num.brokers": 1, "log_level": 0, "linger.ms": 0})
    (broker,) = producer.list_topics(timeout=WAIT).brokers.values()
    producer.produce("orders", b"first")  # makes the topic
    producer.flush(WAIT)
    note("kafka", "", address=f"{broker.host}:{broker.port}")

    def order(request, context):
        headers = trace.inject([], setter=trace.kafka_setter)
        producer.produce("orders", request, headers=headers)
        producer.flush(WAIT)
        note("orders", request.decode(), metadata=[item.value for item in context.invocation_metadata()
                                                   if item.key == "traceparent"],
             sent={name: value.decode() for name, value in headers})  # fmt: skip
        return b"ordered"

    server = grpc.server(ThreadPoolExecutor(4), interceptors=[ServerInterceptor()])
    method = grpc.unary_unary_rpc_method_handler(order)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("chain", {"order": method})])
    server.add_insecure_port(f"127.0.0.1:{os.environ['CHAIN_ORDERS']}")
    server.start()
    server.wait_for_termination()


def consumer(port):
    """Works on each message in its trace, and again as a batch with links; takes connections once it reads."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    lines = [json.loads(line) for line in Path(os.environ["CHAIN_LOG"]).read_text().splitlines()]
    (address,) = [line["address"] for line in lines if line["service"] == "kafka"]
    reader = Consumer({"bootstrap.servers": address, "group.id": "g", "fetch.wait.max.ms": 10, "log_level": 0})
    partitions = reader.list_topics("orders", timeout=WAIT).topics["orders"].partitions
    reader.assign([TopicPartition("orders", number, OFFSET_BEGINNING) for number in partitions])
    with socket.create_server(("127.0.0.1", int(port))):
        while True:
            batch = [message for message in reader.consume(10, timeout=0.1) if message.error() is None]
            for message in batch:
                with trace.continued(message.headers()):
                    note("consumer", message.value().decode())
            with trace.linked(*[message.headers() for message in batch]) as work:
                links = [[link.trace_id, link.span_id] for link in work.links]
                for message in batch:
                    note("batch", message.value().decode(), links=links)


if __name__ == "__main__":
    {"orders": orders, "consumer": consumer}[sys.argv[1]](*sys.argv[2:])
