"""The Listener: who gets through accept, with which address, and what those who do not can do to others."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

import servers
from gobanfast import PrefixTable
from gobanfast.frontends.stream import Listener, client_of
from gobanfast.frontends.tls import guard, handshake_of
from hellos import from_python
from oracle import proxy as oracle
from servers import BAD_CLIENT, WAIT, in_thread, listening, program, uvicorn_on

certificate, engine = servers.certificate, servers.engine

PROXIES = PrefixTable([("127.0.0.1/32", 1)])


@contextmanager
def listener(engine, **options):
    """A Listener that waits a while, and the list of the Clients it decided about."""
    seen = []
    with Listener(listening(), engine, on_decision=seen.append, **options) as open_listener:
        open_listener.settimeout(WAIT)
        yield open_listener, seen


def connect(target, source="127.0.0.1", data=b""):
    sock = socket.create_connection(target.getsockname(), WAIT, (source, 0))
    if data:
        sock.sendall(data)
    return sock


def ending(sock, wait=0.3):
    """How the other side ended the connection: "closed", "reset", or "open" if it did not for a moment."""
    sock.settimeout(wait)
    try:
        return "closed" if sock.recv(1) == b"" else "data"
    except TimeoutError:
        return "open"
    except ConnectionResetError:
        return "reset"


def accept_nobody(target):
    target.settimeout(0.2)
    with pytest.raises(TimeoutError):
        target.accept()


def test_a_plain_client_is_decided_by_its_address(engine):
    """With no proxy, the address is the peer's; the application reads the first byte."""
    with listener(engine) as (target, seen), connect(target, data=b"hello") as near:
        sock, address = target.accept()
        with sock:
            assert near.getsockname() == address == sock.getpeername()
            assert b"hello" == sock.recv(5)
            assert [client_of(sock)] == seen
            assert ("allow", None) == (seen[0].decision.action, seen[0].refusal)
            assert sock.gettimeout() is None


@pytest.mark.parametrize(("how", "expected"), [("close", "closed"), ("reset", "reset"), ("tarpit", "open")])
def test_a_banned_client_is_refused(engine, how, expected):
    """A ban closes, resets or holds the connection; the application sees nothing of it."""
    with listener(engine, ending=how) as (target, seen), connect(target, "127.0.0.66") as near:
        accept_nobody(target)

        assert [("address", "ban")] == [(client.decision.reason, client.refusal) for client in seen]
        assert expected == ending(near)


def test_a_tarpit_ends(engine):
    """A tarpit holds for its time, then resets."""
    with listener(engine, ending="tarpit", tarpit_seconds=0.1) as (target, _), connect(target, "127.0.0.66") as near:
        accept_nobody(target)
        target.sweep()

        assert "reset" == ending(near)


HEADERS = {
    "v1 IPv4": (oracle.v1("192.0.2.7", "192.0.2.8", 1234, 443), ("192.0.2.7", 1234)),
    "v1 IPv6": (oracle.v1("2001:db8::7", "2001:db8::8", 1234, 443), ("2001:db8::7", 1234, 0, 0)),
    "v2 IPv4": (oracle.v2("192.0.2.7", "192.0.2.8", 1234, 443, checksum=True), ("192.0.2.7", 1234)),
    "v2 IPv6": (oracle.v2("2001:db8::7", "2001:db8::8", 1234, 443), ("2001:db8::7", 1234, 0, 0)),
}


@pytest.mark.parametrize(("header", "expected"), HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("pieces", [1, 5, 1000])
def test_a_trusted_proxy_names_the_client(engine, header, expected, pieces):
    """However the header comes in, the client's address comes out, and the next byte is the application's."""
    with listener(engine, trust=PROXIES) as (target, seen), connect(target) as near:
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = header + b"after"

        def send():
            for at in range(0, len(data), pieces):
                near.sendall(data[at : at + pieces])

        sender = threading.Thread(target=send)
        sender.start()
        sock, address = target.accept()
        sender.join(WAIT)
        with sock:
            assert expected == address == sock.getpeername()
            assert b"after" == sock.recv(5, socket.MSG_WAITALL)
            assert expected[0] == seen[0].address == seen[0].decision.address
            assert near.getsockname() == seen[0].peer


def test_a_proxied_client_is_banned_by_its_own_address(engine):
    """What the proxy says is what rules are asked about."""
    data = oracle.v2("203.0.113.9", "192.0.2.8", 1, 2) + b"GET"
    with listener(engine, trust=PROXIES) as (target, seen), connect(target, data=data) as near:
        accept_nobody(target)

        assert [("ban", "proxied", "203.0.113.9")] == [(c.refusal, c.decision.reason, c.address) for c in seen]
        assert ending(near) in {"closed", "reset"}


def test_the_name_a_proxy_tells_is_a_signal(engine):
    """The authority TLV counts as the host name asked for."""
    data = oracle.v2("192.0.2.7", "192.0.2.8", 1, 2, [(2, b"banned.example")])
    with listener(engine, trust=PROXIES) as (target, seen), connect(target, data=data):
        accept_nobody(target)

        assert [("ban", "name")] == [(client.refusal, client.decision.reason) for client in seen]


@pytest.mark.parametrize("data", [b"PROXY UNKNOWN\r\n", oracle.v2("192.0.2.7", "192.0.2.8", 1, 2, command=0)])
def test_a_proxy_that_does_not_say_gives_no_address(engine, data):
    """The client's address is unknown then, and never taken to be the proxy's."""
    with listener(engine, trust=PROXIES) as (target, seen), connect(target, data=data) as near:
        sock, address = target.accept()
        with sock:
            assert near.getsockname() == address
            assert (None, None) == (seen[0].address, seen[0].decision.address)


@pytest.mark.parametrize(
    "header", [oracle.v1("192.0.2.7", "192.0.2.8", 1, 2), oracle.v2("192.0.2.7", "192.0.2.8", 1, 2)]
)
def test_a_header_of_anyone_else_is_refused(engine, header):
    """A peer that is no proxy of ours cannot say who it is; without one it is served."""
    with listener(engine, trust=PROXIES) as (target, seen), connect(target, "127.0.0.2", header + b"GET"):
        with connect(target, "127.0.0.3", b"PUT / HTTP/1.1\r\n"):
            sock, address = target.accept()
            with sock:
                assert "127.0.0.3" == address[0]
        accept_nobody(target)

        assert {("127.0.0.2", "proxy-spoofed"), ("127.0.0.3", None)} == {(c.peer[0], c.refusal) for c in seen}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET / HTTP/1.1\r\n", "proxy-missing"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n", "proxy-malformed"),
        (oracle.v2("192.0.2.7", "192.0.2.8", 1, 2, [(0xE0, bytes(5000))]), "proxy-malformed"),
    ],
)
def test_a_proxy_without_a_good_header_is_refused(engine, data, expected):
    """A trusted peer must send a header, and a whole one."""
    with listener(engine, trust=PROXIES) as (target, seen), connect(target, data=data):
        accept_nobody(target)

        assert [expected] == [client.refusal for client in seen]


def test_a_client_that_hangs_up_is_forgotten(engine):
    """Half a header and a close is a refusal at once, not a wait for the deadline."""
    with listener(engine, trust=PROXIES) as (target, seen):
        connect(target, data=b"PROXY TCP4 1.2").close()
        connect(target).close()
        accept_nobody(target)

        assert ["closed", "closed"] == [client.refusal for client in seen]


def test_slow_headers_hold_up_nobody(engine):
    """Clients that send a header byte by byte meet the deadline, and others are served meanwhile."""
    with listener(engine, trust=PROXIES, deadline=1.0) as (target, seen):
        slow = [connect(target, data=b"PROXY TCP4 1") for _ in range(20)]
        with connect(target, data=oracle.v1("192.0.2.7", "192.0.2.8", 1, 2)):
            target.accept()[0].close()
            assert [None] == [client.refusal for client in seen]
        for sock in slow:
            sock.sendall(b".")
        target.settimeout(2)
        with pytest.raises(TimeoutError):
            target.accept()

        assert 20 == [client.refusal for client in seen].count("deadline")
        assert {"closed", "reset"} >= {ending(sock) for sock in slow}
        for sock in slow:
            sock.close()


def test_the_oldest_wait_gives_way(engine):
    """With as many waiting as may, one more ends the oldest."""
    with listener(engine, trust=PROXIES, pending_limit=2) as (target, seen):
        waiting = [connect(target, data=b"PROXY ") for _ in range(3)]
        accept_nobody(target)

        assert [(waiting[0].getsockname(), "overload")] == [(client.peer, client.refusal) for client in seen]
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize("proxied", [False, True])
def test_a_client_hello_is_looked_at_and_left(engine, proxied):
    """Name and fingerprint decide without TLS being ended here; the server behind reads the hello itself."""
    header = oracle.v2("192.0.2.7", "192.0.2.8", 1, 2) if proxied else b""
    good, bad = from_python("good.example", ["h2"]), from_python("Banned.Example.", ["h2"])
    with listener(engine, hello=True, trust=PROXIES if proxied else None) as (target, seen):
        with connect(target, data=header + bad), connect(target, data=header + good[:50]) as near:
            time.sleep(0.05)
            threading.Timer(0.1, near.sendall, [good[50:]]).start()
            sock, _ = target.accept()
            with sock:
                assert good == sock.recv(len(good), socket.MSG_WAITALL)
        assert [("Banned.Example.", "ban"), ("good.example", None)] == [(c.hello.sni, c.refusal) for c in seen]
        engine.rule(BAD_CLIENT.format(seen[1].hello.ja4))
        with connect(target, data=header + good):
            accept_nobody(target)
        assert "client" == seen[2].decision.reason


def test_other_protocols_pass_a_listener_that_looks_for_tls(engine):
    """Bytes that are no TLS are decided about without a hello."""
    with listener(engine, hello=True) as (target, seen), connect(target, data=b"GET / HTTP/1.1\r\n\r\n"):
        target.accept()[0].close()

        assert (None, "allow") == (seen[0].hello, seen[0].decision.action)


class FailingEngine:
    def decide(self, address, *, sni=None, hello=None):
        raise ZeroDivisionError


@pytest.mark.parametrize("on_error", ["refuse", "allow"])
def test_errors_follow_the_policy_and_are_logged(on_error, caplog):
    """An engine that raises refuses or allows as told, and is never silent."""
    with listener(FailingEngine(), on_error=on_error) as (target, seen), connect(target):
        if on_error == "allow":
            target.accept()[0].close()
        else:
            accept_nobody(target)

        assert [None if on_error == "allow" else "error"] == [client.refusal for client in seen]
        assert ["ZeroDivisionError"] == [record.exc_info[0].__name__ for record in caplog.records]


def test_a_failing_hook_follows_the_policy(engine, caplog):
    """An exception in on_decision refuses by default; it is logged."""

    def fail(client):
        raise ZeroDivisionError

    with Listener(listening(), engine, on_decision=fail) as target, connect(target) as near:
        accept_nobody(target)

        assert "closed" == ending(near)
        assert 1 == len(caplog.records)


def test_threads_accept_together(engine):
    """Each connection comes out of accept once, whichever thread asks; a close ends the waits of all."""
    with listener(engine) as (target, _):
        target.settimeout(None)
        taken, ends = [], []

        def work():
            try:
                while True:
                    sock, address = target.accept()
                    taken.append(address)
                    sock.close()
            except OSError as problem:
                ends.append(problem.errno)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        near = [connect(target) for _ in range(40)]
        until = time.monotonic() + WAIT
        while len(taken) < 40 and time.monotonic() < until:
            time.sleep(0.01)
        target.close()
        for thread in threads:
            thread.join(WAIT)

        assert sorted(sock.getsockname() for sock in near) == sorted(taken)
        assert [errno.EBADF] * 4 == ends
        assert -1 == target.fileno()
        for sock in near:
            sock.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_accepts_by_itself(engine):
    """A child of fork neither takes nor ends connections its parent waits for."""
    with listener(engine, trust=PROXIES) as (target, seen), connect(target, data=b"PROXY ") as near:
        accept_nobody(target)
        child = os.fork()
        if child == 0:
            try:
                target.settimeout(0)
                with pytest.raises(BlockingIOError):
                    target.accept()
            finally:
                os._exit(0 if not target._pending else 1)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        near.sendall(b"UNKNOWN\r\n")
        target.settimeout(WAIT)
        target.accept()[0].close()

        assert [None] == [client.refusal for client in seen]


def test_socketserver_takes_a_listener(engine):
    """socketserver polls it and accepts from it like from any socket."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(repr(self.client_address[0]).encode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def service_actions(self):
            self.socket.sweep()

    server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = target = Listener(listening(), engine, trust=PROXIES, deadline=0.3)
    target.settimeout(0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with connect(target, data=b"PROXY") as slow, connect(target, data=HEADERS["v1 IPv4"][0]) as near:
            assert b"'192.0.2.7'" == near.recv(100)
            assert "reset" == ending(slow, WAIT)  # that is what closing makes of bytes nobody read
    finally:
        server.shutdown()
        thread.join(WAIT)
        server.server_close()


@contextmanager
def asyncio_server(target, **options):
    """Answers every connection with what asyncio says of it."""

    async def answer(reader, writer):
        client = client_of(writer)
        tls = handshake_of(writer.get_extra_info("ssl_object"))
        await reader.read(1)
        writer.write(repr((writer.get_extra_info("peername")[:2], client.address, tls and tls.address)).encode())
        writer.close()
        await writer.wait_closed()

    async def serve(ready, stopped):
        server = await asyncio.start_server(answer, sock=target, **options)
        ready.set()
        await stopped.wait()
        server.close()

    with in_thread(serve):
        yield


def test_asyncio_takes_a_listener(engine):
    """asyncio's peername is the client's; banned, slow and spoofing clients are ended while it serves others."""
    seen = []
    target = Listener(listening(), engine, trust=PROXIES, deadline=0.3, on_decision=seen.append)
    with (
        asyncio_server(target),
        connect(target, data=b"PROXY ") as slow,
        connect(target, "127.0.0.66", b"x") as banned,
    ):
        for header, expected in HEADERS.values():
            with connect(target, data=header + b"x") as near:
                assert repr((expected[:2], expected[0], None)).encode() == near.recv(200)
        for sock in (slow, banned):
            assert "reset" == ending(sock, WAIT)
    assert [("127.0.0.1", "deadline"), ("127.0.0.66", "ban")] == sorted(
        (c.peer[0], c.refusal) for c in seen if c.refusal
    )


def test_a_guard_behind_a_listener_knows_the_client(certificate, engine):
    """TLS behind a proxy that speaks the PROXY protocol: the handshake is decided by the client's own address."""
    seen = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    guard(context, engine, on_decision=seen.append)
    target = Listener(listening(), engine, trust=PROXIES)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with asyncio_server(target, ssl=context):
        raw = connect(target, data=HEADERS["v2 IPv4"][0])
        with client.wrap_socket(raw, server_hostname="good.example") as near:
            near.sendall(b"x")
            assert repr((HEADERS["v2 IPv4"][1], "192.0.2.7", "192.0.2.7")).encode() == near.recv(200)
    with listener(engine, trust=PROXIES) as (target, _):
        raw = connect(target, data=HEADERS["v1 IPv4"][0])
        asking = threading.Thread(target=lambda: client.wrap_socket(raw, server_hostname="good.example").close())
        asking.start()
        sock, _ = target.accept()
        context.wrap_socket(sock, server_side=True).close()
        asking.join(WAIT)

    assert ["192.0.2.7", "192.0.2.7"] == [handshake.address for handshake in seen]


def test_uvicorn_takes_a_listener(engine):
    """An ASGI application under uvicorn is told the client's address."""
    uvicorn = pytest.importorskip("uvicorn")
    target = Listener(listening(), engine, trust=PROXIES)

    async def application(scope, receive, send):
        body = repr(tuple(scope["client"])).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(application, loop="asyncio", lifespan="off", log_level="critical", proxy_headers=False)
    request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with in_thread(uvicorn_on(config, target)), connect(target, data=HEADERS["v2 IPv4"][0] + request) as near:
        data = b""
        while part := near.recv(1000):
            data += part
    assert data.endswith(b"('192.0.2.7', 1234)")


HAPROXY = """
global
    stats socket {folder}/stats
defaults
    timeout connect 2s
    timeout client 5s
    timeout server 5s
frontend plain
    mode tcp
    bind 127.0.0.1:{plain}
    default_backend plain
backend plain
    mode tcp
    server it 127.0.0.1:{target} {how}
frontend tls
    mode tcp
    bind 127.0.0.1:{tls} ssl crt {folder}/both.pem alpn h2,http/1.1
    default_backend tls
backend tls
    mode tcp
    server it 127.0.0.1:{target} {how}
"""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("version", [1, 2])
def test_haproxy_delivers_addresses_and_names(certificate, engine, version, tmp_path):
    """Real PROXY headers of HAProxy name the client's address and port, version 2 also the SNI and TLS version."""
    haproxy = program("haproxy")
    options = "proxy-v2-options ssl,authority,crc32c,unique-id" if version == 2 else ""
    how = f"send-proxy{'-v2' if version == 2 else ''} {options}"
    (tmp_path / "both.pem").write_bytes(certificate[0].read_bytes() + certificate[1].read_bytes())
    with listener(engine, trust=PROXIES) as (target, seen):
        ports = {"plain": free_port(), "tls": free_port(), "target": target.getsockname()[1]}
        (tmp_path / "haproxy.cfg").write_text(HAPROXY.format(folder=tmp_path, how=how, **ports))
        command = [haproxy, "-db", "-q", "-f", str(tmp_path / "haproxy.cfg")]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            try:
                wait_for(ports["tls"], process)
                with socket.create_connection(("127.0.0.1", ports["plain"]), WAIT, ("127.0.0.9", 0)) as near:
                    near.sendall(b"x")
                    sock, address = target.accept()
                    sock.close()
                    assert near.getsockname() == address
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.set_alpn_protocols(["h2"])
                raw = socket.create_connection(("127.0.0.1", ports["tls"]), WAIT, ("127.0.0.9", 0))
                with context.wrap_socket(raw, server_hostname="good.example") as near:
                    near.sendall(b"x")
                    sock, address = target.accept()
                    sock.close()
                    assert near.getsockname() == address
                    header = [client for client in seen if client.port == address[1]][-1].header
                    assert (version, "127.0.0.9") == (header.version, header.source)
                    if version == 2:
                        assert ("good.example", True, near.version()) == (
                            header.authority,
                            header.ssl.tls,
                            header.ssl.version,
                        )
                        assert 3 in dict(header.tlvs)  # a checksum was there, and held
                if version == 2:
                    raw = socket.create_connection(("127.0.0.1", ports["tls"]), WAIT)
                    with context.wrap_socket(raw, server_hostname="banned.example") as near:
                        near.sendall(b"x")
                        accept_nobody(target)
                    assert "name" == seen[-1].decision.reason
            finally:
                process.terminate()
                process.wait(WAIT)


def wait_for(port, process):
    until = time.monotonic() + WAIT
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(
        f"HAProxy did not start: {process.stderr.read().decode() if process.poll() is not None else ''}"
    )


@pytest.mark.parametrize("version", [1, 2])
def test_haproxy_passes_tls_through(engine, version, tmp_path):
    """Behind HAProxy that does not end TLS, the PROXY header names the client and the peeked ClientHello its host."""
    haproxy = program("haproxy")
    how = f"send-proxy{'-v2' if version == 2 else ''}"
    good, bad = from_python("good.example", ["h2"]), from_python("banned.example", ["h2"])
    with listener(engine, hello=True, trust=PROXIES) as (target, seen):
        port = free_port()
        text = HAPROXY[: HAPROXY.index("frontend tls")]
        text = text.format(folder=tmp_path, how=how, plain=port, target=target.getsockname()[1])
        (tmp_path / "haproxy.cfg").write_text(text)
        command = [haproxy, "-db", "-q", "-f", str(tmp_path / "haproxy.cfg")]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            try:
                wait_for(port, process)
                with socket.create_connection(("127.0.0.1", port), WAIT, ("127.0.0.9", 0)) as near:
                    near.sendall(good)
                    sock, address = target.accept()
                    with sock:
                        assert (near.getsockname(), good) == (address, sock.recv(len(good), socket.MSG_WAITALL))
                with socket.create_connection(("127.0.0.1", port), WAIT, ("127.0.0.9", 0)) as near:
                    near.sendall(bad)
                    accept_nobody(target)
            finally:
                process.terminate()
                process.wait(WAIT)
    told = [(c.address, c.hello.sni, c.decision.reason) for c in seen if c.hello is not None]
    assert [("127.0.0.9", "good.example", None), ("127.0.0.9", "banned.example", "name")] == told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ending": "explode"}, "ending='explode' is not one of close, reset, tarpit"),
        ({"on_error": "maybe"}, "on_error='maybe'"),
        ({"deadline": 0}, "deadline=0"),
        ({"pending_limit": 0}, "pending_limit=0"),
    ],
)
def test_misuse_is_refused(engine, options, words):
    """Options come from their sets, and the socket is a TCP one."""
    with listening() as sock, pytest.raises(ValueError, match=words):
        Listener(sock, engine, **options)
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ValueError, match="not a TCP socket"):
        Listener(sock, engine)
