"""Servers and proxies around a Listener: each is told the client's address, and HAProxy the name."""

from __future__ import annotations

import asyncio
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

import servers
from gobanfast.frontends.stream import Listener, client_of
from gobanfast.frontends.tls import guard, handshake_of
from hellos import from_python
from listeners import HEADERS, PROXIES, accept_nobody, connect, ending, listener
from servers import WAIT, in_thread, listening, program, uvicorn_on

certificate, engine = servers.certificate, servers.engine


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
