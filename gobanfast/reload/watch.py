"""File watcher of a ruleset: debounce, compile, test, canary, swap; a bad file changes nothing."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from gobanfast._errors import GobanError, RuleError
from gobanfast._fork import importing, watch_forks
from gobanfast.asn.source import AsnSource
from gobanfast.reload import compile_process
from gobanfast.reload.canary import Trial
from gobanfast.reload.loader import compile_rules, load_cached, save_last_good
from gobanfast.rules.sources import Inputs

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable
    from gobanfast.engine import Engine
    from gobanfast.reload.decision_diff import Budget
    from gobanfast.rules.ruleset import Ruleset

QUIET = 0.1  # seconds without a write that end a burst of them
CEILING = 2.0  # seconds after which a burst that does not end is read anyway
STEP = 0.02
LOOK_AGAIN = 30.0  # seconds after which content is compared even if nothing was noticed

log = logging.getLogger("gobanfast.rules")


class Watcher:
    """Follows the files of a ruleset for one engine, in a thread of its own that a forked child starts anew.

    Made by `Engine.watch`. The order is: a change is noticed in a directory; 100 ms pass without another (2 s at most);
    contents of all files are compared; rules are read, their inline tests run; with a budget they are on trial beside
    the old ones; then they are swapped in. Whatever fails on the way leaves the old rules in force, and the engine is
    `stale` until a later change is good.

    Args:
        engine: gets the new rules.
        path: the rules file.
        asn: what rules are compiled against, or the file it is in, which is followed too; None: as for `Engine.load`.
        last_good: file for the compiled ruleset in force, see `Engine.load`.
        budget: puts every change on trial first.
        interval: seconds between looks at the files, besides what the watchfiles package (extra `watch`) notices.
    """

    def __init__(
        self, engine: Engine, path: str | os.PathLike[str], *, asn: AsnTable | str | os.PathLike[str] | None = None,
        last_good: str | os.PathLike[str] | None = None, budget: Budget | None = None, interval: float = 1.0,
    ) -> None:  # fmt: skip
        self.path = os.fspath(path)
        self.reloads = self.failures = self.rollbacks = 0
        self.problems: tuple[str, ...] = ()  # why the newest rules are not in force; empty when they are
        self.stale_since: float | None = None  # unix seconds
        self.report: dict[str, Any] | None = None  # of the last trial
        self.on_close: list[Callable[[], object]] = []  # what ends with the watch
        self._engine, self._networks = engine, AsnSource(asn, rules=path)
        self._last_good, self._budget = last_good, budget
        self._interval = interval
        self._inputs = Inputs()
        inputs = engine.ruleset.inputs
        if os.path.abspath(path) in inputs.files:
            self._inputs = inputs
        else:
            self._inputs.files[os.path.abspath(path)] = None  # whatever is there is new
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        watch_forks(self)

    # ---- life

    def start(self) -> None:
        """Starts the thread of this process, if it does not run."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name="gobanfast-rules", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread; rules stay as they are. A trial under way ends without them."""
        self._stop.set()
        for end in self.on_close:
            end()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def before_fork(self) -> None:
        """Nothing: the child takes over nothing but what is in force."""

    def after_fork(self, child: bool) -> None:
        """Gives the child a thread of its own."""
        if child:
            self._lock = threading.Lock()
            self._engine.candidate = None
            if self._thread is not None:
                self._thread = None
                self.start()

    def mark_stale(self, problems: tuple[str, ...]) -> None:
        """Notes that the rules in force are not those of the file, and why."""
        self.problems, self.stale_since = problems, self.stale_since or time.time()

    @property
    def stale(self) -> bool:
        """Whether the files have newer rules than those in force, because they are bad or were rolled back."""
        return self.stale_since is not None

    def status(self) -> dict[str, Any]:
        """State as JSON values."""
        return {
            "path": self.path,
            "watching": self._thread is not None and self._thread.is_alive(),
            "on_trial": self._engine.candidate is not None,
            "stale": self.stale,
            "stale_since": self.stale_since,
            "problems": list(self.problems),
            "reloads": self.reloads,
            "failures": self.failures,
            "rollbacks": self.rollbacks,
            "report": self.report,
        }

    def follow(self, path: str | os.PathLike[str]) -> None:
        """Follows one more file, which is an input from the next compile on."""
        self._inputs.files.setdefault(os.path.abspath(path), None)

    # ---- one change

    def check(self) -> bool:
        """Whether new rules are in force now: compares the files with what was read last, and takes what changed.

        Cost: reads every file; compiling, when one changed. One caller at a time, others wait.
        """
        with self._lock:
            if not self._inputs.changed():
                return False
            inputs = Inputs()
            try:
                ruleset = self._read(inputs)
            except (GobanError, OSError, ValueError, MemoryError) as error:
                self._inputs = inputs
                problems = error.problems if isinstance(error, RuleError) else (f"{self.path}: {error}",)
                self._refuse([str(problem) for problem in problems])
                self.failures += 1
                return False
            self._inputs = inputs
            same = ruleset.content_hash == self._engine.ruleset.content_hash
            if self._budget is not None and not same and not self._try(ruleset, self._budget):
                return False
            try:
                self._engine.swap(ruleset)
            except (ValueError, MemoryError, OverflowError) as error:  # live state that its settings require
                self._refuse([f"{self.path}: cannot be put in force: {error or type(error).__name__}"])
                self.failures += 1
                return False
            self.reloads += 1
            level = logging.WARNING if self.stale else logging.INFO  # whoever saw the failure sees that it is over
            self.problems, self.stale_since = (), None
            text = "%s: in force, generation %d, hash %s"
            log.log(level, text, self.path, self._engine.generation, ruleset.content_hash)
            if self._budget is not None and self._last_good is not None:
                save_last_good(ruleset, self._last_good)
            return True

    def _read(self, inputs: Inputs) -> Ruleset:
        large = self._inputs.nbytes() + self._networks.nbytes >= compile_process.LARGE and compile_process.possible()
        if self._budget is None:
            return load_cached(
                self.path, networks=self._networks, last_good=self._last_good, inputs=inputs, in_subprocess=large
            )  # fmt: skip
        return compile_rules(self.path, self._networks, inputs, in_subprocess=large)  # kept once it was tried

    def _refuse(self, problems: list[str]) -> None:
        """The old rules stay in force, visibly."""
        self.mark_stale(tuple(problems))
        log.error("%s: not in force, the old rules stay: %s", self.path, "; ".join(problems[:5]))

    def _try(self, ruleset: Ruleset, budget: Budget) -> bool:
        """Whether the candidate kept to the budget on live traffic; False too when a newer change or the end came."""
        trial = Trial(self._engine.ruleset, ruleset, budget)
        end = time.monotonic() + budget.seconds
        self._engine.candidate = trial
        try:
            while not trial.full.wait(QUIET) and time.monotonic() < end:
                if self._stop.is_set() or self._inputs.changed():
                    return False
        finally:
            self._engine.candidate = None
        found = trial.differences
        broken = found.over(budget)
        self.report = {"promoted": broken is None, "why": broken, "errors": trial.errors, **found.report()}
        report = "\n".join(found.lines())
        if broken is None:
            log.info("%s: within budget: %s", self.path, report)
            return True
        self.rollbacks += 1
        self._refuse([f"{self.path}: rolled back: {broken}"])
        log.error("%s: rolled back: %s", self.path, report)
        return False

    # ---- the thread

    def _run(self) -> None:
        signature: tuple[object, ...] = ()  # of what was read last; none: it may have changed since it was loaded
        looked = time.monotonic()
        for _ in self._events():
            while not self._stop.is_set():
                if self._inputs.stat_signature() != signature:
                    self._debounce()
                elif time.monotonic() - looked < LOOK_AGAIN:
                    break
                try:
                    self.check()
                except Exception:  # a bug in reading rules must not end the watch over them
                    log.exception("%s: reading the rules failed", self.path)
                looked = time.monotonic()
                signature = self._inputs.stat_signature()
                if self._inputs.changed():  # meanwhile
                    signature = ()

    def _debounce(self) -> None:
        """Return when nothing was written for QUIET seconds, or after CEILING."""
        begun = quiet = time.monotonic()
        signature = self._inputs.stat_signature()
        while not self._stop.wait(STEP):
            now = time.monotonic()
            seen = self._inputs.stat_signature()
            if seen != signature:
                signature, quiet = seen, now
            if now - quiet >= QUIET or now - begun >= CEILING:
                return

    def _events(self) -> Iterator[None]:
        """Yield whenever the files may have changed, until `close`."""
        with importing:
            try:
                import watchfiles
            except ImportError:
                watchfiles = None  # type: ignore[assignment]
        yield
        while not self._stop.is_set():
            directories = self._inputs.directories()
            if watchfiles is None or not directories:
                self._stop.wait(self._interval)
                yield
                continue
            changes = watchfiles.watch(
                *directories, watch_filter=None, debounce=50, step=50, stop_event=self._stop, recursive=False,
                rust_timeout=max(1, int(1000 * self._interval)), yield_on_timeout=True, raise_interrupt=False,
            )  # fmt: skip  # the time-out finds what was written before the watch was set up, or on a network drive
            try:
                for _ in changes:
                    yield
                    if self._inputs.directories() != directories:
                        break
            except (FileNotFoundError, OSError):  # a directory went away while the watch was set up
                self._stop.wait(self._interval)
                yield
