"""A guarded SSLContext: who is refused with which alert, who is served, and what the HTTP layer is told."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import weakref
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import servers
from gobanfast._tls import parse_client_hello
from gobanfast.frontends import tls
from gobanfast.frontends.tls import (
    ACCESS_DENIED,
    UNRECOGNIZED_NAME,
    current_handshake,
    decision_of,
    guard,
    handshake_of,
)
from hellos import from_python, server_name, stream
from servers import BAD_CLIENT, NO_NAME, WAIT, in_thread, listening, program, run, uvicorn_on

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


def server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


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


# ---- handshakes in memory


def client_context(**options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in options.items():
        setattr(context, name, value)
    return context


def shake(server, client, name="good.example", session=None, pieces=1 << 20):
    """Both sides of one handshake, the client's bytes delivered in pieces."""
    there, back, way = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    near = server.wrap_bio(there, back, server_side=True)
    far = client.wrap_bio(back, way, server_hostname=name, session=session)
    done = set()
    for _ in range(3000):
        for side in (far, near):
            with suppress(ssl.SSLWantReadError):
                if side not in done:
                    side.do_handshake()
                    done.add(side)
            if side is far:
                there.write(way.read(pieces))
        if len(done) == 2:
            return near, far
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize("pieces", [1, 7, 100, 1 << 20])
def test_a_hello_in_pieces(certificate, engine, pieces):
    """However a ClientHello comes in, one decision is made, with all of it."""
    seen = []
    context = guard(server_context(certificate), engine, on_decision=seen.append)
    near, _ = shake(context, client_context(), pieces=pieces)

    assert [handshake_of(near)] == seen
    assert ("ok", "good.example") == (seen[0].hello.status, seen[0].sni)
    assert decision_of(near) is seen[0].decision


def test_resumption_is_decided_again(certificate, engine):
    """A resumed session is asked about like any other, under the name of its own ClientHello."""
    seen = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = guard(server_context(certificate), engine, on_decision=seen.append)
        client = client_context(maximum_version=version)
        near, far = shake(context, client)
        near.write(b"x")
        far.read(1)
        again, _ = shake(context, client, "other.example", session=far.session)

        assert ["good.example", "other.example"] == [handshake.sni for handshake in seen[-2:]]
        assert handshake_of(again).hello.session_id or version == ssl.TLSVersion.TLSv1_3
        with pytest.raises(ssl.SSLError, match=r"(?i)access.denied|callback"):
            shake(context, client, "banned.example", session=far.session)


def test_the_answer_to_a_hello_retry_request_is_decided_again(certificate, engine):
    """Both ClientHellos are asked about; the first says what client it is."""
    seen = []
    context = guard(server_context(certificate), engine, on_decision=seen.append)
    context.set_ecdh_curve("secp384r1")  # which a client offers, but sends no key for
    near, _ = shake(context, client_context())

    assert ["good.example"] * 2 == [handshake.sni for handshake in seen]
    assert seen[0].hello is seen[1].hello is not None
    assert handshake_of(near) is seen[1]


def test_callbacks_of_the_application_go_on(certificate, engine):
    """A context's own sni_callback and message callback are still called; a refused client never reaches the first."""
    names, messages = [], []
    context = server_context(certificate)
    context.sni_callback = lambda connection, name, context: names.append(name)
    context._msg_callback = lambda *message: messages.append(message)
    guard(context, engine)
    shake(context, client_context())
    with pytest.raises(ssl.SSLError):
        shake(context, client_context(), "banned.example")
    near, far = socket.socketpair()
    far.setblocking(False)
    with client_context().wrap_socket(far, server_hostname="third.example", do_handshake_on_connect=False) as asking:
        with pytest.raises(ssl.SSLWantReadError):
            asking.do_handshake()
        near.settimeout(0.2)
        with pytest.raises(OSError, match="timed out"):
            context.wrap_socket(near, server_side=True)

    assert ["good.example", "third.example"] == names
    assert len(messages) > 10


def test_an_answer_of_the_application_counts(certificate, engine):
    """What the context's own sni_callback answers is what the client gets."""
    context = server_context(certificate)
    context.sni_callback = lambda connection, name, context: int(UNRECOGNIZED_NAME)
    with pytest.raises(ssl.SSLError, match=r"(?i)callback|unrecognized"):
        shake(guard(context, engine), client_context())


class FailingEngine:
    def decide(self, address, *, sni=None, hello=None):
        raise ZeroDivisionError


@pytest.mark.parametrize("on_error", ["refuse", "allow"])
def test_errors_follow_the_policy_and_are_logged(certificate, engine, on_error, caplog):
    """An exception in the engine or in on_decision refuses or allows as told, and is never silent."""

    def fail(handshake):
        raise ZeroDivisionError

    for broken in (
        guard(server_context(certificate), FailingEngine(), on_error=on_error),
        guard(server_context(certificate), engine, on_decision=fail, on_error=on_error),
        guard(server_context(certificate), engine, alert=fail, on_error="allow"),
    ):
        caplog.clear()
        name = "banned.example" if broken.sni_callback.alert is fail else "good.example"
        if on_error == "refuse" or name == "banned.example":
            with pytest.raises(ssl.SSLError):
                shake(broken, client_context(), name)
        else:
            near, _ = shake(broken, client_context(), name)
            assert handshake_of(near).refused is False
        assert ["ZeroDivisionError"] == [record.exc_info[0].__name__ for record in caplog.records]
        assert [logging.ERROR] == [record.levelno for record in caplog.records]


@pytest.mark.parametrize(
    ("name", "expected"),
    [(b"b\xc3\xbccher.example", UNRECOGNIZED_NAME), (b"\xff", UNRECOGNIZED_NAME), (b"banned.example", ACCESS_DENIED)],
)
def test_names_that_are_not_ascii_are_refused_quietly(certificate, engine, name, expected):
    """CPython would print a traceback for each such name: it never gets to see one, and a decision is made."""
    seen = []
    context = guard(server_context(certificate), engine, on_decision=seen.append)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    there.write(stream([server_name(name), *EXTENSIONS]))
    near = context.wrap_bio(there, back, server_side=True)
    with pytest.raises(ssl.SSLError):
        near.do_handshake()

    assert bytes((2, expected)) == back.read()[5:7]
    assert name == seen[0].hello.sni_bytes


EXTENSIONS = [
    (10, b"\0\2\0\x1d"),
    (13, b"\0\2\4\3"),
    (43, b"\2\3\4"),
    (51, b"\0\x24\0\x1d\0\x20" + bytes(range(32))),
]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 99])
def test_bytes_that_are_no_handshake(certificate, engine, data):
    """OpenSSL's error comes out as without a guard, and no decision is invented."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    there.write(data)
    near = guard(server_context(certificate), engine).wrap_bio(there, back, server_side=True)
    with pytest.raises(ssl.SSLError):
        near.do_handshake()

    assert handshake_of(near) is None


def test_a_guarded_context_makes_clients_too(certificate, engine):
    """A context guarded for the server side is left alone where it connects outward."""
    with pytest.warns(DeprecationWarning, match="PROTOCOL_TLS"):
        context = guard(ssl.SSLContext(ssl.PROTOCOL_TLS), engine)
    near, far = shake(server_context(certificate), context)

    assert far.version() == near.version()
    assert handshake_of(near) is handshake_of(far) is None


def test_connections_leave_nothing_behind(certificate, engine):
    """An SSLObject and its Handshake die with the connection, finished or not, without the help of the collector."""
    context = guard(server_context(certificate), engine)
    gc.collect()
    gc.disable()
    try:
        near, far = shake(context, client_context())
        dead = [weakref.ref(near)]
        half = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
        dead.append(weakref.ref(half))
        tls.CURRENT.set(None)
        del near, far, half
        assert [None, None] == [reference() for reference in dead]
    finally:
        gc.enable()


def test_threads_share_a_context(certificate, engine):
    """Handshakes in several threads each get their own decision."""
    context = guard(server_context(certificate), engine)
    failures = []

    def work(number):
        for i in range(10):
            name = f"n{number}-{i}.example"
            near, _ = shake(context, client_context(), name)
            if handshake_of(near).sni != name:
                failures.append(name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)

    assert [] == failures


def test_misuse_is_refused(certificate, engine):
    """A context is guarded once; policies come from their sets; other objects have no decision."""
    context = guard(server_context(certificate), engine)
    with pytest.raises(ValueError, match="guarded already"):
        guard(context, engine)
    with pytest.raises(ValueError, match="on_error='maybe'"):
        guard(server_context(certificate), engine, on_error="maybe")
    with pytest.raises(ValueError, match="300"):
        guard(server_context(certificate), engine, alert=300)

    assert handshake_of(None) is decision_of(object()) is None


def test_self_check_says_what_works():
    """One line, with a yes or a no for each thing a guard may see; CPython 3.11 and later show all of them."""
    line = tls.self_check()

    assert "\n" not in line
    assert 4 == line.count(" yes")


def test_without_any_private_hook(monkeypatch, certificate, engine):
    """An interpreter that shows no ClientHello still gives the name, and the self-check says so."""
    monkeypatch.setattr(tls, "MESSAGES", None)
    monkeypatch.setattr(tls, "noting_object", lambda base: base)
    monkeypatch.setattr(tls, "noting_socket", lambda base: base)
    context = guard(server_context(certificate), engine)
    near, _ = shake(context, client_context())

    assert (None, "good.example") == (handshake_of(near).hello, handshake_of(near).sni)
    with pytest.raises(ssl.SSLError):
        shake(context, client_context(), "banned.example")
    assert 2 == tls.self_check().count(" yes")


def test_import_of_the_package_imports_no_frontend():
    """`import gobanfast` leaves ssl and the frontends alone."""
    code = "import sys, gobanfast; print([n for n in sys.modules if n == 'ssl' or n.startswith('gobanfast.frontends')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert "[]" == done.stdout.strip()
