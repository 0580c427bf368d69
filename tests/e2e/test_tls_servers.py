"""Servers over a guarded SSLContext and real clients: who is refused with which alert, and what is told."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import servers
from gobanfast._core.client_hello import parse_client_hello
from gobanfast.frontends import tls
from gobanfast.frontends.tls import (
    ACCESS_DENIED,
    UNRECOGNIZED_NAME,
    current_handshake,
    guard,
    handshake_of,
)
from hellos import from_python
from servers import BAD_CLIENT, NO_NAME, WAIT, in_thread, listening, program, run, server_context, uvicorn_on

certificate, engine = servers.certificate, servers.engine


# ---- servers: each serves what the handshake of its connection said, as JSON


def told(handshake):
    """What an application can say about the handshake it was handed."""
    if handshake is None:
        return None
    hello, decision = handshake.hello, handshake.decision
    return {
        "address": handshake.address,
        "sni": handshake.sni,
        "ja4": hello.ja4 if hello is not None else None,
        "action": decision.action,
        "reason": decision.reason,
        "asked": decision.address,
    }


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    body = json.dumps(told(current_handshake())).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def plain_asyncio(certificate, guarded):
    sock = listening()

    async def answer(reader, writer):
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = json.dumps(told(handshake_of(writer.get_extra_info("ssl_object")))).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def serve(ready, stopped):
        server = await asyncio.start_server(answer, sock=sock, ssl=guarded(server_context(certificate)))
        ready.set()
        await stopped.wait()
        server.close()

    with in_thread(serve):
        yield sock.getsockname()[1]


@contextmanager
def under_uvicorn(certificate, guarded, app=application):
    uvicorn = pytest.importorskip("uvicorn")
    sock = listening()
    config = uvicorn.Config(
        app,
        ssl_certfile=str(certificate[0]),
        ssl_keyfile=str(certificate[1]),
        ssl_context_factory=lambda config, default: guarded(default()),
        loop="asyncio",
        log_level="critical",
    )
    with in_thread(uvicorn_on(config, sock)):
        yield sock.getsockname()[1]
    sock.close()


@contextmanager
def under_hypercorn(certificate, guarded):
    hypercorn_config = pytest.importorskip("hypercorn.config")
    from hypercorn.asyncio import serve as hypercorn_serve

    class Config(hypercorn_config.Config):
        def create_ssl_context(self):
            return guarded(super().create_ssl_context())

    sock = listening()
    config = Config()
    config.certfile, config.keyfile = map(str, certificate)
    config.bind = [f"fd://{sock.detach()}"]
    config.loglevel = "CRITICAL"
    with socket.socket(fileno=os.dup(int(config.bind[0][5:]))) as same:
        port = same.getsockname()[1]

    async def serve(ready, stopped):
        task = asyncio.create_task(hypercorn_serve(application, config, shutdown_trigger=stopped.wait))
        await asyncio.sleep(0.05)
        ready.set()
        await task

    with in_thread(serve):
        yield port


@contextmanager
def under_http_server(certificate, guarded):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(told(handshake_of(self.connection))).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = guarded(server_context(certificate)).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=partial(server.serve_forever, 0.02))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(WAIT)
        server.server_close()


SERVERS = {
    "asyncio": plain_asyncio,
    "uvicorn": under_uvicorn,
    "hypercorn": under_hypercorn,
    "http.server": under_http_server,
}


# ---- clients: each gives ("served", what the server told) or ("refused", name of the alert)

ALERTS = {"access denied": ACCESS_DENIED, "unrecognized name": UNRECOGNIZED_NAME}
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def alert_in(text):
    return next((alert for words, alert in ALERTS.items() if words in text.lower().replace("_", " ")), text)


def python_client(port, name, source, *, protocols=("http/1.1",)):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(protocols)
    raw = socket.create_connection(("127.0.0.1", port), WAIT, (source, 0))
    try:
        with context.wrap_socket(raw, server_hostname=name) as sock:
            sock.sendall(REQUEST)
            data = b""
            while part := sock.recv(65536):
                data += part
    except ssl.SSLError as problem:
        return "refused", alert_in(str(problem))
    return "served", json.loads(data.partition(b"\r\n\r\n")[2])


def openssl_client(port, name, source):
    names = ["-servername", name] if name else ["-noservername"]
    command = [program("openssl"), "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", "-bind", f"{source}:0"]
    done = run(*command, *names, data=REQUEST)
    if b" 200 " in done.stdout[:20]:
        return "served", json.loads(done.stdout.partition(b"\r\n\r\n")[2])
    return "refused", alert_in(done.stderr.decode())


def curl_client(port, name, source, *, version="--http1.1"):
    command = [program("curl"), "-sSk", version, "--interface", source, "--max-time", str(WAIT)]
    where = (
        ["--resolve", f"{name}:{port}:127.0.0.1", f"https://{name}:{port}/"] if name else [f"https://127.0.0.1:{port}/"]
    )
    done = run(*command, *where)
    if done.returncode == 0:
        return "served", json.loads(done.stdout)
    return "refused", alert_in(done.stderr.decode())


CLIENTS = {
    "python": python_client,
    "openssl": openssl_client,
    "curl": curl_client,
    "curl h2": partial(curl_client, version="--http2"),
}

each_server = pytest.mark.parametrize("serve", SERVERS.values(), ids=SERVERS)
each_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)


@each_client
@each_server
def test_real_clients_are_refused_or_served(serve, client, certificate, engine):
    """By address, name and JA4: refused with the policy's alert, else served, the application told why."""
    seen = []

    def alert(decision):
        return UNRECOGNIZED_NAME if decision.rule == "bad-name" else ACCESS_DENIED

    with serve(certificate, partial(guard, engine=engine, alert=alert, on_decision=seen.append)) as port:
        outcome, body = client(port, "good.example", "127.0.0.1")
        assert ("served", "127.0.0.1", "good.example") == (outcome, body["address"], body["sni"])
        assert (told(seen[-1]), seen[-1].refused) == (body, False)
        assert body["action"] == "allow"

        assert ("refused", UNRECOGNIZED_NAME) == client(port, "banned.example", "127.0.0.1")
        assert ("name", True) == (seen[-1].decision.reason, seen[-1].refused)

        assert ("refused", ACCESS_DENIED) == client(port, "good.example", "127.0.0.66")
        assert ("address", "127.0.0.66") == (seen[-1].decision.reason, seen[-1].decision.address)

        engine.rule(BAD_CLIENT.format(body["ja4"]))
        assert ("refused", ACCESS_DENIED) == client(port, "good.example", "127.0.0.1")
        assert ("client", True) == (seen[-1].decision.reason, seen[-1].refused)

        engine.rule()
        outcome, body = client(port, None, "127.0.0.1")
        assert ("served", None) == (outcome, body["sni"])
        engine.rule(NO_NAME)
        assert ("refused", ACCESS_DENIED) == client(port, None, "127.0.0.1")


GUNICORN = """
import json

from gobanfast import Engine
from gobanfast.frontends.tls import current_handshake, guard, handshake_of

engine = Engine.load("rules.yaml")


def told(handshake):
    return json.dumps([handshake.address, handshake.sni, handshake.decision.reason])


def answer(handshake):
    body = told(handshake).encode()
    return body, [("content-length", str(len(body)))]


def note(handshake):
    with open("decisions", "a") as out:
        print(told(handshake), file=out)


def ssl_context(config, default):
    return guard(default(), engine, on_decision=note)


def wsgi(environ, start_response):
    body, headers = answer(handshake_of(environ["gunicorn.socket"]))
    start_response("200 OK", headers)
    return [body]


async def asgi(scope, receive, send):
    body, headers = answer(current_handshake())
    headers = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize("worker", ["sync", "gthread", "asgi"])
def test_gunicorn_refuses_or_serves(worker, certificate, tmp_path):
    """Under gunicorn's workers, clients are refused by name and by JA4 or served, and the application is told."""
    pytest.importorskip("gunicorn")
    hello = parse_client_hello(from_python("good.example", ["h2"]))
    (tmp_path / "guarded.py").write_text(GUNICORN)
    (tmp_path / "rules.yaml").write_text(servers.RULES + BAD_CLIENT.format(hello.ja4))
    command = [sys.executable, "-m", "gunicorn", "--chdir", str(tmp_path), "-c", str(tmp_path / "guarded.py")]
    command += ["--log-level", "critical", "--worker-tmp-dir", str(tmp_path), "--no-control-socket"]
    command += ["--certfile", str(certificate[0]), "--keyfile", str(certificate[1]), "-k", worker]
    command += ["--asgi-loop", "asyncio"]  # uvloop, where it is installed, would keep the handshake to itself
    where = {"PYTHONPATH": str(Path(tls.__file__).parents[2]), **os.environ}
    with listening() as sock:
        port = sock.getsockname()[1]
        command += ["-b", f"fd://{sock.fileno()}", f"guarded:{'asgi' if worker == 'asgi' else 'wsgi'}"]
        with subprocess.Popen(command, pass_fds=[sock.fileno()], env=where, cwd=tmp_path) as process:
            try:
                served = python_client(port, "good.example", "127.0.0.1")
                named = python_client(port, "banned.example", "127.0.0.1")
                printed = python_client(port, "good.example", "127.0.0.1", protocols=["h2"])
            finally:
                process.terminate()

    seen = [
        ["127.0.0.1", "good.example", None],
        ["127.0.0.1", "banned.example", "name"],
        ["127.0.0.1", "good.example", "client"],
    ]
    assert [("served", seen[0]), ("refused", ACCESS_DENIED), ("refused", ACCESS_DENIED)] == [served, named, printed]
    assert seen == [json.loads(line) for line in (tmp_path / "decisions").read_text().splitlines()]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_two_versions_of_http(certificate, engine, version):
    """hypercorn under guard speaks the version of HTTP that curl asks for."""
    curl = program("curl")
    with under_hypercorn(certificate, partial(guard, engine=engine)) as port:
        done = run(curl, "-sk", version, "-o", os.devnull, "-w", "%{http_version}", f"https://127.0.0.1:{port}/")

    assert version == "--http" + {b"2": "2", b"1.1": "1.1"}[done.stdout]


@pytest.mark.parametrize(("loop", "expected"), [("asyncio", 0), ("uvloop", 1)])
def test_uvloop_is_told_of_once(engine, certificate, caplog, loop, expected):
    """Under uvloop, which hides handshakes from applications, the first one guarded logs a warning, others none."""
    module = pytest.importorskip(loop)

    async def connections():
        async def serve(reader, writer):
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=guard(server_context(certificate), engine))
        client = ssl.create_default_context(cafile=str(certificate[0]))
        for _ in range(3):
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=client, server_hostname="localhost"
            )
            assert b"" == await reader.read()
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    with caplog.at_level("WARNING", "gobanfast.tls"), asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        runner.run(connections())

    assert expected == sum("--loop asyncio" in record.message for record in caplog.records)
