"""What tests of the Listener share: one that trusts a proxy on this machine, clients, and PROXY headers."""

from __future__ import annotations

import socket
from contextlib import contextmanager

import pytest

from gobanfast import PrefixTable
from gobanfast.frontends.stream import Listener
from oracle import proxy as oracle
from servers import WAIT, listening

PROXIES = PrefixTable([("127.0.0.1/32", 1)])
HEADERS = {
    "v1 IPv4": (oracle.v1("192.0.2.7", "192.0.2.8", 1234, 443), ("192.0.2.7", 1234)),
    "v1 IPv6": (oracle.v1("2001:db8::7", "2001:db8::8", 1234, 443), ("2001:db8::7", 1234, 0, 0)),
    "v2 IPv4": (oracle.v2("192.0.2.7", "192.0.2.8", 1234, 443, checksum=True), ("192.0.2.7", 1234)),
    "v2 IPv6": (oracle.v2("2001:db8::7", "2001:db8::8", 1234, 443), ("2001:db8::7", 1234, 0, 0)),
}


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
