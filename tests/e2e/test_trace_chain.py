"""A trace from a browser's page through nginx, an ASGI application, gRPC and Kafka to a consumer; and with a service in
Go in the middle, traced by OpenTelemetry's SDK, or by Zipkin's."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from browsers import BROWSERS, run_until
from test_http_servers import free_port, get, python, spawned
from test_proxy_chains import own_nginx

HERE = Path(__file__).parent
SECONDS = 60
NGINX = """
server {
    listen 127.0.0.1:PORT;
    location / {
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_pass http://127.0.0.1:APPLICATION;
    }
}
"""
PAGE = """<!doctype html><title>t</title><script type=module>
const name = location.hash.slice(1), api = `http://api.app.localhost:${location.port}`;
const hex = count => Array.from(crypto.getRandomValues(new Uint8Array(count)), it => it.toString(16).padStart(2, "0"));
const ids = [hex(16).join(""), hex(8).join("")];
const headers = {traceparent: `00-${ids[0]}-${ids[1]}-03`, tracestate: "page=1"};
let status = 0, text = "";
try {
  const got = await fetch(`${api}/order/${name}`, {headers});
  status = got.status;
  text = await got.text();
} catch (error) { text = String(error); }
const closed = [];
for (const more of [{headers}, {}])
  try { closed.push((await fetch(`${api}/closed/${name}`, more)).status); } catch { closed.push(null); }
await fetch(`/report/${name}`, {method: "POST", body: JSON.stringify({ids, status, text, closed})});
</script>"""
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Chain:
    """The running services: nginx's port, those of the front and the services in Go, and what they noted."""

    def __init__(self, port, log, front, ports):
        self.port, self.log, self.front, self.ports = port, log, front, ports

    def lines(self, order):
        """What was noted of an order, by service; a service that saw it twice has the last."""
        noted = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return {line["service"]: line for line in noted if line["order"] == order}

    def wait(self, order, *services):
        """The notes, once all of these services have seen the order."""
        until = time.monotonic() + SECONDS
        while not set(services) <= self.lines(order).keys():
            assert time.monotonic() < until, self.lines(order)
            time.sleep(0.05)
        return self.lines(order)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The chain, for the tests of this module."""
    for module in ("grpc", "confluent_kafka", "uvicorn", "httpx"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    folder = tmp_path_factory.mktemp("chain")
    log, page = folder / "log", folder / "page.html"
    log.touch()
    page.write_text(PAGE)
    front, orders, consumer, middle, zipkin = (free_port() for _ in range(5))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LOG": log, "PAGE": page, "ORDERS": orders, "MIDDLE": middle, "ZIPKIN": zipkin}.items():
            patch.setenv(f"CHAIN_{name}", str(value))
        lab = str(HERE / "chain_lab.py")
        with (
            spawned(*python(lab, "orders"), port=orders),
            spawned(*python(lab, "consumer", str(consumer)), port=consumer),
            spawned(*python("-m", "uvicorn", "e2e.chain_lab:front", "--port", f"{front}"), port=front),
            own_nginx(folder / "nginx", NGINX, front) as port,
        ):
            yield Chain(port, log, front, {"middle": middle, "zipkin": zipkin})


def holds(notes, trace_id, tracestate, sampled=True):
    """One trace id from the gRPC server on, each span below what was sent, none twice; and the consumer's links."""
    seen = {service: notes[service]["seen"] for service in ("front", "orders", "consumer")}
    assert {(trace_id, sampled, tracestate)} == {
        (it["trace_id"], it["sampled"], it["tracestate"]) for it in seen.values()
    }
    (metadata,) = notes["orders"]["metadata"]
    assert metadata[36:52] == seen["orders"]["parent_id"]
    sent = notes["orders"]["sent"]["traceparent"]
    assert sent[36:52] == seen["consumer"]["parent_id"]
    spans = [it["span_id"] for it in seen.values()] + [seen["orders"]["parent_id"], seen["consumer"]["parent_id"]]
    assert 5 == len(set(spans))
    batch = notes["batch"]
    assert [trace_id, sent[36:52]] in batch["links"]
    assert trace_id != batch["seen"]["trace_id"]
    assert batch["seen"]["parent_id"] is None
    assert batch["seen"]["sampled"] or not sampled  # another of its messages may be


@pytest.mark.parametrize("browser", BROWSERS)
def test_from_a_page(chain, tmp_path, browser):
    """A page's cross-origin fetch with a traceparent passes its preflight, where no rule lists the header, and what it
    leads to has its trace. A grant without trace headers lets none in."""
    url = f"http://www.app.localhost:{chain.port}/page/{browser}#{browser}"

    class Done:
        def wait(self, seconds):
            until = time.monotonic() + seconds
            while time.monotonic() < until and "page" not in chain.lines(browser):
                time.sleep(0.05)
            return "page" in chain.lines(browser)

    assert run_until(Done(), BROWSERS[browser](tmp_path, url))
    report = chain.lines(browser)["page"]["report"]
    trace_id, span_id = report["ids"]
    assert (200, "ordered") == (report["status"], report["text"]), chain.lines(browser)
    notes = chain.wait(browser, "front", "orders", "consumer", "batch")
    assert [None, 200] == report["closed"]
    assert {"traceparent", "tracestate"} == set(notes["edge OPTIONS"]["asked"].split(","))
    assert span_id == notes["front"]["seen"]["parent_id"]
    holds(notes, trace_id, "page=1")


@contextmanager
def service_in_go(chain, folder, name, package):
    """A service built from Debian's packages, between two requests to the front."""
    go, sources = shutil.which("go"), Path("/usr/share/gocode")
    if go is None or not (sources / "src" / package).is_dir():
        pytest.skip(f"go or {sources}/src/{package} is not there")
    port = chain.ports[name]
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {
            "GO111MODULE": "off", "GOPATH": sources, "GOCACHE": chain.log.parent / "cache", "GOFLAGS": "",
            "ADDRESS": f"127.0.0.1:{port}", "NEXT": f"http://127.0.0.1:{chain.front}",
        }.items():  # fmt: skip
            patch.setenv(key, str(value))
        built = folder / name
        made = subprocess.run([go, "build", "-o", str(built), str(HERE / f"chain_{name}.go")], capture_output=True,
                              text=True, timeout=120, check=False)  # fmt: skip
        assert 0 == made.returncode, made.stderr
        with spawned(str(built), port=port):
            yield


def test_opentelemetry_for_go_in_the_middle(chain, tmp_path):
    """It takes our context with its tracestate and baggage, and we take its. (The value of baggage has nothing to
    decode, because 1.1 does not.)"""
    sent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "a=1,b=2", "baggage": "user=ann"}
    with service_in_go(chain, tmp_path, "middle", "go.opentelemetry.io/otel/sdk/trace"):
        status, _, body = get(chain.port, "/middle/go", **sent)
    assert 200 == status, body
    go = json.loads(body)
    notes = chain.wait("go", "middle", "front", "orders", "consumer", "batch")

    own = notes["middle"]
    assert (TRACE, "b7ad6b7169203331") == (own["seen"]["trace_id"], own["seen"]["parent_id"])
    assert own["sent"]["traceparent"][36:52] == go["parent_id"]
    assert (TRACE, True, "a=1,b=2", "ann") == (go["trace_id"], go["sampled"], go["tracestate"], go["user"])
    assert go["span_id"] == notes["front"]["seen"]["parent_id"]
    assert [["user", "ann", []]] == notes["front"]["seen"]["baggage"]
    holds(notes, TRACE, "a=1,b=2")


@pytest.mark.parametrize("sampled", [True, False])
def test_zipkin_for_go_in_the_middle(chain, tmp_path, sampled):
    """It speaks B3 in several headers: trace id, parents and decision go through it; it has no tracestate to keep."""
    order = f"zipkin-{sampled}"
    sent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-0{sampled:d}", "tracestate": "a=1"}
    with service_in_go(chain, tmp_path, "zipkin", "github.com/openzipkin/zipkin-go"):
        status, _, body = get(chain.port, f"/zipkin/{order}", **sent)
    assert 200 == status, body
    go = json.loads(body)
    notes = chain.wait(order, "zipkin", "front", "orders", "consumer", "batch")

    own = notes["zipkin"]
    assert (TRACE, "b7ad6b7169203331") == (own["seen"]["trace_id"], own["seen"]["parent_id"])
    assert {"x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"} == own["sent"].keys()
    assert (TRACE, own["sent"]["x-b3-spanid"], sampled) == (go["trace_id"], go["parent_id"], go["sampled"])
    assert go["span_id"] == notes["front"]["seen"]["parent_id"]
    holds(notes, TRACE, "", sampled)
