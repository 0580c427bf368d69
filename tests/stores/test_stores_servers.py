"""Real servers with several workers: a ban by one is enforced by all, whichever way the workers came to be."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from stores_fakes import WAIT, eventually, redis_server  # noqa: F401 - a fixture

APP = """
import json, os
from urllib.parse import parse_qs
from gobanfast import Engine
from gobanfast.telemetry.metrics import Metrics

engine = Engine.load(os.environ["TEST_RULES"], store=os.environ["TEST_STORE"])
metrics = Metrics(engine, sync=engine.sync, shared_file=os.environ["TEST_METRICS"])
metrics.start()


def answer(path, query):
    asked = {name: values[0] for name, values in parse_qs(query).items()}
    if path == "/ban":
        engine.ban(asked["key"], duration="1h")
        body = {"flushed": engine.sync.flush()}
    elif path == "/total":
        body = {name: value for name, value in metrics.total().items() if name in ("counts", "gauges")}
    else:
        decision = engine.decide(asked["address"])
        metrics.observe(decision)
        body = {"action": decision.action, "cause": decision.cause}
    return json.dumps({"pid": os.getpid(), "running": engine.sync.health()["running"], **body}).encode()


def wsgi(environ, start_response):
    body = answer(environ["PATH_INFO"], environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Length", str(len(body))), ("Connection", "close")])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body = answer(scope["path"], scope["query_string"].decode())
    headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


@contextmanager
def serving(folder, store, *command):
    """A server on a port of its own, in a process group of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "worker_app.py").write_text(APP)
    (folder / "rules.yaml").write_text("rules:\n  - {id: a, when: {prefix: 192.0.2.1/32}, action: ban}\n")
    environ = os.environ | {
        "TEST_RULES": str(folder / "rules.yaml"), "TEST_STORE": store, "TEST_METRICS": str(folder / "metrics"),
        "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[2]}",
    }  # fmt: skip
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", *(part.replace("PORT", str(port)) for part in command)],
        env=environ, stdout=log, stderr=log, cwd=folder, start_new_session=True,
    )  # fmt: skip
    try:
        assert eventually(lambda: get(port, "/", address="192.0.2.9") is not None, 60), (
            folder / "server.log"
        ).read_text()
        yield port
    finally:
        process.terminate()
        try:
            process.wait(WAIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def get(port, path, **query):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    try:
        connection.request("GET", f"{path}?{urlencode(query)}", headers={"Connection": "close"})
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def everyone_bans(port, address, workers):
    """Whether as many different workers as there are have answered "ban", and all do from some moment on."""
    banning, deadline = set(), time.monotonic() + WAIT
    while len(banning) < workers and time.monotonic() < deadline:
        seen = get(port, "/", address=address)
        if seen is None or seen["action"] != "ban":
            banning.clear()
            time.sleep(0.01)
        else:
            assert (seen["running"], seen["cause"]) == (True, "ban")
            banning.add(seen["pid"])
    return len(banning) == workers


def needs(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


@pytest.mark.parametrize("preload", [True, False])
def test_gunicorn_workers_share_bans(tmp_path, preload):
    """Prefork with the engine made before the fork, and after it: a ban by one of 3 workers holds in all."""
    needs("gunicorn")
    command = ["gunicorn", "worker_app:wsgi", "--workers", "3", "--bind", "127.0.0.1:PORT", "--no-control-socket"]
    with serving(tmp_path, f"sqlite:{tmp_path / 'bans.db'}", *command, *(["--preload"] if preload else [])) as port:
        assert get(port, "/ban", key="198.51.100.0/24")["flushed"]
        assert everyone_bans(port, "198.51.100.7", 3)
        time.sleep(1.1)  # the others' snapshots are a second old at most
        counts = get(port, "/total")
        decided = sum(value for name, value in counts["counts"].items() if name.startswith("gobanfast_decisions"))
        assert decided >= 4
        assert counts["gauges"]["gobanfast_workers"] == 3 + preload


def test_uvicorn_workers_share_bans(redis_server, tmp_path):  # noqa: F811
    """Spawned workers, over Redis."""
    needs("uvicorn")
    command = ["uvicorn", "worker_app:asgi", "--workers", "2", "--port", "PORT", "--no-access-log"]
    with serving(tmp_path, redis_server.uri, *command) as port:
        assert get(port, "/ban", key="198.51.100.0/24")["flushed"]
        assert everyone_bans(port, "198.51.100.7", 2)
