"""Decisions inside the TLS handshake, for any server that takes an `ssl.SSLContext`: `guard(context, engine)`.

The decision is made by all that is known before the server's first answer: the whole ClientHello (host name, ALPN, JA4)
and the client's address. A refused client gets a TLS alert and no certificate. What was decided is handed on to the
HTTP layer: `decision_of(transport.get_extra_info("ssl_object"))`, or `current_handshake()` in an ASGI application.

How the ClientHello is got: a server on memory BIOs (asyncio and what builds on it) hands its bytes to our SSLObject,
which notes them in passing (the first one: the second, which answers a HelloRetryRequest, is looked at for its name
only). On sockets the private `SSLContext._msg_callback` shows it; it is not used for BIOs, where it would cost two
calls of Python for every record of application data. Where an interpreter has neither, only the host name is known,
from `sni_callback`; `self_check()` says what works here.

How the address is got: from the socket, or the `stream.Listener` it came from; under asyncio, from the transport of the
SSLProtocol that asked for the SSLObject. Elsewhere (uvloop, a BIO loop of one's own) it is unknown: rules that require
an address do not match then, and the HTTP layer is to decide again with it.

Where the guarded context goes in:

    asyncio      start_server(..., ssl=guard(context, engine))
    http.server  server.socket = guard(context, engine).wrap_socket(server.socket, server_side=True)
    uvicorn      Config(..., ssl_context_factory=lambda config, default: guard(default(), engine), loop="asyncio")
    hypercorn    a subclass of Config whose create_ssl_context returns guard(super().create_ssl_context(), engine)
    gunicorn     def ssl_context(config, default): return guard(default(), engine)   # in its configuration file

gunicorn's own workers (sync, gthread, asgi) ask that function. `uvicorn.workers.UvicornWorker` does not and would serve
unguarded: give a subclass `CONFIG_KWARGS = {"ssl_context_factory": ...}`.
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
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from gobanfast._core.client_hello import ClientHello, parse_client_hello, parse_handshake
from gobanfast.frontends.stream import Client, client_of

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast.engine import Engine

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
    """The Handshake of an SSLObject or SSLSocket; None before its ClientHello, or if its context is not guarded."""
    handshake = getattr(connection, "gobanfast_handshake", None)
    return handshake if isinstance(handshake, Handshake) else None


def decision_of(connection: Any, /) -> Decision | None:
    """The Decision about an SSLObject or SSLSocket: `handshake_of(connection).decision`, or None."""
    handshake = handshake_of(connection)
    return None if handshake is None else handshake.decision


def current_handshake() -> Handshake | None:
    """The Handshake of the connection that the running asyncio task was started by, else None.

    For ASGI applications, which are given no SSLObject. Works where a server starts the task while it reads from the
    connection, as asyncio's streams, uvicorn and hypercorn do. Code that serves two connections in one task asks
    `handshake_of` instead.
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
    """The same `context`, which from now on asks `engine` about every client.

    Action "challenge" goes on, for the HTTP layer.

    An `sni_callback` that the context has goes on to be called, after ours, for clients that are not refused. Set
    another one later, and the guard is gone. A name that is not ASCII is always refused: on BIOs by us, on sockets by
    CPython, which cannot show it to any callback and prints a traceback.

    Args:
        context: server side; certificates may be loaded before or after.
        alert: what a refused client is told, or a function that says it for a decision.
        on_decision: called with the Handshake of every client, refused or not, before it is answered.
        on_error: what an exception in the engine, `alert` or `on_decision` does: "refuse" (internal_error) or "allow",
            except that a client already found banned is refused. It is always logged.
    Raises:
        ValueError: `context` is guarded already, or an argument is none of these.
    Cost: some microseconds a handshake, nothing after it; on sockets two short calls a record go on after it.
    """
    if on_error not in {"refuse", "allow"}:
        raise ValueError(f"on_error={on_error!r} is not one of refuse, allow")
    if isinstance(context.sni_callback, Guard):
        raise ValueError(f"{context!r} is guarded already")
    if not callable(alert):
        alert = ssl.AlertDescription(alert)
    context.sni_callback = Guard(engine, alert, on_decision, on_error, context.sni_callback)
    contexts: Any = context  # whose two class attributes may be set on an object too, by their documentation
    contexts.sslobject_class = noting_object(contexts.sslobject_class)
    contexts.sslsocket_class = noting_socket(contexts.sslsocket_class)
    return context


class Guard:
    """The `sni_callback` of a guarded context: called once a ClientHello, with a host name or without."""

    __slots__ = ("alert", "engine", "lock", "on_decision", "on_error", "previous", "previous_messages", "warned")

    def __init__(self, engine: Engine, alert: Any, on_decision: Any, on_error: str, previous: Any) -> None:
        self.engine, self.alert, self.on_decision, self.on_error = engine, alert, on_decision, on_error
        self.previous = previous
        self.previous_messages: Any = None
        self.lock = threading.Lock()
        self.warned = False

    def __call__(self, connection: Any, name: str | None, context: ssl.SSLContext) -> int | None:
        notes = getattr(connection, "gobanfast_notes", None)
        if notes is None:
            if not connection.server_side:  # a context that may be either: OpenSSL calls on the client side too
                return None if self.previous is None else self.previous(connection, name, context)
            if isinstance(connection, ssl.SSLSocket):
                notes = SocketNotes(connection, ACCEPTED.get())
        alert = self.decide(connection, name, notes)
        if alert is None and self.previous is not None:
            answer: int | None = self.previous(connection, name, context)
            return answer
        return alert

    def decide(self, connection: Any, name: str | None, notes: BioNotes | SocketNotes | None) -> int | None:
        """The alert to refuse with, or None; leaves the Handshake on the connection."""
        address = hello = decision = alert = None
        try:
            if notes is not None:
                hello = notes.hello
                if hello is not None and hello.sni != name and handshake_of(connection) is not None:
                    hello = None  # the second hello, after a HelloRetryRequest, names another host than the one noted
                address = notes.address()
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
        if notes is not None and notes.driver is not None:  # asyncio runs this in the connection's own context
            CURRENT.set(handshake)
            if alert is not None:
                notes.tell(alert)
        elif not self.warned and under_uvloop():
            self.warned = True
            log.warning(
                "uvloop does not tell applications which TLS handshake a request came by: rules about sni, ja4 or the "
                "ClientHello decide in the handshake alone, without an address; run uvicorn with --loop asyncio"
            )
        return alert

    def watch_messages(self, context: ssl.SSLContext) -> None:
        """Sets the message callback, at the first socket: contexts that see only BIOs do without."""
        with self.lock:
            if MESSAGES is not None and MESSAGES.__get__(context) != self.message:
                self.previous_messages = MESSAGES.__get__(context)
                MESSAGES.__set__(context, self.message)

    def message(self, connection: Any, direction: str, version: int, content: int, kind: int, data: bytes) -> None:
        if kind == CLIENT_HELLO and content == HANDSHAKE_RECORD and direction == "read":
            notes = getattr(connection, "gobanfast_notes", None)
            if notes is None and connection is not None:
                notes = connection.gobanfast_notes = SocketNotes(connection, ACCEPTED.get())
            if notes is not None:
                notes.hello = parse_handshake(data)
        if self.previous_messages is not None:
            self.previous_messages(connection, direction, version, content, kind, data)


# ---- what is noted of a connection. This runs amid OpenSSL's own work, with cold caches: the less Python, the better.


def under_uvloop() -> bool:
    """Whether uvloop runs this thread's event loop. It has TLS of its own, in which a handshake is not to be found."""
    if "uvloop" not in sys.modules:
        return False
    import asyncio

    try:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0] == "uvloop"
    except RuntimeError:
        return False


def address_in(peer: object) -> str | None:
    return peer[0] if isinstance(peer, tuple) and peer and isinstance(peer[0], str) else None


class BioNotes:
    """The first bytes out of the incoming BIO of a server's SSLObject, up to the end of its ClientHello."""

    __slots__ = ("driver", "hello", "incoming", "noted", "outgoing")

    def __init__(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self.incoming, self.outgoing = incoming, outgoing
        self.noted = b""
        self.hello: ClientHello | None = None
        self.driver: Callable[[], Any] | None = None  # weak reference to the SSLProtocol of asyncio

    def complete(self) -> bool:
        """True once the ClientHello is there, or will not be; what was read is put back."""
        data = self.incoming.read()
        self.incoming.write(data)  # OpenSSL had left nothing in it, so the order is as before
        if self.noted:
            data = self.noted + data
        hello = parse_client_hello(data)
        status = hello.status
        if status == "incomplete" and len(data) < HELLO_LIMIT:
            self.noted = data
            return False
        self.noted = b""
        if status == "ok" or status == "malformed":  # noqa: PLR1714 - cheaper
            self.hello = hello
        return True

    def transport(self) -> Any:
        """The asyncio transport below, or None."""
        return getattr(self.driver(), "_transport", None) if self.driver is not None else None

    def address(self) -> str | None:
        transport = self.transport()
        if transport is None:
            return None
        client = client_of(transport)
        return address_in(transport.get_extra_info("peername")) if client is None else client.address

    def tell(self, alert: int) -> None:
        """Sends the alert to the client if asyncio is below: it drops what a failed handshake leaves to send."""
        transport = self.transport()
        if transport is not None:
            transport.write(alert_record(alert))

    def refuse_name(self, connection: Any, name: bytes) -> NoReturn:
        guard = connection.context.sni_callback
        alert = guard.decide(connection, None, self) if isinstance(guard, Guard) else None
        if alert is None:
            alert = UNRECOGNIZED_NAME
            self.tell(alert)
        self.outgoing.write(alert_record(alert))
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"server name {name!r} is not ASCII")


def alert_record(alert: int) -> bytes:
    """A fatal alert, as it is sent before there are keys."""
    return bytes((21, 3, 3, 0, 2, 2, alert))


@cache
def noting_object(base: Any) -> Any:
    """Subclass of an SSLObject class that notes the ClientHello of a client, and then is what it was derived from."""
    create, shake = base._create.__func__, base.do_handshake

    def _create(
        cls: Any, incoming: Any, outgoing: Any, server_side: bool = False, server_hostname: Any = None,
        session: Any = None, context: Any = None,
    ) -> Any:  # fmt: skip
        if not server_side:
            return create(base, incoming, outgoing, server_side, server_hostname, session, context)
        self = create(cls, incoming, outgoing, server_side, server_hostname, session, context)
        notes = self.gobanfast_notes = BioNotes(incoming, outgoing)
        caller = sys._getframe(2)  # 1 is wrap_bio
        if caller.f_globals.get("__name__") == "asyncio.sslproto":  # asking any frame for its locals keeps them alive
            notes.driver = weakref.ref(caller.f_locals["self"])
        return self

    def do_handshake(self: Any) -> None:
        notes = self.gobanfast_notes
        if notes.incoming.pending and notes.complete():
            self.__class__ = base
            hello = notes.hello
            if hello is not None and hello.sni is None and (name := hello.sni_bytes) and not name.isascii():
                notes.refuse_name(self, name)
        shake(self)

    return type(
        base.__name__, (base,), {"__doc__": base.__doc__, "_create": classmethod(_create), "do_handshake": do_handshake}
    )


class SocketNotes:
    """The ClientHello on a server's SSLSocket, and the Client of the socket it is made of."""

    __slots__ = ("client", "connection", "driver", "hello")

    def __init__(self, connection: Any, client: Client | None) -> None:
        self.connection, self.client = weakref.ref(connection), client
        self.driver = self.hello = None

    def address(self) -> str | None:
        if self.client is not None:
            return self.client.address
        connection: Any = self.connection()
        try:
            return address_in(connection.getpeername())
        except (AttributeError, OSError):  # a client that has left
            return None


@cache
def noting_socket(base: Any) -> Any:
    """Subclass of an SSLSocket class that has its context watch messages, and knows the client of its socket."""
    create = base._create.__func__

    def _create(
        cls: Any, sock: socket.socket, server_side: bool = False, do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True, server_hostname: Any = None, context: Any = None, session: Any = None,
    ) -> Any:  # fmt: skip
        if server_side and isinstance(context.sni_callback, Guard):
            context.sni_callback.watch_messages(context)
        client = client_of(sock)
        token = ACCEPTED.set(client)  # the handshake may be done before the socket is handed out
        try:
            self = create(
                cls, sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, context, session
            )
        finally:
            ACCEPTED.reset(token)
        self.client = client
        if server_side and not do_handshake_on_connect:
            self.gobanfast_notes = SocketNotes(self, client)
        return self

    return type(
        base.__name__, (base,), {"__doc__": base.__doc__, "gobanfast_notes": None, "_create": classmethod(_create)}
    )


# ---- what works here


def self_check() -> str:
    """A line that says what a guard gets to see in this interpreter, found out by half a handshake of each kind."""
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

    def decide(self, *_: object, **__: object) -> Any:
        return self


def seen_by_guard(
    wrap: Callable[[ssl.SSLContext, ssl.SSLContext, str | None], None], name: str | None
) -> Handshake | None:
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
