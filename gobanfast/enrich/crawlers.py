"""DNS verification of claimed crawlers outside the request path; clients that fail it are banned.

    Gobanfast(app, engine, on_decision=CrawlerCheck(engine, duration="1h"))

Published lists come first: a rule such as `{crawler: googlebot, outside_file: googlebot.json}` asks nobody. This is for
crawlers that have none, or whose lists are old: the answer counts from the client's next request on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gobanfast._core.address import parse_address
from gobanfast._fork import watch_forks
from gobanfast.bans import client_key
from gobanfast.wire.crawlers import claimed_crawler

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast._core.exchange import Exchange
    from gobanfast.engine import Engine

log = logging.getLogger("gobanfast.http")

ASKED_MOST = 256  # addresses that are being asked about; more are asked about when they come again
THREADS = 4
UNANSWERED = 60.0  # seconds until DNS that did not answer is asked again

Reverse = Callable[[str], Awaitable[str | None]]
Forward = Callable[[str], Awaitable[list[str]]]


async def reverse_name(address: str) -> str | None:
    """The name of an address, from DNS; None if it has none. Raises OSError where DNS does not say."""
    try:
        name, _ = await asyncio.get_running_loop().getnameinfo((address, 0), socket.NI_NAMEREQD)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            return None
        raise
    return name


async def forward_addresses(name: str) -> list[str]:
    """The addresses of a name, from DNS; none if there is no such name. Raises OSError where DNS does not say."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}:
            return []
        raise
    return [str(entry[4][0]) for entry in found]


async def confirm_crawler(
    user_agent: str | None,
    address: str,
    *,
    timeout: float = 2.0,
    reverse: Reverse = reverse_name,
    forward: Forward = forward_addresses,
) -> bool | None:
    """Whether DNS says that `address` is the claimed crawler's, both ways: the name of the address is in the crawler's
    domain, and that name has the address. None if none is claimed, it has no domain, or DNS does not answer (in time).

    Anyone can give his address a name of Google's; nobody can make Google's name point to it. Never wait for this
    before a decision: ask beside it, and let the answer count for the next request.
    """
    crawler = claimed_crawler(user_agent)
    packed = parse_address(address)
    if crawler is None or not crawler.domains or packed is None:
        return None
    try:
        async with asyncio.timeout(timeout):
            name = await reverse(address)
            if name is None:
                return False
            host = name.lower().removesuffix(".")
            if not any(host.endswith("." + domain) for domain in crawler.domains):
                return False
            return packed in {parse_address(found) for found in await forward(host)}
    except OSError:  # a TimeoutError is one
        return None


class CrawlerCheck:
    """A callback for `on_decision` that confirms crawlers by forward-confirmed reverse DNS.

    A client that claims to be a crawler is banned when DNS denies it; when DNS confirms it or does not answer, nothing
    happens. Clients that are banned already are not asked about, nor are requests without an address.

    Args:
        engine: where bans are made.
        duration: how long they hold, see `Engine.ban`.
        memory: addresses whose answers are remembered; the oldest is forgotten first.
        seconds: how long an answer is remembered.
        timeout: seconds that DNS has to answer.
        reverse, forward: the resolver, see `confirm_crawler`.
    Threads: any number may call; the first claim starts up to four that wait for DNS. A forked child starts its own.
    Cost: about 1.5 us for a browser of 13 headers.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        duration: str | float,
        memory: int = 10_000,
        seconds: float = 86_400.0,
        timeout: float = 2.0,
        reverse: Reverse = reverse_name,
        forward: Forward = forward_addresses,
    ) -> None:
        self._engine, self._duration = engine, duration
        self._memory, self._seconds, self._timeout = memory, seconds, timeout
        self._reverse, self._forward = reverse, forward
        self._fresh()
        watch_forks(self)

    def _fresh(self) -> None:
        self._lock = threading.Lock()
        self._until: OrderedDict[str, float] = OrderedDict()  # address -> when it is asked about again
        self._asked: set[str] = set()
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, decision: Decision, _: str) -> None:
        """Notes a decision; never waits."""
        self._note(decision, user_agent(decision.headers))

    def on_exchange(self, exchange: Exchange) -> None:
        """The same of an exchange, which knows the User-Agent."""
        self._note(exchange.decision, exchange.user_agent)

    def _note(self, decision: Decision, agent: str | None) -> None:
        address = decision.address
        if address is None or not agent or decision.action == "ban":
            return
        crawler = claimed_crawler(agent)
        if crawler is None or not crawler.domains:
            return
        with self._lock:
            if address in self._asked or len(self._asked) >= ASKED_MOST:
                return
            if self._until.get(address, 0.0) > time.monotonic():
                return
            self._asked.add(address)
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, "gobanfast-crawlers")
            try:
                self._pool.submit(self._ask, agent, address, crawler.name)
            except RuntimeError:  # the interpreter is about to end: a request is not to fail for it
                self._asked.discard(address)

    def _ask(self, agent: str, address: str, name: str) -> None:
        genuine = None
        try:
            genuine = asyncio.run(
                confirm_crawler(agent, address, timeout=self._timeout, reverse=self._reverse, forward=self._forward)
            )
            if genuine is False:
                client = client_key(address, ipv6=self._engine.ruleset.settings.bans.ipv6_client)
                self._engine.ban(client, duration=self._duration, reason=f"says it is {name}, DNS denies it")
        except Exception:
            log.exception("crawler %s at %s: asking DNS or banning failed", name, address)
        finally:
            with self._lock:
                self._asked.discard(address)
                self._until[address] = time.monotonic() + (UNANSWERED if genuine is None else self._seconds)
                self._until.move_to_end(address)
                while len(self._until) > self._memory:
                    self._until.popitem(last=False)

    def close(self) -> None:
        """Waits for what is being asked."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def before_fork(self) -> None:
        """See `ForkAware`."""
        self._lock.acquire()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if child:
            self._fresh()
        else:
            self._lock.release()


def user_agent(headers: Sequence[Sequence[bytes]] | Mapping[str, Any] | Any | None) -> str | None:
    """The User-Agent among the headers of a decision."""
    if isinstance(headers, Mapping):
        return headers.get("HTTP_USER_AGENT")
    return next((value.decode("latin-1") for name, value in headers or () if name == b"user-agent"), None)
