"""Refresher of feeds: fetches each list when it is due, once per host, and keeps the last good one whatever happens.

A list is fetched with the conditional headers of the last time, checked (`feed_entries`), and written into the folder
of `rules.feed_cache`; the watcher of the rules notices the file as it does any list file. Fetching and reading happen
in a process of its own, so that decisions here never wait for the interpreter.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gobanfast._errors import GobanError
from gobanfast._fork import watch_forks
from gobanfast.rules.feed_cache import entries_path, folder_of, read_state, state_path
from gobanfast.rules.rule import PrefixList
from gobanfast.rules.settings import FeedSettings

if TYPE_CHECKING:
    from gobanfast.engine import Engine

log = logging.getLogger("gobanfast.feeds")

FIRST_RETRY = 60.0  # seconds, doubled with each failure up to `every`
LOOK_AGAIN = 30.0  # seconds between looks at what is due, at most
TIMEOUT = 900.0  # seconds of one round of fetches in another process
JITTER = 0.1  # of the time until a feed is due

_CHILD = (
    "import json, sys; job = json.load(sys.stdin); sys.path[:] = job['path']; "
    "from gobanfast.enrich.feeds import child; child(job)"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one feed: "new", "same", or "failed" with the reason."""

    name: str
    result: str
    count: int
    text: str = ""


def due(feed: FeedSettings, folder: Path, now: float) -> float:
    """Unix seconds when a feed is to be fetched; `now` for one that was not, or is described in another way since."""
    state = read_state(folder, feed.name)
    if state.get("described") != _described(feed):
        return now
    checked, again = _number(state, "checked_at"), _number(state, "again_at")
    if max(checked, again) > now + 2 * max(feed.every, 86400.0):  # the clock was set back
        return now
    if not again and not entries_path(folder, feed.name, feed.kind).is_file():
        return now
    return again or checked + feed.every


def refresh(
    feed: FeedSettings, folder: Path, base: Path, trusted: PrefixList, *, now: float, force: bool = False
) -> Outcome:
    """Fetches a feed, and takes it in place of the last good one if it is sane. Never raises for what a source does.

    Args:
        base: the folder that `file` is relative to.
        force: takes a list of whatever size, unconditionally.
    """
    state = read_state(folder, feed.name)
    if state.get("described") != _described(feed):
        kept = {"count": state["count"]} if state.get("kind") == feed.kind and "count" in state else {}
        state = {"described": _described(feed), "kind": feed.kind, **kept}
        force_all = True
    else:
        force_all = force
    try:
        result = _take(feed, folder, base, trusted, state, now, unconditional=force_all, any_size=force)
    except GobanError as error:
        return _failed(feed, folder, state, error, now)
    except (ValueError, OSError, MemoryError, RecursionError, ArithmeticError, LookupError, TypeError) as error:
        log.exception("feed %s: reading it failed", feed.name)
        return _failed(feed, folder, state, GobanError(f"{type(error).__name__}: {str(error)[:200]}"), now)
    state |= {"checked_at": now, "error": None, "failures": 0, "again_at": 0, "stale": False}
    _write(state_path(folder, feed.name), json.dumps(state, indent=1).encode())
    return Outcome(feed.name, result, int(state.get("count", 0)))


def _take(
    feed: FeedSettings, folder: Path, base: Path, trusted: PrefixList, state: dict[str, Any], now: float, *,
    unconditional: bool, any_size: bool,
) -> str:  # fmt: skip
    from gobanfast.enrich import feed_entries

    path = entries_path(folder, feed.name, feed.kind)
    body = _fetch(feed, base, {} if unconditional or not path.is_file() else state)
    if isinstance(body, dict):
        state |= body
        return "same"
    data, told = body
    digest = hashlib.sha256(data).hexdigest()
    if digest == state.get("sha256") and path.is_file() and not unconditional:
        state |= told
        return "same"
    data = feed_entries.unpacked(data, feed.max_bytes)
    before = int(_number(state, "count"))
    if feed.kind == "table":
        text, count = feed_entries.table_bytes(data, folder, feed.name)
        skipped = 0
    else:
        found = feed_entries.read_entries(feed, data, trusted)
        text, count, skipped = found.text.encode(), found.count, found.skipped
    feed_entries.check_size(count, before, any_size=any_size or feed.any_size)
    _write(path, text)
    state |= {**told, "sha256": digest, "count": count, "skipped": skipped, "fetched_at": now}
    return "new"


def _fetch(feed: FeedSettings, base: Path, state: dict[str, Any]) -> dict[str, Any] | tuple[bytes, dict[str, Any]]:
    """The list with what its source says of its version; without the list where that is still the one of `state`."""
    from gobanfast.enrich.download import DownloadError, Limits, download, origin
    from gobanfast.enrich.feed_entries import FeedError

    if feed.file is not None:
        try:
            with (base / feed.file).open("rb") as file:
                data = file.read(feed.max_bytes + 1)
        except OSError as error:
            raise DownloadError(f"{feed.file}: {(error.strerror or str(error)).lower()}") from None
        if len(data) > feed.max_bytes:
            raise DownloadError(f"{feed.file}: more than max_bytes: {feed.max_bytes}")
        return data, {}
    limits = Limits(feed.timeout, feed.max_bytes, feed.private, feed.insecure)
    headers = {}
    if state.get("etag"):
        headers["if-none-match"] = str(state["etag"])
    elif state.get("last_modified"):
        headers["if-modified-since"] = str(state["last_modified"])
    secret = _secret(feed)
    answer = download(str(feed.url), limits, headers=headers, secret=secret)
    told = {"etag": answer.headers.get("etag"), "last_modified": answer.headers.get("last-modified")}
    if answer.status == 304:
        return {name: value for name, value in told.items() if value}
    if "html" in answer.headers.get("content-type", ""):
        raise FeedError("it is HTML, not a list")
    if feed.checksum is not None:
        its = secret if origin(feed.checksum) == origin(str(feed.url)) else None  # the key is for the source alone
        text = download(feed.checksum, limits, secret=its).body[:4096].decode("ascii", "replace")
        expected = re.search(r"\b[0-9a-fA-F]{64}\b", text)
        if expected is None:
            raise FeedError("its checksum is no SHA-256")
        if expected[0].lower() != hashlib.sha256(answer.body).hexdigest():
            raise FeedError("its checksum is another")
    return answer.body, told


def _secret(feed: FeedSettings) -> dict[str, str]:
    from gobanfast.enrich.download import DownloadError

    if feed.key is None:
        return {}
    key = os.environ.get(feed.key, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise DownloadError(f"environment variable {feed.key} has no key in it")
    if feed.auth == "basic":
        return {"authorization": f"Basic {base64.b64encode(key.encode()).decode()}"}
    return {"authorization": f"Bearer {key}"}


def _failed(feed: FeedSettings, folder: Path, state: dict[str, Any], error: GobanError, now: float) -> Outcome:
    failures = int(_number(state, "failures")) + 1
    wait = min(FIRST_RETRY * 2.0 ** min(failures - 1, 20), max(feed.every, FIRST_RETRY))
    again = max(wait * random.uniform(1, 1 + JITTER), getattr(error, "again", None) or 0.0)
    stale = now - _number(state, "checked_at") > feed.stale_after
    state |= {"error": str(error)[:500], "failures": failures, "again_at": now + again, "stale": stale}
    path = entries_path(folder, feed.name, feed.kind)
    if stale and feed.on_stale == "drop" and path.is_file():
        path.replace(path.with_name(f"{path.name}.stale"))
    _write(state_path(folder, feed.name), json.dumps(state, indent=1).encode())
    return Outcome(feed.name, "failed", int(_number(state, "count")), str(error))


def status_of(feeds: Sequence[FeedSettings], folder: Path, now: float) -> list[dict[str, Any]]:
    """The state of each feed as JSON values. `age` is how long ago its source confirmed it, in seconds; None: never."""
    found = []
    for feed in feeds:
        state = read_state(folder, feed.name)
        here = entries_path(folder, feed.name, feed.kind).is_file()
        checked = _number(state, "checked_at") if here else 0.0
        age = max(0.0, now - checked) if checked else None
        found.append({
            "name": feed.name, "kind": feed.kind, "entries": int(_number(state, "count")) if here else 0, "age": age,
            "stale": age is None or age > feed.stale_after, "fetched_at": state.get("fetched_at"),
            "failures": int(_number(state, "failures")), "error": state.get("error"),
        })  # fmt: skip
    return found


def update(
    feeds: Sequence[FeedSettings], folder: Path, base: Path, trusted: PrefixList, *, now: float, force: bool = False
) -> list[Outcome]:
    """`refresh` of each; the folder is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    return [refresh(feed, folder, base, trusted, now=now, force=force) for feed in feeds]


@contextlib.contextmanager
def folder_lock(folder: Path, *, wait: bool) -> Iterator[bool]:
    """The lock of the host's fetches, while this is open; False: another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough: a child forked meanwhile has it open, too
    finally:
        os.close(lock)


class FeedRefresher:
    """Keeps the feeds of an engine's rules fresh, in a thread that a forked child starts anew.

    `Engine.watch` starts one. Any number of processes may: one fetches, the others see the files.

    Args:
        engine: whose rules name the feeds.
        path: the rules file, beside which the folder is.
        clock: Unix seconds.
    """

    def __init__(self, engine: Engine, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._clock = engine, clock
        self.folder, self._base = folder_of(path), Path(os.path.abspath(path)).parent
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._jitter = random.Random()
        engine.on_swap.append(self._swapped)
        watch_forks(self)

    @property
    def feeds(self) -> tuple[FeedSettings, ...]:
        """The feeds of the rules in force."""
        return self._engine.ruleset.settings.feeds

    def start(self) -> None:
        """Starts the thread of this process if there are feeds and it does not run."""
        if self.feeds and self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name="gobanfast-feeds", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread; a fetch under way is not waited for."""
        self._stop.set()
        self._wake.set()
        if self._swapped in self._engine.on_swap:
            self._engine.on_swap.remove(self._swapped)
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def _swapped(self, _: object) -> None:
        self._wake.set()
        self.start()

    def before_fork(self) -> None:
        """See `ForkAware`."""

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if child and self._thread is not None:
            self._thread = None
            self._wake, self._jitter = threading.Event(), random.Random()
            self.start()

    def status(self) -> list[dict[str, Any]]:
        """See `status_of`."""
        return status_of(self.feeds, self.folder, self._clock())

    def check(self) -> list[Outcome]:
        """Fetches what is due, unless another process is at it; what became of it."""
        now = self._clock()
        if not any(due(feed, self.folder, now) <= now for feed in self.feeds):
            return []
        try:
            with folder_lock(self.folder, wait=False) as mine:
                ready = [feed for feed in self.feeds if due(feed, self.folder, now) <= now] if mine else []
                outcomes = self._fetch(ready, now) if ready else []
        except OSError as error:
            log.error("feeds: %s: %s", self.folder, error.strerror or error)
            return []
        for outcome in outcomes:
            if outcome.result == "failed":
                log.warning("feed %s: not refreshed, the last good one stays: %s", outcome.name, outcome.text)
            elif outcome.result == "new":
                log.info("feed %s: %d entries", outcome.name, outcome.count)
        return outcomes

    def _fetch(self, feeds: list[FeedSettings], now: float) -> list[Outcome]:
        from gobanfast.reload.compile_process import possible

        trusted = self._engine.ruleset.trust
        if possible():
            return fetch_in_subprocess(feeds, self.folder, self._base, trusted, now)
        return update(feeds, self.folder, self._base, trusted, now=now)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.check()
                now = self._clock()
                next_ = min((due(feed, self.folder, now) for feed in self.feeds), default=now + LOOK_AGAIN)
            except Exception:
                log.exception("feeds: refreshing failed")
                now, next_ = 0.0, LOOK_AGAIN
            wait = min(max(next_ - now, 1.0), LOOK_AGAIN)
            self._wake.wait(wait * self._jitter.uniform(1, 1 + JITTER))


def fetch_in_subprocess(
    feeds: Sequence[FeedSettings], folder: Path, base: Path, trusted: PrefixList, now: float
) -> list[Outcome]:
    """`update`, in another process; keys reach it by its environment alone."""
    import subprocess

    job = {
        "path": sys.path, "feeds": [asdict(feed) for feed in feeds], "folder": str(folder), "base": str(base),
        "addresses": bytes(trusted.addresses).hex(), "lengths": bytes(trusted.lengths).hex(), "now": now,
    }  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", _CHILD], input=json.dumps(job), capture_output=True, text=True, timeout=TIMEOUT,
            check=False,
        )  # fmt: skip
        return [Outcome(**outcome) for outcome in json.loads(done.stdout)]
    except subprocess.TimeoutExpired:
        why = f"fetching took over {TIMEOUT:g} s"
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["without a message"])[-1]
        why = f"fetching ended with status {done.returncode}, {last}"
    return [_failed(feed, folder, read_state(folder, feed.name) | {"described": _described(feed)}, GobanError(why), now)
            for feed in feeds]  # fmt: skip


def child(job: dict[str, Any]) -> None:
    """Entry point of the subprocess: fetch, and report on standard output."""
    feeds = [FeedSettings(**{**feed, "path": tuple(feed["path"])}) for feed in job["feeds"]]
    trusted = PrefixList(bytes.fromhex(job["addresses"]), bytes.fromhex(job["lengths"]))
    outcomes = update(feeds, Path(job["folder"]), Path(job["base"]), trusted, now=job["now"])
    json.dump([asdict(outcome) for outcome in outcomes], sys.stdout)


def _described(feed: FeedSettings) -> str:
    return hashlib.sha256(repr(feed).encode()).hexdigest()[:16]


def _number(state: dict[str, Any], name: str) -> float:
    value = state.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def _write(path: Path, data: bytes) -> None:
    """Replaces a file: temporary, fsync, rename."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
