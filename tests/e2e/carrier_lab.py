"""A client of one broker, in a process of its own: runs what docs/carriers.md shows, then sends carriers of all kinds.

`python carrier_lab.py NAME PORT` reads blocks of code from standard input, as JSON, and writes what came of them, of
the same without a context, of the carriers, and of a message that the broker kept: `{"docs": ..., "bare": ..., "came":
..., "kept": ...}`. A process of its own, because gRPC and librdkafka keep threads.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import queue
import sys
from typing import Any

from gobanfast import trace

WAIT = 30
CONTEXT = trace.TraceContext(
    "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True, random=True,
    tracestate="ot=th:8," + ",".join(f"key{number}=value-{'x' * 20}" for number in range(30)),
    baggage={"user": "ann b", "name": "Zoë €", "long": "y" * 2000},
)  # fmt: skip
PARENT = str(CONTEXT.traceparent)


def carriers(pairs: bool) -> dict[str, Any]:
    """What is sent, by name; `pairs` where a carrier can have a name twice. `junk` are headers that mean nothing."""

    def made(**more: str) -> Any:
        return [*more.items()] if pairs else dict(more)

    found = {
        "none": None,
        "whole": trace.inject(made(mine="1"), CONTEXT, baggage=True),
        "b3": trace.inject(made(), CONTEXT, propagators=("b3",)),
        "b3multi": trace.inject(made(), CONTEXT, propagators=("b3multi",)),
        "malformed": made(traceparent=PARENT.upper(), tracestate="a=1"),
        "junk": made(traceparent="zz", baggage=";,=", b3="-"),
    }
    if pairs:
        found["twice"] = [("traceparent", PARENT), ("traceparent", PARENT)]
    return found


def told(carrier: Any) -> list[Any] | None:
    """What a carrier brought, as JSON has it."""
    found = trace.extract(carrier)
    if found is None:
        return None
    return [found.trace_id, found.sampled, found.tracestate, [list(entry[:2]) for entry in found.baggage]]


class Kafka:
    """librdkafka's mock cluster, which one client keeps and others find by its address."""

    pairs = True

    async def open(self, port):
        from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

        self.keeper = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        (broker,) = self.keeper.list_topics(timeout=WAIT).brokers.values()
        address = {"bootstrap.servers": f"{broker.host}:{broker.port}", "log_level": 0}
        self.producer = Producer(address | {"linger.ms": 0})
        self.producer.produce("orders", b"none")  # makes the topic
        self.producer.flush(WAIT)
        partitions = self.producer.list_topics("orders", timeout=WAIT).topics["orders"].partitions
        self.consumer = Consumer(address | {"group.id": "g", "fetch.wait.max.ms": 10})
        self.consumer.assign([TopicPartition("orders", number, OFFSET_BEGINNING) for number in partitions])
        assert self.consumer.poll(WAIT).headers() is None
        return {"producer": self.producer, "consumer": self.consumer}

    async def send(self, carrier):
        self.producer.produce("orders", b"", headers=carrier)
        self.producer.flush(WAIT)

    async def receive(self):
        return self.consumer.poll(WAIT).headers()

    async def kept(self):
        """Read again from the beginning, by another group."""
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition

        partitions = [TopicPartition(it.topic, it.partition, OFFSET_BEGINNING) for it in self.consumer.assignment()]
        self.consumer.assign(partitions)
        found = None
        while told(found) != told(carriers(self.pairs)["whole"]):
            found = await self.receive()
        return {"read again": found}

    async def close(self):
        self.consumer.close()


class Rabbitmq:
    """The headers table of AMQP 0-9-1."""

    pairs = False

    async def open(self, port):
        import pika

        self.pika = pika
        self.connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
        self.channel = self.connection.channel()
        self.channel.queue_declare("orders")
        return {"channel": self.channel, "pika": pika}

    async def send(self, carrier):
        self.channel.basic_publish("", "orders", b"", self.pika.BasicProperties(headers=carrier))

    async def receive(self):
        return next(self.channel.consume("orders", inactivity_timeout=WAIT))[1].headers

    async def kept(self):
        """Refused by a consumer, and so put into the queue of dead letters."""
        self.channel.cancel()
        self.channel.queue_declare("dead")
        letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        self.channel.queue_declare("living", arguments=letters)
        whole = carriers(self.pairs)["whole"]
        self.channel.basic_publish("", "living", b"", self.pika.BasicProperties(headers=whole))
        method, _, _ = next(self.channel.consume("living", inactivity_timeout=WAIT))
        self.channel.basic_reject(method.delivery_tag, requeue=False)
        self.channel.cancel()
        headers = next(self.channel.consume("dead", inactivity_timeout=WAIT))[1].headers
        assert "x-death" in headers
        return {"dead letter": headers}

    async def close(self):
        self.connection.close()


class Mqtt:
    """User properties; a second pair of clients speaks version 3.1.1."""

    pairs = True

    async def open(self, port):
        from paho.mqtt import client as mqtt

        def connected(protocol, topic):
            """A client, and the queue of what it gets."""
            client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol)
            messages, ready = queue.Queue(), queue.Queue()
            client.on_message = lambda _client, _data, message: messages.put(message)
            client.on_subscribe = lambda *_: ready.put(True)
            client.on_connect = lambda *_: client.subscribe(topic, qos=1)
            client.connect("127.0.0.1", port)
            client.loop_start()
            assert ready.get(timeout=WAIT)
            return client, messages

        self.connected = lambda topic: connected(mqtt.MQTTv5, topic)
        self.client, self.messages = self.connected("orders")
        self.old, old_messages = connected(mqtt.MQTTv311, "old/orders")
        return {
            "client": self.client, "messages": self.messages, "old_client": self.old, "old_messages": old_messages,
        }  # fmt: skip

    async def send(self, carrier, topic="orders", *, retain=False):
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)
        if carrier is not None:
            properties.UserProperty = carrier
        self.client.publish(topic, b"1", qos=1, retain=retain, properties=properties).wait_for_publish(WAIT)

    async def receive(self):
        return getattr(self.messages.get(timeout=WAIT).properties, "UserProperty", None)

    async def kept(self):
        """Retained, and sent to who subscribes later."""
        await self.send(carriers(self.pairs)["whole"], "kept", retain=True)
        self.later, messages = self.connected("kept")
        message = messages.get(timeout=WAIT)
        assert message.retain
        return {"retained": message.properties.UserProperty}

    async def close(self):
        for client in (self.client, self.old, self.later):
            client.disconnect()
            client.loop_stop()


class Nats:
    """Headers of a message."""

    pairs = False

    async def open(self, port):
        import nats

        self.connection = await nats.connect(f"nats://127.0.0.1:{port}")
        self.subscription = await self.connection.subscribe("orders")
        return {"connection": self.connection, "subscription": self.subscription}

    async def send(self, carrier):
        await self.connection.publish("orders", b"", headers=carrier)

    async def receive(self):
        return (await self.subscription.next_msg(timeout=WAIT)).headers

    async def kept(self):
        """In a stream, and read from there."""
        stream = self.connection.jetstream()
        await stream.add_stream(name="kept", subjects=["kept"])
        whole = carriers(self.pairs)["whole"]
        await stream.publish("kept", b"", headers=whole)
        messages = await stream.pull_subscribe("kept", "reader")
        (message,) = await messages.fetch(1, timeout=WAIT)
        return {"stream": message.headers}

    async def close(self):
        await self.connection.close()


class Redis:
    """Fields of the entries of a stream."""

    pairs = False

    async def open(self, port):
        import redis

        self.client = redis.Redis(port=port)
        self.pubsub = self.client.pubsub(ignore_subscribe_messages=True)
        self.pubsub.subscribe("news")
        self.pubsub.get_message(timeout=WAIT)
        self.last = "-"
        return {"client": self.client, "pubsub": self.pubsub}

    async def send(self, carrier):
        self.client.xadd("more", carrier or {"order": "3"})

    async def receive(self):
        ((number, fields),) = self.client.xrange("more", self.last, count=1)
        self.last = b"(" + number
        return fields

    async def kept(self):
        """Claimed by another consumer of the group, because the first never acknowledged it."""
        self.client.xgroup_create("more", "group", "0")
        self.client.xreadgroup("group", "first", {"more": ">"}, count=10)
        _, entries, _ = self.client.xautoclaim("more", "group", "second", 0)
        (found,) = [fields for _, fields in entries if b"mine" in fields]
        return {"claimed": found}

    async def close(self):
        self.pubsub.close()
        self.client.close()


LABS = {kind.__name__.lower(): kind for kind in (Kafka, Rabbitmq, Mqtt, Nats, Redis)}


async def shown(block: str, names: dict[str, Any]) -> None:
    """Runs a block of a page, which may await."""
    code = compile(block, "docs/carriers.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, names)  # noqa: S307
    if inspect.isawaitable(running):
        await running


def ids(value: Any) -> Any:
    """What the parent process compares: contexts as ids, several as a list."""
    if isinstance(value, trace.TraceContext):
        return [value.trace_id, value.span_id, value.parent_id, value.sampled]
    return [ids(each) for each in value] if isinstance(value, tuple) else value


async def main(name: str, port: int, blocks: list[str]) -> dict[str, Any]:
    lab = LABS[name]()
    names = await lab.open(port)
    kept = ("context", "one", "many", "received", "heard", "body", "job", "news")
    try:
        for block in blocks:
            await shown(block, names)
        docs = {key: ids(names[key]) for key in kept if key in names}
        names["context"] = None
        for block in blocks[1:]:
            await shown(block, names)
        bare = {key: ids(names[key]) for key in ("one", "received", "heard") if key in names}
        came = {}
        for form, carrier in carriers(lab.pairs).items():
            await lab.send(carrier)
            came[form] = told(await lab.receive())
        again = {way: told(carrier) for way, carrier in (await lab.kept()).items()}
    finally:
        await lab.close()
    return {"docs": docs, "bare": bare, "came": came, "kept": again}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2]), json.load(sys.stdin)))))
