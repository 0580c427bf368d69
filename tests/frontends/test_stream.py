"""The Listener: who gets through accept, with which address, and what those who do not can do to others."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

import pytest

import servers
from gobanfast.frontends.stream import Listener, client_of
from hellos import from_python
from listeners import HEADERS, PROXIES, accept_nobody, connect, ending, listener
from oracle import proxy as oracle
from servers import BAD_CLIENT, WAIT, listening

certificate, engine = servers.certificate, servers.engine


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
