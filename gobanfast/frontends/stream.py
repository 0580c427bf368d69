"""TCP listener whose `accept` returns only connections that the engine admits.

`Listener` stands where a listening socket stands: `asyncio.start_server(..., sock=listener)`, `loop.create_server`,
uvicorn's `Server.serve(sockets=[listener])`, `socketserver`, or a loop of one's own around `listener.accept()`. It
reads a PROXY header of trusted proxies, may look at the ClientHello without taking it, and asks the engine before
the application has a byte to read. (uvloop accepts in C and takes no such object: run uvicorn with `loop="asyncio"`.)
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from gobanfast._core.client_hello import ClientHello, parse_client_hello
from gobanfast.frontends.trust import Trust, as_trust
from gobanfast.wire.proxy import V2_LIMIT, ProxyHeader, parse_proxy_header

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast.engine import Engine

log = logging.getLogger("gobanfast.stream")

Refusal = Literal["ban", "proxy-spoofed", "proxy-missing", "proxy-malformed", "error", "deadline", "overload", "closed"]
ENDINGS = ("close", "reset", "tarpit")
HELD_BACK: frozenset[Refusal] = frozenset({"ban", "proxy-spoofed"})  # what a tarpit is for
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Client:
    """One connection's client, and what became of it.

    `address` and `port` are the client's own, told by a trusted proxy if there is one, else the peer's; None if the
    proxy does not know. `peer` is the socket's other end. `refusal` is None for a client that was let in.
    """

    peer: tuple[Any, ...]
    address: str | None
    port: int | None
    header: ProxyHeader | None = None
    hello: ClientHello | None = None
    decision: Decision | None = None
    refusal: Refusal | None = None


class AdmittedSocket(socket.socket):
    """A connection that was let in: `client` says whose it is, and `getpeername` gives that client if it is known."""

    client: Client

    def getpeername(self) -> tuple[Any, ...]:
        """Address of the client as `accept` gave it, not that of a proxy in between."""
        return address_of(self.client)


def address_of(client: Client) -> tuple[Any, ...]:
    if client.address is None or client.header is None:
        return client.peer
    return client.address, client.port or 0, *((0, 0) if ":" in client.address else ())


def client_of(connection: Any, /) -> Client | None:
    """The Client of a socket, an asyncio transport or a StreamWriter that came through a Listener, else None."""
    if hasattr(connection, "get_extra_info"):
        connection = connection.get_extra_info("socket")
    connection = getattr(connection, "_sock", connection)  # asyncio hands out a TransportSocket around the real one
    client = getattr(connection, "client", None)
    return client if isinstance(client, Client) else None


@dataclass(slots=True, eq=False)
class Arrival:
    """A connection on its way in."""

    sock: socket.socket
    peer: tuple[Any, ...]
    until: float
    steps: Generator[int, bytes, Client]
    wanted: int = 1


class Listener:
    """A listening TCP socket that lets in only whom the engine lets in.

    Args:
        sock: bound TCP socket; the Listener owns it from now on.
        engine: decides; action "ban" refuses, "challenge" goes on (that is for the application).
        trust: the proxies: prefixes as text, a PrefixSet, a PrefixTable, or a Trust, of which the peers count. Their
            connections must begin with a PROXY header; anyone else's must not, and one that does is refused. None:
            there are no proxies, nothing is looked for.
        client_first: False for protocols in which the server speaks first; then only trusted peers are waited for.
        hello: wait for the ClientHello, leave it in place, and decide by it too. Other protocols pass without one.
        ending: how a refused connection ends: "close", "reset" (RST), or "tarpit" (nothing, for `tarpit_seconds`).
        deadline: seconds a client has for its PROXY header and ClientHello.
        pending_limit: connections waited for at a time; one more, and the oldest of them is refused.
        header_limit: bytes of the longest PROXY header taken.
        on_decision: called with the Client of every connection, let in or not.
        on_error: what an exception in the engine or in `on_decision` does: "refuse" or "allow". It is always logged.
    Raises:
        ValueError: an argument that is none of these.
    Threads: any number may accept; one of them drives all connections on their way in. A child of fork drops those.
    """

    def __init__(
        self,
        sock: socket.socket,
        engine: Engine,
        *,
        trust: Trust | Iterable[str] | None = None,
        client_first: bool = True,
        hello: bool = False,
        ending: Literal["close", "reset", "tarpit"] = "close",
        deadline: float = 5.0,
        pending_limit: int = 1024,
        header_limit: int = V2_LIMIT,
        tarpit_seconds: float = 30.0,
        on_decision: Callable[[Client], object] | None = None,
        on_error: Literal["refuse", "allow"] = "refuse",
    ) -> None:
        if sock.family not in {socket.AF_INET, socket.AF_INET6} or sock.type != socket.SOCK_STREAM:
            raise ValueError(f"socket {sock!r} is not a TCP socket; other kinds have no client address to decide by")
        if ending not in ENDINGS:
            raise ValueError(f"ending={ending!r} is not one of {', '.join(ENDINGS)}")
        if on_error not in {"refuse", "allow"}:
            raise ValueError(f"on_error={on_error!r} is not one of refuse, allow")
        if deadline <= 0 or pending_limit < 1:
            raise ValueError(f"deadline={deadline!r} and pending_limit={pending_limit!r} must be positive")
        self._sock = sock
        self._engine = engine
        self._trust = None if trust is None else as_trust(trust).peers
        self._client_first, self._hello = client_first, hello
        self._ending, self._deadline, self._tarpit_seconds = ending, deadline, tarpit_seconds
        self._pending_limit, self._header_limit = pending_limit, header_limit
        self._on_decision, self._on_error = on_decision, on_error
        self._timeout = sock.gettimeout()
        self._lock = threading.RLock()
        self._wakeup: Any = None
        self._process = 0
        self._pending: dict[Arrival, None] = {}  # in order of `until`
        self._tarpit: deque[tuple[float, socket.socket]] = deque()
        self._selector: selectors.BaseSelector
        self._closed = False
        self._waker, self._woken = socket.socketpair()
        sock.setblocking(False)

    def __getattr__(self, name: str) -> Any:
        if name == "_sock":  # of an object that no constructor saw
            raise AttributeError("a Listener comes from Listener(socket, engine)")
        return getattr(self._sock, name)  # getsockname, family, type, setsockopt, listen, ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the part of a socket that differs

    def accept(self) -> tuple[AdmittedSocket, tuple[Any, ...]]:
        """(connection, client's address as from `getpeername`) of the next client that is let in.

        Raises:
            BlockingIOError: there is none yet, and this socket does not block.
            TimeoutError: there was none within the timeout of this socket.
        """
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            with self._lock:
                if self._closed:
                    raise OSError(errno.EBADF, "the listener is closed")
                self._attach()
                wait = self.sweep()
                now = time.monotonic()
                if end is not None:
                    wait = max(0.0, end - now) if wait is None else min(wait, max(0.0, end - now))
                for key, _ in self._selector.select(wait):
                    if key.fileobj is self._woken:
                        break
                    admitted = self._new() if key.data is None else self._step(key.data)
                    if admitted is not None:
                        return admitted, admitted.getpeername()  # others that are ready stay so
                if end is None or time.monotonic() < end:
                    continue
                self._sweep_later()
            if self._timeout == 0:
                raise BlockingIOError("no client is let in yet")
            raise TimeoutError(f"no client was let in within {self._timeout} s")

    def fileno(self) -> int:
        """Descriptor that is readable when `accept` may have something to do; not the listening socket's own."""
        with self._lock:
            if self._closed:
                return -1
            self._attach()
            return int(self._selector.fileno())  # type: ignore[attr-defined]  # epoll and kqueue have one

    def settimeout(self, seconds: float | None, /) -> None:
        """Sets how long `accept` waits: None for ever, 0 not at all."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """How long `accept` waits."""
        return self._timeout

    def setblocking(self, flag: bool, /) -> None:
        """`settimeout(None)` or `settimeout(0)`."""
        self._timeout = None if flag else 0.0

    def close(self) -> None:
        """Closes the listening socket and every connection not yet let in; `accept` in other threads raises OSError."""
        if self._closed:
            return
        self._closed = True
        self._waker.send(b"\0")  # out of `select` with whoever holds the lock
        with self._lock:
            self._drop()
            self._sock.close()
            self._waker.close()
            self._woken.close()
            if self._wakeup is not None:
                self._wakeup.cancel()

    def sweep(self) -> float | None:
        """Seconds until the next deadline, None if nobody is waited for, after ending what is overdue.

        `accept` does this, and under asyncio a timer does. A server that only calls `accept` when `fileno` is readable
        calls it now and then (`socketserver`: in `service_actions`).
        """
        with self._lock:
            now = time.monotonic()
            while self._pending and (oldest := next(iter(self._pending))).until <= now:
                self._refuse(oldest, "deadline")
            while self._tarpit and self._tarpit[0][0] <= now:
                end(self._tarpit.popleft()[1], reset=True)
            waits = [arrival.until for arrival in (next(iter(self._pending), None),) if arrival is not None]
            waits += [self._tarpit[0][0]] if self._tarpit else []
            return min(waits) - now if waits else None

    # ---- connections on their way in

    def _attach(self) -> None:
        """A selector of this process's own: a forked child must not move its parent's connections."""
        if self._process != os.getpid():
            self._drop()
            self._process = os.getpid()
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._sock, selectors.EVENT_READ)
            self._selector.register(self._woken, selectors.EVENT_READ)

    def _drop(self) -> None:
        for sock in [arrival.sock for arrival in self._pending] + [sock for _, sock in self._tarpit]:
            sock.close()
        self._pending.clear()
        self._tarpit.clear()
        if self._process:
            self._selector.close()
            self._process = 0

    def _sweep_later(self) -> None:
        """Under asyncio nobody calls `accept` when only a deadline passes: the loop is asked to."""
        wait = self.sweep()
        if wait is None or "asyncio" not in sys.modules:
            return
        with suppress(RuntimeError):  # no loop runs in this thread
            loop = sys.modules["asyncio"].get_running_loop()
            if self._wakeup is not None:
                self._wakeup.cancel()
            self._wakeup = loop.call_later(wait, self._sweep_later)

    def _new(self) -> AdmittedSocket | None:
        try:
            sock, peer = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        sock.setblocking(False)
        arrival = Arrival(sock, peer, time.monotonic() + self._deadline, self._steps(sock, peer))
        if len(self._pending) >= self._pending_limit:
            self._refuse(next(iter(self._pending)), "overload")
        self._pending[arrival] = None
        return self._advance(arrival, lambda: next(arrival.steps)) or self._step(arrival, first=True)

    def _step(self, arrival: Arrival, *, first: bool = False) -> AdmittedSocket | None:
        """Goes on with what has come, as far as it goes; the connection if that was all the way."""
        while arrival in self._pending:
            try:
                data = arrival.sock.recv(arrival.wanted, socket.MSG_PEEK)
            except BlockingIOError:
                data = None
            except OSError:
                data = b""
            if data is None or (first and 0 < len(data) < arrival.wanted):
                self._wait(arrival, first)
                return None
            if len(data) < arrival.wanted:  # the selector wakes for less only when no more will come
                self._refuse(arrival, "closed")
                return None
            admitted = self._advance(arrival, lambda data=data: arrival.steps.send(data))  # type: ignore[misc]
            if admitted is not None:
                return admitted
            first = True  # wants more than it did: less than that is no sign of the end yet
        return None

    def _wait(self, arrival: Arrival, first: bool) -> None:
        if first:
            arrival.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, arrival.wanted)
            if arrival.sock not in self._selector.get_map():
                self._selector.register(arrival.sock, selectors.EVENT_READ, arrival)

    def _advance(self, arrival: Arrival, go: Callable[[], int]) -> AdmittedSocket | None:
        try:
            arrival.wanted = go()
        except StopIteration as stop:
            client: Client = stop.value
        else:
            return None
        self._forget(arrival)
        if not self._tell(client):
            client = replace(client, refusal=client.refusal or "error")
        if client.refusal is not None:
            self._finish(arrival.sock, client.refusal)
            return None
        sock = arrival.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        sock.setblocking(True)
        admitted = AdmittedSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        admitted.client = client
        return admitted

    def _steps(self, sock: socket.socket, peer: tuple[Any, ...]) -> Generator[int, bytes, Client]:
        """Yields how many bytes it must see from the front, gets them; returns the Client. The bytes stay in place."""
        came_from: str = peer[0]
        address: str | None = came_from
        port: int | None = peer[1]
        header = hello = None
        data = b""
        trusted = self._trust is not None and came_from in self._trust
        if trusted or (self._trust is not None and self._client_first):
            while (header := parse_proxy_header(data, limit=self._header_limit)).status == "incomplete":
                if header.version and not trusted:
                    break
                data = yield len(data) + header.need if data else 1
            if not trusted:
                if header.version:
                    return Client(peer, address, port, header, refusal="proxy-spoofed")
                header = None
            elif header.status != "ok":
                refusal: Refusal = "proxy-missing" if header.status == "absent" else "proxy-malformed"
                return Client(peer, None, None, header, refusal=refusal)
        if header is not None:
            sock.recv(header.nbytes)
            data = b""
            address, port = header.source, header.source_port
        if self._hello:
            while (hello := parse_client_hello(data)).status == "incomplete":
                data = yield len(data) + hello.need if data else 1
            if hello.status == "not-tls":
                hello = None
        sni = header.authority if header is not None and hello is None else None
        try:
            decision = self._engine.decide(address, sni=sni, hello=hello)
        except Exception:
            log.exception("connection of %s: deciding failed, on_error=%s", peer, self._on_error)
            return Client(peer, address, port, header, hello, None, "error" if self._on_error == "refuse" else None)
        return Client(peer, address, port, header, hello, decision, "ban" if decision.action == "ban" else None)

    def _tell(self, client: Client) -> bool:
        """Calls `on_decision`; False if that failed and is to refuse."""
        if self._on_decision is not None:
            try:
                self._on_decision(client)
            except Exception:
                log.exception("connection of %s: on_decision failed, on_error=%s", client.peer, self._on_error)
                return self._on_error == "allow"
        return True

    def _forget(self, arrival: Arrival) -> None:
        del self._pending[arrival]
        if arrival.sock in self._selector.get_map():
            self._selector.unregister(arrival.sock)

    def _refuse(self, arrival: Arrival, refusal: Refusal) -> None:
        self._forget(arrival)
        arrival.steps.close()
        self._tell(Client(arrival.peer, None, None, refusal=refusal))
        self._finish(arrival.sock, refusal)

    def _finish(self, sock: socket.socket, refusal: Refusal) -> None:
        if self._ending == "tarpit" and refusal in HELD_BACK:
            if len(self._tarpit) >= self._pending_limit:
                end(self._tarpit.popleft()[1], reset=True)
            self._tarpit.append((time.monotonic() + self._tarpit_seconds, sock))
        else:
            end(sock, reset=self._ending == "reset")


def end(sock: socket.socket, *, reset: bool) -> None:
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()
