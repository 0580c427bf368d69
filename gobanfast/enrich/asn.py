"""Online AS look-ups beside requests: first success of three sources, two caches, one question at a time for each key.

Off unless made. What leaves the machine: the /24 or /48 of an address that the AS table does not know, to RIPEstat, to
the registry that holds it (RDAP), and as a DNS question to Team Cymru; never a whole address.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from gobanfast._errors import GobanError
from gobanfast._fork import watch_forks
from gobanfast._values import parse_asn
from gobanfast.enrich.asn_cache import Cache, open_cache
from gobanfast.enrich.asn_sources import AsnAnswer, Cymru, Rdap, RipeStat, Source, SourceError, UnknownError, network_of
from gobanfast.enrich.first_success import NoSuccessError, first_success
from gobanfast.stores.breaker import Breaker

log = logging.getLogger("gobanfast.asn")

FRESH = 300.0  # seconds in memory until it is asked again, in the background
STALE = 86_400.0  # seconds until it is forgotten
JITTER = 0.1
MOST = 10_000  # answers in memory
FAILED, NOBODY = 60.0, 3600.0  # seconds that no answer, and that nobody announces it, are remembered
QUEUE = 1_024  # questions that may wait
TIMEOUT, HEDGE = 1.2, 0.15
THREADS = 24  # of blocking calls; the sum of what sources allow


@dataclass(slots=True)
class _Kept:
    answer: AsnAnswer | None  # None: negative
    fresh: float  # monotonic seconds
    ends: float


@dataclass(slots=True)
class _Asked:
    """A source with what its limits are."""

    source: Source
    breaker: Breaker
    room: asyncio.Semaphore
    again: float = 0.0


class AsnLookup:
    """Asks who announces an address, or who holds an AS.

    Args:
        sources: to ask, in this order, each `hedge` seconds after the one before; None: RIPEstat, Team Cymru, RDAP.
        cache: URI of the second cache, which holds answers for a day: sqlite:PATH or redis://; None: none.
        timeout: seconds for all sources together.
    Threads: any number may call; one with an event loop asks. A forked child starts its own.
    """

    def __init__(
        self, *, sources: Sequence[Source] | None = None, cache: str | None = None, timeout: float = TIMEOUT,
        hedge: float = HEDGE, most: int = MOST, fresh: float = FRESH,
    ) -> None:  # fmt: skip
        self._sources = (RipeStat(), Cymru(), Rdap()) if sources is None else tuple(sources)
        self._uri, self._timeout, self._hedge, self._most, self._seconds = cache, timeout, hedge, most, fresh
        self._cache: Cache | None = None if cache is None else open_cache(cache)
        self._fresh()
        watch_forks(self)

    def _fresh(self) -> None:
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, _Kept] = OrderedDict()
        self._flights: dict[str, Future[AsnAnswer | None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._asked: list[_Asked] = []
        self.counts: Counter[str] = Counter()

    # ---- what callers ask

    def cached(self, address: str) -> AsnAnswer | None:
        """The answer in memory, if there is one; asks nobody, waits for nothing."""
        try:
            key = network_of(address)
        except ValueError:
            return None
        with self._lock:
            kept = self._memory.get(key)
            return None if kept is None or kept.ends < time.monotonic() else kept.answer

    def ask(self, address: str, then: Callable[[AsnAnswer], object] | None = None) -> bool:
        """Whether the question is on its way, or known: never waits. `then` is called with an answer, in our thread.

        False for an address that nobody knows of, and while QUEUE questions wait.
        """
        try:
            key = network_of(address)
        except ValueError:
            return False
        flight = self._flight(key, bounded=True)
        if flight is None:
            return False
        if then is not None:
            flight.add_done_callback(lambda done: _tell(done, then))
        return True

    def lookup(self, what: str | int, *, wait: float | None = None) -> AsnAnswer | None:
        """The answer about an address, or an AS ("AS15169"); None if nobody announces it.

        Args:
            wait: seconds; None: as long as sources and caches may take.
        Raises:
            ValueError: neither an address of the public Internet nor an AS number.
            GobanError: no source answered; says what each said. Not for the path of a request: it waits.
        """
        key = key_of(what)
        flight = self._flight(key, bounded=False)
        assert flight is not None  # noqa: S101
        try:
            return flight.result(self._timeout + 5.0 if wait is None else wait)
        except FutureTimeout:
            raise GobanError(f"{what}: no answer in time") from None

    def health(self) -> dict[str, Any]:
        """Counts and the state of each source as JSON values."""
        with self._lock:
            found: dict[str, Any] = {"memory": len(self._memory), "asking": len(self._flights), **self.counts}
        found["cache_failures"] = 0 if self._cache is None else self._cache.failures
        found["sources"] = {
            asked.source.name: {"state": asked.breaker.state, "error": asked.breaker.error} for asked in self._asked
        }
        return found

    def close(self) -> None:
        """Ends the thread; what is being asked gets no answer."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5.0)
        if self._cache is not None:
            self._cache.close()

    def before_fork(self) -> None:
        """See `ForkAware`."""
        self._lock.acquire()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if child:
            self._fresh()
            self._cache = None if self._uri is None else open_cache(self._uri)
        else:
            self._lock.release()

    # ---- memory

    def _flight(self, key: str, *, bounded: bool) -> Future[AsnAnswer | None] | None:
        """The answer of a question, now or later; one question at a time for each key."""
        now = time.monotonic()
        with self._lock:
            kept = self._memory.get(key)
            if kept is not None and kept.ends >= now:
                self._memory.move_to_end(key)
                self.counts["memory_hits"] += 1
                if kept.fresh < now and key not in self._flights and len(self._flights) < QUEUE:
                    self._start(key)  # stale while it is asked again
                    self.counts["refreshed"] += 1
                done: Future[AsnAnswer | None] = Future()
                done.set_result(kept.answer)
                return done
            if (flight := self._flights.get(key)) is not None:
                self.counts["joined"] += 1
                return flight
            if bounded and len(self._flights) >= QUEUE:
                self.counts["no_room"] += 1
                return None
            return self._start(key)

    def _start(self, key: str) -> Future[AsnAnswer | None]:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_default_executor(ThreadPoolExecutor(THREADS, "gobanfast-asn"))
            self._asked = [_Asked(source, Breaker(), asyncio.Semaphore(source.most)) for source in self._sources]
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="gobanfast-asn", daemon=True)
            self._thread.start()
        flight: Future[AsnAnswer | None] = Future()
        self._flights[key] = flight
        loop = self._loop
        loop.call_soon_threadsafe(lambda: loop.create_task(self._answer(key, flight)))
        return flight

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            with self._lock:
                left, self._flights = list(self._flights.values()), {}
            for flight in left:
                if not flight.done():
                    flight.set_exception(GobanError("look-ups were closed"))

    def _keep(self, key: str, answer: AsnAnswer | None, fresh: float, ends: float) -> None:
        now, jitter = time.monotonic(), random.uniform(1 - JITTER, 1 + JITTER)
        with self._lock:
            self._memory[key] = _Kept(answer, now + fresh * jitter, now + ends * jitter)
            self._memory.move_to_end(key)
            while len(self._memory) > self._most:
                self._memory.popitem(last=False)

    # ---- asking

    async def _answer(self, key: str, flight: Future[AsnAnswer | None]) -> None:
        answer: AsnAnswer | None = None
        error: GobanError | None = None
        try:
            answer = await self._from_cache(key)
            if answer is None:
                answer = await self._from_sources(key)
            self._keep(key, answer, self._seconds, STALE)
        except NoSuccessError as failure:
            nobody = bool(failure.errors) and all(isinstance(one, UnknownError) for one in failure.errors)
            self.counts["unknown" if nobody else "failed"] += 1
            with self._lock:
                kept = self._memory.get(key)
            if nobody:
                self._keep(key, None, NOBODY, NOBODY)
            else:
                error = GobanError(f"{key}: {failure}")
                if kept is None or kept.answer is None:
                    self._keep(key, None, FAILED, FAILED)
                else:  # the last answer is better than none
                    kept.fresh = time.monotonic() + FAILED
        except Exception as failure:
            log.exception("%s: looking it up failed", key)
            error = GobanError(f"{key}: {type(failure).__name__}")
        finally:
            with self._lock:
                self._flights.pop(key, None)
            if not flight.done():
                if error is not None:
                    flight.set_exception(error)
                else:
                    flight.set_result(answer)

    async def _from_cache(self, key: str) -> AsnAnswer | None:
        if self._cache is None:
            return None
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, self._cache.get, key)
        with self._lock:
            kept = self._memory.get(key)
        if found is None or (
            kept is not None and kept.answer is not None and kept.answer.fetched_at >= found.fetched_at
        ):
            return None  # it is asked again because this one is old
        self.counts["cache_hits"] += 1
        return found

    async def _from_sources(self, key: str) -> AsnAnswer:
        now = time.time()
        steady = time.monotonic()
        ready = [asked for asked in self._asked if asked.again <= steady and asked.breaker.wait() <= 0]
        calls: list[Callable[[], Awaitable[AsnAnswer]]] = [_bound(self._one, asked, key, now) for asked in ready]
        if not calls:
            raise NoSuccessError([SourceError("every source rests after failures")])
        answer = await first_success(calls, timeout=self._timeout, hedge=self._hedge)
        self.counts["answered"] += 1
        if self._cache is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._cache.put, key, answer)
        return answer

    async def _one(self, asked: _Asked, key: str, now: float) -> AsnAnswer:
        async with asked.room:
            begun = time.monotonic()
            self.counts[f"asked_{asked.source.name}"] += 1
            try:
                if key.startswith("AS"):
                    answer = await asked.source.of_asn(int(key[2:]), now)
                else:
                    answer = await asked.source.of_network(key, now)
            except UnknownError:
                asked.breaker.success(time.monotonic() - begun)
                raise
            except SourceError as error:
                if error.again is not None:
                    asked.again = time.monotonic() + error.again
                asked.breaker.failure(str(error))
                raise
            except asyncio.CancelledError:
                if asked.breaker.state == "half-open":  # nobody knows whether it would have answered
                    asked.breaker.failure("another was faster")
                raise
            asked.breaker.success(time.monotonic() - begun)
            return answer


def key_of(what: str | int) -> str:
    """What is asked about: "AS15169", or the /24 or /48 of an address. ValueError for anything else."""
    text = str(what).strip()
    if isinstance(what, int) or text.upper().startswith("AS") or text.isdigit():
        first, last = parse_asn(what)
        if first != last:
            raise ValueError(f"{what} is a range of AS numbers; write one")
        return f"AS{first}"
    return network_of(text)


def _bound(call: Callable[..., Awaitable[AsnAnswer]], *words: Any) -> Callable[[], Awaitable[AsnAnswer]]:
    return lambda: call(*words)


def _tell(done: Future[AsnAnswer | None], then: Callable[[AsnAnswer], object]) -> None:
    if done.cancelled() or done.exception() is not None:
        return
    answer = done.result()
    if answer is not None:
        try:
            then(answer)
        except Exception:
            log.exception("what follows an answer failed")
