"""Carriers of traces with the real thing: what docs/carriers.md shows, run against brokers and gRPC servers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

import brokers
import carrier_lab
from carrier_lab import CONTEXT
from gobanfast import Engine, Ruleset

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "carriers.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
CLIENTS = {
    "kafka": ("Kafka", "confluent_kafka", lambda folder: nullcontext(0)),
    "rabbitmq": ("RabbitMQ", "pika", brokers.rabbitmq),
    "mqtt": ("MQTT", "paho", brokers.mosquitto),
    "nats": ("NATS", "nats", brokers.nats),
    "redis": ("Redis", "redis", brokers.redis),
}
WHOLE = [CONTEXT.trace_id, True, CONTEXT.tracestate, [list(entry[:2]) for entry in CONTEXT.baggage]]
ALONE = [CONTEXT.trace_id, True, "", []]


def blocks(section: str) -> list[str]:
    """The code of a section, behind that of the beginning."""
    return [code for text in (PAGE.partition("\n## ")[0], SECTIONS[section])
            for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]  # fmt: skip


def child(script: Path, *arguments: object, data: object = None) -> dict:
    """What a client printed, in a process of its own."""
    run = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], input=json.dumps(data), text=True, capture_output=True,
        timeout=120, check=False, cwd=HERE,
    )  # fmt: skip
    assert 0 == run.returncode, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.fixture(scope="module", params=CLIENTS)
def done(request, tmp_path_factory):
    """(name, what a client said) of each broker."""
    section, module, broker = CLIENTS[request.param]
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    code = blocks(section)
    if request.param == "kafka":  # three messages, of which two are a batch
        code[1:2] *= 3
    with broker(tmp_path_factory.mktemp(request.param)) as port:
        return request.param, child(Path(carrier_lab.__file__), request.param, port, data=code)


def test_what_the_page_shows(done):
    """The lines of the page carry the trace: a child of what was sent, or a link to it."""
    name, said = done
    docs = said["docs"]
    trace_id, span_id, _, _ = docs["context"]
    for key in ("received", "heard"):
        if key in docs:
            assert [trace_id, True] == [docs[key][0], docs[key][3]]
            assert docs[key][1] not in {span_id, None}
    if "one" in docs:
        assert [trace_id, True] == [docs["one"][0], docs["one"][3]]
        assert len({docs["one"][1], docs["one"][2], span_id, None}) == 4
    if "many" in docs:
        assert [trace_id] * {"kafka": 2, "redis": 1}[name] == [link[0] for link in docs["many"]]
    expected = {"kafka": {"one", "many"}, "redis": {"many", "received", "job", "heard", "news"},
                "mqtt": {"one", "received", "body"}}.get(name, {"one"})  # fmt: skip
    assert expected == docs.keys() - {"context"}
    assert [{"order": 3}] * len(expected & {"body", "job", "news"}) == [
        docs[key] for key in sorted(expected & {"body", "job", "news"})
    ]


def test_what_comes_through(done):
    """A long tracestate and baggage beyond ASCII arrive whole, B3 too; what is malformed, twice or absent is none."""
    _, said = done
    expected = {"whole": WHOLE, "b3": ALONE, "b3multi": ALONE}

    assert {form: expected.get(form) for form in said["came"]} == said["came"]
    assert {"none", "whole", "b3", "b3multi", "malformed", "junk"} <= said["came"].keys()


def test_without_a_context(done):
    """The same lines send and receive nothing of a trace where there is none."""
    _, said = done

    assert said["bare"]
    assert {None} == set(said["bare"].values())


def test_what_a_broker_keeps(done):
    """Dead letters, retained and claimed messages, streams and what is read again: the trace is as it was sent."""
    name, said = done
    ways = {"kafka": "read again", "rabbitmq": "dead letter", "mqtt": "retained", "nats": "stream", "redis": "claimed"}

    assert {ways[name]: WHOLE} == said["kept"]


def test_grpc():
    """Handlers of calls of every kind have a child of the caller's context for their whole length; those of a call
    without one have none, also in a thread that had one before."""
    if find_spec("grpc") is None:
        pytest.skip("grpcio is not installed")
    import grpc_lab

    found = child(Path(grpc_lab.__file__), *brokers.free_ports(2), data=blocks("gRPC"))
    for kind, calls in found.items():
        assert 23 + 7 * (kind == "aio") <= len(calls["none"])
        assert {None} == set(calls.pop("none"))
        assert {"sync": 5, "aio": 9}[kind] == len(calls)
        parents = set()
        for name, lines in calls.items():
            assert (3 if name.startswith("unary_stream") and name != "unary_stream_w" else
                    2 if name.startswith("stream_stream") else 1) == len(lines)  # fmt: skip
            assert all(line == lines[0] for line in lines), name
            trace_id, parent_id, span_id, sampled, tracestate, baggage = lines[0]
            assert (CONTEXT.trace_id, True, "a=1", []) == (trace_id, sampled, tracestate, baggage), name
            parents |= {parent_id, span_id}
        assert len(calls) * 2 == len(parents)


def test_http_clients():
    """The header arrives, one parent id a call; without a context there is none."""
    pytest.importorskip("httpx")
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            got.append(self.headers.get_all("traceparent"))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            names = {"url": f"http://127.0.0.1:{server.server_port}/"}
            beginning, block = blocks("HTTP clients")
            exec(beginning, names)  # noqa: S102
            exec(block, names)  # noqa: S102
            sent = names["context"]
            exec(block, names)  # noqa: S102
            names["context"] = None
            exec(block, names)  # noqa: S102
        finally:
            server.shutdown()
            thread.join()
    assert got[2] is None
    (first,), (second,) = got[:2]
    assert {sent.trace_id} == {first[3:35], second[3:35]}
    assert 3 == len({first[36:52], second[36:52], sent.span_id})


def test_rocketmq():
    """Properties are a plain dict: no client of it is needed."""
    names = {}
    for code in blocks("RocketMQ"):
        exec(code, names)  # noqa: S102

    assert {"traceparent"} == names["properties"].keys()
    assert names["context"].trace_id == names["one"].trace_id


def test_every_section_runs():
    """No block of the page is left out."""
    run = {"gRPC", "HTTP clients", "RocketMQ", *[section for section, _, _ in CLIENTS.values()]}

    assert run == {section for section, text in SECTIONS.items() if "```python" in text}


def test_rules_of_the_edge():
    """They grant the headers of a trace, and no others."""
    (rules,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    engine = Engine(Ruleset.from_text(rules))

    def answer(*names):
        asked = {b"host": b"api.example.com", b"origin": b"https://www.example.com",
                 b"access-control-request-method": b"GET",
                 b"access-control-request-headers": ",".join(names).encode()}  # fmt: skip
        return engine.decide("127.0.0.1", method="OPTIONS", path="/order/1", headers=list(asked.items()))

    names = b"baggage,traceparent,tracestate"
    assert (b"access-control-allow-headers", names) in answer(*names.decode().split(",")).share_headers
    assert "withheld" == answer("x-own").share
