"""Decides inside the TLS handshake, for any server that takes an `ssl.SSLContext`: `guard(context, engine)`.

The decision is made by all that is known before the server's first answer: the whole ClientHello (host name, ALPN, JA4) and
the client's address. A refused client gets a TLS alert and no certificate. What was decided is handed on to the HTTP layer:
`decision_of(transport.get_extra_info("ssl_object"))`, or `current_handshake()` in an ASGI application.

How the ClientHello is got: a server on memory BIOs (asyncio and what builds on it) hands its bytes to our SSLObject, which notes
them in passing. On sockets the private `SSLContext._msg_callback` shows it; it is not used for BIOs, where it would cost two
calls of Python for every record of application data. Where an interpreter has neither, only the host name is known, from
`sni_callback`; `self_check()` says what works here.

How the address is got: from the socket, or the `stream.Listener` it came from; under asyncio, from the transport of the
SSLProtocol that asked for the SSLObject. Elsewhere (uvloop, a BIO loop of one's own) it is unknown: rules that ask for an
address do not match then, and the HTTP layer is to decide again with it.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gobanfast._tls import ClientHello, parse_client_hello, parse_handshake
from gobanfast.frontends.stream import Client, client_of

if TYPE_CHECKING:
    from gobanfast.engine import Decision, Engine

log = logging.getLogger("gobanfast.tls")

HELLO_LIMIT = 1 << 17  # near OpenSSL's own, 131,396 bytes
HANDSHAKE_RECORD, CLIENT_HELLO = 22, 1
UNRECOGNIZED_NAME = ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
ACCESS_DENIED = ssl.AlertDescription.ALERT_DESCRIPTION_ACCESS_DENIED
INTERNAL_ERROR = ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR

# CPython's own attribute, below the one of ssl.py that makes enum members of every argument of every message.
MESSAGES: Any = getattr(getattr(ssl, "_SSLContext", None), "_msg_callback", None)


class Handshake(NamedTuple):
    """What was known of a TLS client when it was decided about.

    `address` and `hello` are None where this interpreter or server does not show them; `sni` is the name as sent.
    `decision` is None if deciding failed. `refused` says what was done.
    """

    address: str | None
    sni: str | None
    hello: ClientHello | None
    decision: Decision | None
    refused: bool


CURRENT: ContextVar[Handshake | None] = ContextVar("gobanfast_handshake", default=None)
ACCEPTED: ContextVar[Client | None] = ContextVar("gobanfast_accepted", default=None)  # while an SSLSocket is being made


def handshake_of(connection: Any, /) -> Handshake | None:
    """The Handshake of an SSLObject or SSLSocket; None before its ClientHello and for any object not of a guarded context."""
    handshake = getattr(connection, "gobanfast_handshake", None)
    return handshake if isinstance(handshake, Handshake) else None


def decision_of(connection: Any, /) -> Decision | None:
    """The Decision about an SSLObject or SSLSocket: `handshake_of(connection).decision`, or None."""
    handshake = handshake_of(connection)
    return None if handshake is None else handshake.decision


def current_handshake() -> Handshake | None:
    """The Handshake of the connection that the running asyncio task was started by, else None.

    For ASGI applications, which are given no SSLObject. Works where a server starts the task while it reads from the connection, as
    asyncio's streams, uvicorn and hypercorn do. A task that serves two connections at once asks `handshake_of` instead.
    """
    return CURRENT.get()


def guard(
    context: ssl.SSLContext,
    engine: Engine,
    *,
    alert: ssl.AlertDescription | Callable[[Decision], ssl.AlertDescription] = ACCESS_DENIED,
    on_decision: Callable[[Handshake], object] | None = None,
    on_error: Literal["refuse", "allow"] = "refuse",
) -> ssl.SSLContext:
    """The same `context`, which from now on asks `engine` about every client. Action "challenge" goes on, for the HTTP layer.

    An `sni_callback` that the context has goes on to be called, after ours, for clients that are not refused. Set another one
    later, and the guard is gone. A name that is not ASCII is always refused: CPython cannot show it to any callback.

    Args:
        context: server side; certificates may be loaded before or after.
        alert: what a refused client is told, or a function that says it for a decision.
        on_decision: called with the Handshake of every client, refused or not, before it is answered.
        on_error: what an exception in the engine, `alert` or `on_decision` does: "refuse" (internal_error) or "allow", except that a
            client already found banned is refused. It is logged either way.
    Raises:
        ValueError: `context` is guarded already, or an argument is none of these.
    Cost: 2 % of a handshake, nothing after it; on sockets two short calls a record go on after it.
    """
    if on_error not in {"refuse", "allow"}:
        raise ValueError(f"on_error={on_error!r} is not one of refuse, allow")
    if isinstance(context.sni_callback, Guard):
        raise ValueError(f"{context!r} is guarded already")
    if not callable(alert):
        alert = ssl.AlertDescription(alert)
    context.sni_callback = Guard(engine, alert, on_decision, on_error, context.sni_callback)
    context.sslobject_class = noting_object(context.sslobject_class)  # type: ignore[assignment]
    context.sslsocket_class = noting_socket(context.sslsocket_class)  # type: ignore[assignment]
    return context


class Guard:
    """The `sni_callback` of a guarded context: called once a ClientHello, with a host name or without."""

    __slots__ = ("alert", "engine", "lock", "on_decision", "on_error", "previous", "previous_messages")

    def __init__(self, engine: Engine, alert: Any, on_decision: Any, on_error: str, previous: Any) -> None:
        self.engine, self.alert, self.on_decision, self.on_error = engine, alert, on_decision, on_error
        self.previous = previous
        self.previous_messages: Any = None
        self.lock = threading.Lock()

    def __call__(self, connection: Any, name: str | None, context: ssl.SSLContext) -> int | None:
        # OpenSSL calls this on the client side too, for contexts that may be either.
        alert = self.decide(connection, name) if connection.server_side else None
        if alert is None and self.previous is not None:
            answer: int | None = self.previous(connection, name, context)
            return answer
        return alert

    def decide(self, connection: Any, name: str | None) -> int | None:
        """The alert to refuse with, or None; leaves the Handshake on the connection."""
        address = hello = decision = alert = None
        try:
            address, hello = connection.gobanfast_signals() if isinstance(connection, Noting) else (None, None)
            if hello is None:
                decision = self.engine.decide(address, sni=name)
            else:
                decision = self.engine.decide(address, hello=hello)
                name = hello.sni
            if decision.action == "ban":
                alert = ACCESS_DENIED  # holds if the next line fails
                alert = ssl.AlertDescription(self.alert(decision)) if callable(self.alert) else self.alert
            handshake = Handshake(address, name, hello, decision, alert is not None)
            if self.on_decision is not None:
                self.on_decision(handshake)
        except Exception:
            log.exception("handshake of %s, name %r: deciding failed, on_error=%s", address, name, self.on_error)
            if alert is None and self.on_error == "refuse":
                alert = INTERNAL_ERROR
            handshake = Handshake(address, name, hello, decision, alert is not None)
        connection.gobanfast_handshake = handshake
        if address is not None and isinstance(connection, NotingObject):  # under asyncio: its context is the connection's
            CURRENT.set(handshake)
        return alert

    def watch_messages(self, context: ssl.SSLContext) -> None:
        """Sets the message callback, at the first socket: contexts that see only BIOs do without."""
        with self.lock:
            if MESSAGES is not None and MESSAGES.__get__(context) != self.message:
                self.previous_messages = MESSAGES.__get__(context)
                MESSAGES.__set__(context, self.message)

    def message(self, connection: Any, direction: str, version: int, content: int, kind: int, data: bytes) -> None:
        if kind == CLIENT_HELLO and content == HANDSHAKE_RECORD and isinstance(connection, NotingSocket):
            connection.gobanfast_message = data
        if self.previous_messages is not None:
            self.previous_messages(connection, direction, version, content, kind, data)


class Noting:
    """What guarded SSLObjects and SSLSockets have in common."""

    def gobanfast_signals(self) -> tuple[str | None, ClientHello | None]:
        """The client's address and the ClientHello that is being answered, as far as they are known."""
        raise NotImplementedError


def address_in(peer: object) -> str | None:
    return peer[0] if isinstance(peer, tuple) and peer and isinstance(peer[0], str) else None


class NotingObject(Noting):
    """Mixin for SSLObject: notes what goes through the incoming BIO until the handshake is over."""

    gobanfast_bios: tuple[ssl.MemoryBIO, ssl.MemoryBIO] | None = None
    gobanfast_driver: Callable[[], Any] | None = None  # weak reference to the SSLProtocol
    gobanfast_noted = b""
    gobanfast_hello: ClientHello | None = None

    @classmethod
    def _create(
        cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, server_side: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        self: Any = super()._create(incoming, outgoing, server_side, *args, **kwargs)  # type: ignore[misc]
        if server_side:
            self.gobanfast_bios = incoming, outgoing
            caller = sys._getframe(2)  # 1 is wrap_bio
            if caller.f_globals.get("__name__") == "asyncio.sslproto":  # asking any frame for its locals keeps them alive
                self.gobanfast_driver = weakref.ref(caller.f_locals["self"])
        return self

    def gobanfast_transport(self) -> Any:
        """The asyncio transport below, or None."""
        driver = self.gobanfast_driver() if self.gobanfast_driver is not None else None
        return getattr(driver, "_transport", None)

    def gobanfast_signals(self) -> tuple[str | None, ClientHello | None]:
        transport = self.gobanfast_transport()
        if transport is None:
            return None, self.gobanfast_hello
        client = client_of(transport)
        address = address_in(transport.get_extra_info("peername")) if client is None else client.address
        return address, self.gobanfast_hello

    def do_handshake(self) -> None:
        if self.gobanfast_bios is None:
            super().do_handshake()  # type: ignore[misc]
            return
        incoming, outgoing = self.gobanfast_bios
        try:
            if incoming.pending and len(self.gobanfast_noted) < HELLO_LIMIT:
                self.gobanfast_note(incoming, outgoing)
            super().do_handshake()  # type: ignore[misc]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            # asyncio drops what is left to send when a handshake fails: the client would not be told why.
            transport = self.gobanfast_transport()
            if transport is not None and outgoing.pending:
                transport.write(outgoing.read())
            raise
        self.gobanfast_bios = None
        self.gobanfast_noted = b""

    def gobanfast_note(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        data = incoming.read()
        incoming.write(data)  # OpenSSL had left nothing in it, so the order is as before
        if self.gobanfast_noted:
            data = self.gobanfast_noted + data
        elif self.gobanfast_hello is not None and not may_be_hello(data):
            return
        hello = parse_client_hello(data)
        if hello.status == "incomplete":
            self.gobanfast_noted = data
            return
        self.gobanfast_noted = b""  # another hello answers a HelloRetryRequest
        if hello.status == "not-tls":
            return
        self.gobanfast_hello = hello
        name = hello.sni_bytes
        if name is not None and not name.isascii():
            guard = self.context.sni_callback  # type: ignore[attr-defined]
            alert = (guard.decide(self, None) if isinstance(guard, Guard) else None) or UNRECOGNIZED_NAME
            outgoing.write(bytes((21, 3, 1, 0, 2, 2, alert)))
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"server name {name!r} is not ASCII")


def may_be_hello(data: bytes) -> bool:
    """True if a handshake record is first in a later flight, with or without a change_cipher_spec record in front."""
    return data[0] == 22 or (data[0] == 20 and (len(data) < 7 or data[6] == 22))


class NotingSocket(Noting):
    """Mixin for SSLSocket: has its context watch messages, and knows the client of the socket it is made of."""

    gobanfast_message: bytes | None = None

    @classmethod
    def _create(cls, sock: socket.socket, *args: Any, context: Any = None, **kwargs: Any) -> Any:
        if context is not None and isinstance(context.sni_callback, Guard):
            context.sni_callback.watch_messages(context)
        client = client_of(sock)
        token = ACCEPTED.set(client)  # the handshake may be done before super()._create returns
        try:
            self: Any = super()._create(sock, *args, context=context, **kwargs)  # type: ignore[misc]
        finally:
            ACCEPTED.reset(token)
        if client is not None:
            self.client = client
        return self

    def gobanfast_signals(self) -> tuple[str | None, ClientHello | None]:
        message, self.gobanfast_message = self.gobanfast_message, None
        hello = None if message is None else parse_handshake(message)
        client = client_of(self) or ACCEPTED.get()
        if client is not None:
            return client.address, hello
        try:
            return address_in(self.getpeername()), hello  # type: ignore[attr-defined]
        except OSError:  # a client that has left
            return None, hello


@cache
def noting_object(base: type[Any]) -> type[Any]:
    return type(base.__name__, (NotingObject, base), {"__doc__": base.__doc__})


@cache
def noting_socket(base: type[Any]) -> type[Any]:
    return type(base.__name__, (NotingSocket, base), {"__doc__": base.__doc__})


# ---- what works here


def self_check() -> str:
    """A line that says what a guard gets to see in this interpreter; found out by half a handshake of each kind, in memory."""
    named = seen_by_guard(through_bios, "name.example")
    nameless = seen_by_guard(through_bios, None)
    on_socket = seen_by_guard(through_socket, "name.example")
    findings = {
        "host name": named is not None and (named.sni == "name.example"),
        "clients without a name": nameless is not None,
        "whole ClientHello on memory BIOs (asyncio)": named is not None and named.hello is not None,
        "whole ClientHello on sockets": on_socket is not None and on_socket.hello is not None,
    }
    words = ", ".join(f"{what} {'yes' if found else 'no'}" for what, found in findings.items())
    return f"tls: {sys.implementation.name} {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}: {words}"


class RefusingEngine:
    """Bans everyone: a check needs no rules."""

    action = "ban"

    def decide(self, address: str | None, *, sni: str | None = None, hello: ClientHello | None = None) -> Any:
        return self


def seen_by_guard(wrap: Callable[[ssl.SSLContext, ssl.SSLContext, str | None], None], name: str | None) -> Handshake | None:
    seen: list[Handshake] = []
    engine: Any = RefusingEngine()
    server = guard(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), engine, on_decision=seen.append)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    wrap(server, client, name)
    return seen[0] if seen else None


def through_bios(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> None:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLError):
        client.wrap_bio(back, there, server_hostname=name).do_handshake()
    with suppress(ssl.SSLError):
        server.wrap_bio(there, back, server_side=True).do_handshake()


def through_socket(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(1)
        far.setblocking(False)
        with client.wrap_socket(far, server_hostname=name, do_handshake_on_connect=False) as asking:
            with suppress(ssl.SSLError):
                asking.do_handshake()
            with suppress(OSError):
                server.wrap_socket(near, server_side=True)
