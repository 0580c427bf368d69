"""A guarded SSLContext, by handshakes in memory: what is refused, what is told, and what goes on as without it."""

from __future__ import annotations

import gc
import logging
import socket
import ssl
import subprocess
import sys
import threading
import weakref
from contextlib import suppress

import pytest

import servers
from gobanfast.frontends import tls
from gobanfast.frontends.tls import (
    ACCESS_DENIED,
    UNRECOGNIZED_NAME,
    decision_of,
    guard,
    handshake_of,
)
from hellos import server_name, stream
from servers import WAIT, server_context

certificate, engine = servers.certificate, servers.engine


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
