"""The middlewares under real servers, asked by real clients: who gets in, what bad input does, what stays alive."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from servers import WAIT, certificate, listening, program, run  # noqa: F401 - a fixture

HERE = Path(__file__).parents[1]
GOOD, BANNED, FAILING = "127.0.0.9", "127.0.0.66", "127.0.0.99"


def free_port():
    with listening() as sock:
        return sock.getsockname()[1]


@contextmanager
def spawned(*command, port=0, path="", trust=(), cwd=HERE):
    """A server in a process of its own, once it takes connections on `port`, or on the UNIX socket `path`."""
    environ = os.environ | {"TEST_TRUST": json.dumps(list(trust)), "PYTHONPATH": str(HERE)}
    process = subprocess.Popen(
        command, cwd=cwd, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        until = time.monotonic() + WAIT
        while True:
            try:
                connected(port, path).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    process.kill()
                    pytest.fail(process.stderr.read().decode())
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()


def connected(port, path):
    if not path:
        return socket.create_connection(("127.0.0.1", port), WAIT)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(WAIT)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def python(*arguments):
    return [sys.executable, *arguments]


SERVERS = {
    "uvicorn": lambda port: python(
        "-m", "uvicorn", "http_app:asgi", "--port", f"{port}", "--http", "h11", "--no-proxy-headers"
    ),
    "uvicorn httptools": lambda port: python(
        "-m", "uvicorn", "http_app:asgi", "--port", f"{port}", "--http", "httptools", "--no-proxy-headers"
    ),
    "hypercorn": lambda port: python("-m", "hypercorn", "http_app:asgi", "--bind", f"127.0.0.1:{port}"),
    "granian asgi": lambda port: python("-m", "granian", "--interface", "asgi", "--port", f"{port}", "http_app:asgi"),
    "granian wsgi": lambda port: python("-m", "granian", "--interface", "wsgi", "--port", f"{port}", "http_app:wsgi"),
    "gunicorn": lambda port: python(
        "-m", "gunicorn", "http_app:wsgi", "--bind", f"127.0.0.1:{port}", "--threads", "32"
    ),
}


def start(name):
    for module in set(name.split()) - {"asgi", "wsgi"}:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    port = free_port()
    return port, spawned(*SERVERS[name](port), port=port, trust=["127.0.0.1"])


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    """(name, port) of each server, running as long as the tests of this module need it."""
    port, running = start(request.param)
    with running:
        yield request.param, port


def get(port, path="/", *, source=GOOD, method="GET", body=None, **headers):
    """(status, headers, body) as one client gets them."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT, source_address=(source, 0))
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answered = connection.getresponse()
        return answered.status, answered.headers, answered.read()
    finally:
        connection.close()


@pytest.mark.parametrize("left", [b"\xff, ", b"\xe9", b"x\x80\r\nX-Forwarded-For: ", b"\xff\xfe,\xc3\xa9, "])
def test_bytes_that_are_no_text_in_a_chain_free_nobody(server, left):
    """Whatever a banned client puts before what the proxy appends, no server's reading of it lets the client in: the
    header that granian's WSGI drops whole is missed, and the rest is read from the right."""
    _, port = server
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: %b203.0.113.66\r\n\r\n"

    assert raw(port, request % left, source="127.0.0.1").split()[1:2] in ([b"403"], [b"400"])


def test_a_probe_of_the_proxy(server):
    """A trusted peer that names no client is decided by its own address; under WSGI it owes a chain."""
    name, port = server
    status, _, body = get(port, source="127.0.0.1")

    if name in {"gunicorn", "granian wsgi"}:
        assert (403, "malformed-address") == (status, json.loads(body)["reason"])
    else:
        assert (200, "127.0.0.1", "trusted") == (status, *(json.loads(body)[key] for key in ("address", "status")))


def raw(port, data, *, source=GOOD, shut=False):
    """First line that comes back for `data`, b"" if the server just closes."""
    with socket.create_connection(("127.0.0.1", port), WAIT, source_address=(source, 0)) as sock:
        try:
            sock.sendall(data)
            if shut:
                sock.shutdown(socket.SHUT_WR)
            return sock.makefile("rb").readline()
        except ConnectionError:
            return b""


def test_every_server_lets_in_and_refuses(server):
    """Under each server a good client reaches the application by its own address, a banned one is told why, a failing
    engine is 503, bodies arrive whole, and a proxy's word is taken where it is trusted."""
    _, port = server

    status, headers, body = get(port, method="POST", body=b"x" * 200_000)
    refused = get(port, source=BANNED)
    spoofed = get(port, x_forwarded_for="203.0.113.9", x_request_id="mine")
    proxied = get(port, source="127.0.0.1", x_forwarded_for="203.0.113.66")
    failed = get(port, source=FAILING)
    after = get(port)

    told = json.loads(body)
    assert (200, GOOD, 200_000) == (status, told["address"], told["length"])
    assert [told["request_id"]] == headers.get_all("x-request-id")
    assert (403, "<probing>") == (refused[0], json.loads(refused[2])["reason"])
    assert (GOOD, False) == (json.loads(spoofed[2])["address"], json.loads(spoofed[2])["request_id"] == "mine")
    assert [403, 503, 200] == [proxied[0], failed[0], after[0]]


def test_websockets(server):
    """A banned client's handshake is answered 403, another one's socket opens."""
    client = pytest.importorskip("websockets.sync.client")
    from websockets.exceptions import InvalidStatus

    name, port = server
    if name in WSGI:
        pytest.skip("WSGI has no WebSockets")

    with client.connect(f"ws://127.0.0.1:{port}/", source_address=(GOOD, 0)) as opened:
        assert GOOD == opened.recv()
    with pytest.raises(InvalidStatus) as refused:
        client.connect(f"ws://127.0.0.1:{port}/", source_address=(BANNED, 0))

    assert 403 == refused.value.response.status_code


def test_streams_are_not_held_back(server):
    """Server-sent events arrive one by one while the application is still at it."""
    name, port = server
    if name in WSGI:
        pytest.skip("the application has events under ASGI only")

    with socket.create_connection(("127.0.0.1", port), WAIT, source_address=(GOOD, 0)) as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        seen = b""
        while b"data: 0\n\n" not in seen:
            seen += sock.recv(65536)
        assert b"data: 2" not in seen
        while b"data: 2" not in seen:
            seen += sock.recv(65536)


HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
BAD_INPUT = {
    "ten thousand headers": HEAD + b"X-Forwarded-For: 203.0.113.9\r\n" * 10_000 + b"\r\n",
    "a header of a megabyte": HEAD + b"X-Forwarded-For: " + b"203.0.113.9," * 90_000 + b"\r\n\r\n",
    "two hosts": HEAD + b"Host: b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    "a line break in a value": HEAD + b"X-Forwarded-For: 203.0.113.9\rX-Evil: 1\r\n\r\n",
    "a folded line": HEAD + b"X-Forwarded-For: 203.0.113.9,\r\n 198.51.100.1\r\n\r\n",
    "a blank before the colon": HEAD + b"X-Forwarded-For : 203.0.113.9\r\n\r\n",
    "an underscore": HEAD + b"X_Forwarded_For: 203.0.113.66\r\n\r\n",
    "a NUL": HEAD + b"X-Forwarded-For: 203.0.113.9\x00\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bytes that are no text": HEAD + b"X-Forwarded-For: \xff\xfe\r\nUser-Agent: \xe9\r\n\r\n",
    "a path that is no text": b"GET /\xff\xfe%ff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "a method nobody knows": b"GE\x7fT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
}
STATED = {  # what the server lets pass is malformed to the engine, because a rule requires a header
    "ten thousand headers": {400, 403, 431},
    "a header of a megabyte": {400, 403, 431},
    "two hosts": {400, 403},  # granian's WSGI environ has one of them, and nobody can tell
}
WSGI = {"granian wsgi", "gunicorn"}
ANSWERS = {200, 400, 403, 413, 431, 501}


def test_bad_input_is_answered_and_the_application_stays(server):
    """Whatever a client sends, the server answers it or closes, the application does not fail, and a banned client is
    refused in the same disguise; then half-open clients hold nobody up."""
    name, port = server
    stated = {what: answers for what, answers in STATED.items() if (name, what) != ("granian wsgi", "two hosts")}

    for what, data in BAD_INPUT.items():
        for source in (GOOD, "127.0.0.1"):
            line = raw(port, data, source=source)
            assert not line or int(line.split()[1]) in stated.get(what, ANSWERS), (what, source, line)
        line = raw(port, data, source=BANNED)
        assert not line or int(line.split()[1]) in ANSWERS - {200}, (what, line)
    half_open = [socket.create_connection(("127.0.0.1", port), WAIT) for _ in range(20)]
    for index, sock in enumerate(half_open):
        sock.sendall(HEAD[: 5 + index])
    assert 200 == get(port)[0]
    for sock in half_open:
        sock.close()
    assert 200 == get(port)[0]


@pytest.fixture(scope="module")
def http2(certificate):  # noqa: F811 - the fixture
    """Port of a hypercorn that speaks HTTP/2."""
    port = free_port()
    files = ["--certfile", str(certificate[0]), "--keyfile", str(certificate[1])]
    command = python("-m", "hypercorn", "http_app:asgi", "--bind", f"127.0.0.1:{port}", *files)
    with spawned(*command, port=port):
        yield port


def test_curl_over_http2(http2):
    """curl over HTTP/2 reaches the application, or the refusal, as over HTTP/1.1."""
    curl = program("curl")
    asked = [curl, "--silent", "--insecure", "--include", f"https://127.0.0.1:{http2}/"]

    for version, line in (("--http2", b"HTTP/2 "), ("--http1.1", b"HTTP/1.1 ")):
        good = run(*asked, version, "--interface", GOOD).stdout
        banned = run(*asked, version, "--interface", BANNED).stdout
        assert good.startswith(line + b"200"), good
        assert banned.startswith(line + b"403"), banned
        assert b"x-request-id: " in banned.lower()


def test_h2load_over_http2(http2):
    """Many requests at a time over a few HTTP/2 connections are all served."""
    done = run(program("h2load"), "-n", "200", "-c", "4", "-m", "10", f"https://127.0.0.1:{http2}/").stdout.decode()

    assert "200 succeeded, 0 failed" in done
    assert "status codes: 200 2xx" in done


BASE = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")]
ODDITIES = {
    "host and authority differ": [*BASE, ("host", "other.example")],
    "two authorities": [*BASE, (":authority", "other.example")],
    "a pseudo-header after a header": [*BASE[:3], ("a", "b"), BASE[3]],
    "a pseudo-header nobody knows": [*BASE, (":client", "127.0.0.66")],
    "no path": BASE[:3],
    "an empty path": [*BASE[:3], (":path", "")],
    "a name in upper case": [*BASE, ("X-Forwarded-For", "203.0.113.9")],
    "a line break in a value": [*BASE, ("x-forwarded-for", "203.0.113.9\r\nx-evil: 1")],
    "a header of the connection": [*BASE, ("connection", "x-forwarded-for")],
    "cookie crumbs": [*BASE, ("cookie", "a=1"), ("cookie", "b=2")],
}


@pytest.mark.parametrize("what", ODDITIES)
def test_http2_oddities(http2, what):
    """A request whose pseudo-headers are odd is answered, reset, or ends its connection; the next client is served."""
    h2_connection = pytest.importorskip("h2.connection")
    from h2.config import H2Configuration
    from h2.events import ConnectionTerminated, ResponseReceived, StreamReset

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    careless = H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="latin-1"
    )
    plain = socket.create_connection(("127.0.0.1", http2), WAIT, source_address=(GOOD, 0))
    with context.wrap_socket(plain) as sock:
        connection = h2_connection.H2Connection(careless)
        connection.initiate_connection()
        connection.send_headers(1, ODDITIES[what], end_stream=True)
        sock.sendall(connection.data_to_send())
        ended = None
        while ended is None and (data := sock.recv(65536)):
            for event in connection.receive_data(data):
                if isinstance(event, (ResponseReceived, StreamReset, ConnectionTerminated)):
                    ended = event
    if isinstance(ended, ResponseReceived):
        assert int(dict(ended.headers)[":status"]) in ANSWERS

    curl = program("curl")
    done = run(curl, "--silent", "--insecure", "--http2", "--interface", GOOD, f"https://127.0.0.1:{http2}/")
    assert GOOD == json.loads(done.stdout)["address"]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("uvicorn http_app:doctor --proxy-headers --port", True),
        ("uvicorn http_app:doctor --no-proxy-headers --port", False),
        ("gunicorn http_app:proxy_fixed() --bind 127.0.0.1:", True),
        ("gunicorn http_app:wsgi_doctor --bind 127.0.0.1:", False),
    ],
)
def test_doctor_finds_a_server_that_believes_everyone(server, expected, monkeypatch):
    """The command tells, from outside, that a server lets us name our own address, and says nothing where it does not;
    who does not know the token learns nothing."""
    from typer.testing import CliRunner

    from gobanfast.cli.app import app
    from http_app import TOKEN

    port = free_port()
    url = f"http://127.0.0.1:{port}"  # where it asks at the usual path
    *command, last = server.split()
    monkeypatch.setenv("GOBANFAST_TOKEN", TOKEN)
    with spawned(*python("-m", *command, *([last, f"{port}"] if last == "--port" else [f"{last}{port}"])), port=port):
        get(port, source="127.0.0.1", X_Forwarded_For=GOOD)
        result = CliRunner().invoke(app, ["doctor", "--url", url, "--json"])
        stranger = get(port, "/gobanfast-doctor")[0]

    found = {finding["code"] for finding in json.loads(result.output)}
    assert expected == ("server-believes-us" in found)
    assert expected == ("server-rewrote-client" in found)
    assert 401 == stranger


ON_SOCKETS = {
    "uvicorn": ("uvicorn", "http_app:asgi", "--no-proxy-headers", "--uds", "{}"),
    "hypercorn": ("hypercorn", "http_app:asgi", "--bind", "unix:{}"),
    "granian asgi": ("granian", "--interface", "asgi", "http_app:asgi", "--uds", "{}"),
    "gunicorn": ("gunicorn", "http_app:wsgi", "--bind", "unix:{}"),
}


@pytest.mark.parametrize("name", ON_SOCKETS)
def test_unix_sockets(name, tmp_path):
    """A proxy on a UNIX socket is believed if `unix` is trusted, under each server's way to say that it has no address;
    its client is banned by address; a request that names no client is the proxy's own, and under WSGI unparsable."""
    if find_spec(name.split()[0]) is None:
        pytest.skip(f"{name.split()[0]} is not installed")
    path = str(tmp_path / "socket")

    def ask(*lines):
        with connected(0, path) as sock:
            sock.sendall("\r\n".join(["GET / HTTP/1.0", "Host: a", *lines, "", ""]).encode())
            head, _, body = sock.makefile("rb").read().partition(b"\r\n\r\n")
            return int(head.split()[1]), json.loads(body)

    command = [argument.format(path) for argument in ON_SOCKETS[name]]
    with spawned(*python("-m", *command), path=path, trust=["unix"]):
        status, told = ask()
        if name == "gunicorn":
            assert (403, "malformed-address") == (status, told["reason"])
        else:
            assert (200, None, "trusted") == (status, told["address"], told["status"])
        status, told = ask("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X-Request-ID: r-1")
        assert (200, "203.0.113.9", "https", "r-1") == (status, told["address"], told["scheme"], told["request_id"])
        status, told = ask("X-Forwarded-For: 203.0.113.66")
        assert (403, "<probing>") == (status, told["reason"])
