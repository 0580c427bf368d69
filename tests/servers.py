"""What tests of frontends share: a certificate, an engine for them, servers in threads, and real clients."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from gobanfast import Engine, Ruleset

WAIT = 10  # seconds any single step may take

RULES = """
rules:
  - {id: bad-address, when: {prefix: 127.0.0.66/32}, action: ban, reason: address}
  - {id: bad-proxied, when: {prefix: [203.0.113.0/24, "2001:db8:66::/48"]}, action: ban, reason: proxied}
  - {id: bad-name, when: {sni: banned.example}, action: ban, reason: name}
"""
BAD_CLIENT = "  - {{id: bad-client, when: {{ja4: {}}}, action: ban, reason: client}}\n"
NO_NAME = "  - {id: no-name, when: {sni: absent}, action: ban, reason: nameless}\n"


class Switch:
    """An engine whose rules a test changes under a running server."""

    def __init__(self):
        self.engine = Engine(Ruleset.from_text(RULES))
        self.decide = self.engine.decide

    def rule(self, *more):
        """Puts the rules in force, with `more` of them behind."""
        self.engine.swap(Ruleset.from_text(RULES + "".join(more)))


@pytest.fixture
def engine():
    return Switch()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(certificate, key) files for localhost and example.com, EC P-256."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.DNSName("*.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    no_password = serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(pem, form, no_password))
    return files


def server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def program(name):
    """Path of a program on PATH or in this environment; skips the test where there is none."""
    path = shutil.which(name) or shutil.which(name, path=os.path.dirname(sys.executable))
    if path is None:
        pytest.skip(f"{name} is not on PATH")
    return path


def run(*command, data=b""):
    return subprocess.run(command, input=data, capture_output=True, timeout=WAIT, check=False)


def listening():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    return sock


def uvicorn_on(config, sock):
    """What `in_thread` runs for a uvicorn server that listens on this socket."""
    import uvicorn

    async def serve(ready, stopped):
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        ready.set()
        await stopped.wait()
        server.should_exit = True
        await task

    return serve


@contextmanager
def in_thread(serve):
    """Runs `serve(ready, stopped)`, a coroutine function, in a loop of its own; its errors are the test's."""
    ready, failures = threading.Event(), []
    box = {}

    async def body():
        box["loop"], box["stopped"] = asyncio.get_running_loop(), asyncio.Event()
        await serve(ready, box["stopped"])

    def target():
        try:
            asyncio.run(body())
        except Exception as failure:  # noqa: BLE001 - shown below
            failures.append(failure)
        finally:
            ready.set()

    thread = threading.Thread(target=target)
    thread.start()
    try:
        assert ready.wait(WAIT)
        assert not failures, failures
        yield
    finally:
        with suppress(RuntimeError):
            box["loop"].call_soon_threadsafe(box["stopped"].set)
        thread.join(WAIT)
        assert not thread.is_alive()
    assert not failures, failures
