"""Our plug-ins chosen by environment variables in a process of its own, spans out through real exporters."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.instrumentation.asgi")
collector_pb2 = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROGRAM = f'''
import asyncio, sys
from opentelemetry import propagate, trace

from opentelemetry.sdk._configuration import _initialize_components

_initialize_components()
if sys.argv[1] == "fastotel":
    from fastotel import OTLPSpanProcessor

    trace.get_tracer_provider().add_span_processor(OTLPSpanProcessor())
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.telemetry.otel_attributes import request_hook

RULES = """{{version: 1, trust: [192.0.2.0/24], rules: [
  {{id: known, when: {{prefix: 198.51.100.0/24}}, action: allow, reason: partner}}]}}"""


async def page(scope, receive, send):
    headers = {{}}
    propagate.inject(headers)
    await send({{"type": "http.response.start", "status": 200,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}})
    await send({{"type": "http.response.body", "body": b""}})


traced = OpenTelemetryMiddleware(page, server_request_hook=request_hook, exclude_spans=["receive", "send"])
app = Gobanfast(traced, Engine(Ruleset.from_text(RULES)))


async def ask(*headers):
    sent = []

    async def receive():
        return {{"type": "http.request"}}

    async def send(message):
        sent.append(message)

    await app({{"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "scheme": "http",
               "client": ("192.0.2.1", 4000), "server": ("test", 80), "http_version": "1.1",
               "headers": [(b"x-forwarded-for", b"198.51.100.7"), *headers]}}, receive, send)
    return dict(sent[0]["headers"])


continued = [(b"traceparent", b"00-{TRACE}-{SPAN}-01"), (b"tracestate", b"ot=th:0,a=b")]
for headers in (continued, []):
    print(asyncio.run(ask(*headers))[b"traceparent"].decode())
trace.get_tracer_provider().force_flush()
trace.get_tracer_provider().shutdown()
'''


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """(endpoint, requests as decoded) of an OTLP/HTTP collector."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            message = collector_pb2.ExportTraceServiceRequest()
            message.ParseFromString(body)
            got.append(message)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", got
        server.shutdown()


def registered(folder: Path) -> str:
    """A path with the entry points of pyproject.toml: an installation in place may be older than the file."""
    groups = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["entry-points"]
    info = folder / "registered-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: registered\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items())
    )
    return str(folder)


@pytest.mark.parametrize("exporter", ["opentelemetry.exporter.otlp.proto.http", "fastotel"])
def test_spans_reach_a_collector(tmp_path: Path, exporter: str) -> None:
    """One trace with the caller's, one that begins here; the decision on each span, and what it was sampled by."""
    pytest.importorskip(exporter)
    with collector() as (endpoint, got):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "PYTHONPATH": os.pathsep.join([registered(tmp_path), *[path for path in sys.path if path]]),
            "OTEL_PROPAGATORS": "gobanfast",
            "OTEL_PYTHON_ID_GENERATOR": "gobanfast",
            "OTEL_TRACES_SAMPLER": "gobanfast",
            "OTEL_TRACES_SAMPLER_ARG": "1",
            "OTEL_TRACES_EXPORTER": "none" if exporter == "fastotel" else "otlp",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, exporter], env=environment, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    first, second = (line.split("-") for line in done.stdout.split())
    spans = [
        span for request in got for resource in request.resource_spans for scope in resource.scope_spans
        for span in scope.spans
    ]  # fmt: skip
    assert {first[1], second[1]} == {span.trace_id.hex() for span in spans}, done.stderr
    by_trace = {span.trace_id.hex(): span for span in spans}
    under, root = by_trace[first[1]], by_trace[second[1]]

    assert (TRACE, SPAN, "ot=th:0,a=b") == (first[1], under.parent_span_id.hex(), under.trace_state)
    assert (first[2], second[2]) == (under.span_id.hex(), root.span_id.hex())
    assert (b"", "ot=th:0") == (root.parent_span_id, root.trace_state)
    for span in (under, root):
        said = {each.key: each.value.string_value for each in span.attributes}
        assert "known" == said["security_rule.name"]
        assert ("partner", "admit") == (said["security_rule.category"], said["security_rule.ruleset.name"])
        assert ("198.51.100.7", "allow", "rule") == (
            said["client.address"], said["gobanfast.action"], said["gobanfast.cause"],
        )  # fmt: skip
        assert said["security_rule.version"]
    assert 1.0 == next(each.value.double_value for each in root.attributes if each.key == "gobanfast.rate.probability")
