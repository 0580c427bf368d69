"""Follower of an engine's bans that keeps a drop set of the kernel in step: start, change, reconcile, watchdog."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gobanfast.frontends.kernel import guards
from gobanfast.frontends.kernel.bpf import KernelError
from gobanfast.frontends.kernel.maps import Allowed, DropSet, Key, boot_seconds
from gobanfast.frontends.kernel.plan import Plan
from gobanfast.frontends.kernel.report import exposition

if TYPE_CHECKING:
    from gobanfast.engine import Engine

log = logging.getLogger("gobanfast.kernel")

TICK = 1.0  # seconds between looks at anything but bans
GUARDS = 5.0  # between looks at addresses, gateways, resolvers and sessions
QUIET = 1.0  # after the last change, before the whole is worked out anew; at most
LATEST = 5.0  # after it became due
WHOLE = 300.0  # between looks at the whole: what is over gives its room back
METRICS = 5.0  # between writings of the metrics, which count a million entries in 0.3 s
LIMIT = 4096  # changes at once


class RefusedError(KernelError):
    """A reason not to drop: who would be dropped is not known to be the client."""


class Follower:
    """Keeps `drops` as the bans of `engine` are.

    Args:
        ignore_allow: ids of `allow` rules that ask for more than a packet shows, so the kernel cannot honour them, and
            that are known to be left out.
        ports: where peers with a session are never dropped.
        direct: whether it is known that clients connect directly, though `trust:` names proxies elsewhere.
        metrics: file that gets the metrics in Prometheus' text format.
    """

    def __init__(
        self,
        engine: Engine,
        drops: DropSet,
        *,
        capacity: int,
        ignore_allow: frozenset[str] = frozenset(),
        ports: tuple[int, ...] = (22,),
        direct: bool = False,
        dropping: bool = True,
        metrics: Path | None = None,
        host: Callable[[], frozenset[Key]] = guards.host_prefixes,
        sessions: Callable[[], frozenset[bytes]] = guards.session_peers,
    ) -> None:
        self.engine, self.drops, self.ports, self.metrics = engine, drops, ports, metrics
        self.ignore_allow, self.direct, self.dropping = ignore_allow, direct, dropping
        self.plan = Plan(engine.ban_table, engine.ruleset.asn, capacity)
        self.counts = {"changes": 0, "refused": 0, "whole": 0, "failures": 0}
        self._host, self._sessions = host, sessions
        self._cursor: int | None = None
        self._swapped = True
        self._allowed: Allowed | None = None
        self._rules: frozenset[Key] = frozenset()
        self._stop = False
        self._stale_since = self._changed_at = self._guarded_at = self._whole_at = self._ticked_at = (
            self._written_at
        ) = 0.0
        self._told: set[str] = set()

    # ---- start

    def check(self) -> None:
        """Raises RefusedError where others than banned clients could be hit: proxies, `allow` rules out of sight."""
        ruleset = self.engine.ruleset
        _, unseen = guards.allow_rules(ruleset, ruleset.asn)
        problems = []
        if missed := [rule for rule in unseen if rule not in self.ignore_allow]:
            options = " ".join(f"--ignore-allow {rule}" for rule in missed)
            problems.append(
                f"allow rules {', '.join(missed)} ask for more than a packet shows, so the kernel would drop whom they "
                f"allow; if that is meant, say {options}"
            )
        own = self._host()
        if through := guards.connected_through(ruleset, own):
            problems.append(
                f"connections come through {', '.join(sorted(through)[:5])}, which trust: names: the kernel sees the "
                "proxy and not the client; ban there, or run --mode count"
            )
        elif not self.direct and (named := guards.proxies(ruleset, own)):
            problems.append(
                f"trust: names proxies on other hosts ({', '.join(named[:5])}): behind them the kernel sees no client; "
                "if clients connect to this host directly too, say --doctor URL, which proves it"
            )
        if problems:
            raise RefusedError("\n".join(problems))

    def start(self, confirm: float | None = None) -> None:
        """Fills the set, attaches it, and lets it drop: for good, or `confirm` seconds.

        Raises:
            RefusedError, KernelError: nothing drops that did not before.
        """
        if self.dropping:
            self.check()
        was = self.drops.armed()
        self.engine.on_swap.append(self._on_swap)
        try:
            self._guard(time.monotonic())
            _, self._cursor = self.engine.ban_table.changes()
            self._reconcile()
            self.drops.attach()
            self.drops.arm(None if confirm is None or was is None else boot_seconds() + confirm)
        except (KernelError, OSError):
            self.engine.on_swap.remove(self._on_swap)
            raise

    def _on_swap(self, _: Any) -> None:
        self._swapped = True
        self.engine.ban_table.wake()

    # ---- run

    def run(self) -> None:
        """Follows until `stop`, or until the set is taken down by somebody else. What drops goes on dropping."""
        notify("READY=1")
        while not self._stop and self.step():
            pass
        notify("STOPPING=1")

    def stop(self) -> None:
        """Ends `run` soon; for signal handlers."""
        self._stop = True
        self.engine.ban_table.wake()

    def step(self, timeout: float = TICK) -> bool:
        """Waits for changes and takes them in; False once the set is gone."""
        self.engine.ban_table.wait(self._cursor or 0, timeout=timeout)
        now = time.monotonic()
        try:
            if self._swapped or now - self._guarded_at > GUARDS:
                self._guard(now)
            self._follow(now)
            if now - self._ticked_at >= TICK:
                self._ticked_at = now
                return self._tick(now)
        except (KernelError, OSError) as error:
            self.counts["failures"] += 1
            if not self.drops.present():
                return self._ended()
            self._tell(f"{error}; trying again")
            self.plan.stale = True
            self._stale_since = self._stale_since or now
            time.sleep(0.2)
        return True

    def _ended(self) -> bool:
        log.warning("taken down by somebody else; ending")
        return False

    def _follow(self, now: float) -> None:
        while True:
            changes, self._cursor = self.engine.ban_table.changes(self._cursor, limit=LIMIT)
            if changes is None:
                self._reconcile()
                return
            if not changes:
                break
            self.counts["changes"] += len(changes)
            puts, removes = self.plan.change(changes)
            if puts:
                refused = self.drops.put(puts)
                if refused:
                    self.counts["refused"] += len(refused)
                    self.plan.stale = True
            if removes:
                self.drops.remove(removes)
            self._changed_at = now
        if not self.plan.stale:
            self._stale_since = 0.0
            return
        self._stale_since = self._stale_since or now
        if now - self._changed_at > QUIET or now - self._stale_since > LATEST:
            self._reconcile()

    def _reconcile(self) -> None:
        """Makes the set what the table is, whatever it held before."""
        sync = self.engine.sync
        if sync is not None and not sync.ready(0):  # an empty table would lift what an earlier process put there
            self.plan.stale = True
            self._tell(f"{sync.store.uri} was not read yet; what is in the kernel stays")
            return
        before = self.plan.left_out
        self.drops.replace(self.plan.whole())
        self.counts["whole"] += 1
        self._stale_since, self._whole_at = 0.0, time.monotonic()
        if self.plan.left_out and not before:
            text = "no room in the kernel for %d bans, the shortest (--capacity); the engine enforces them all the same"
            log.warning(text, self.plan.left_out)

    def _guard(self, now: float) -> None:
        """Keeps the allow entries as rules, addresses and sessions are; disarms where rules do not permit to drop."""
        ruleset = self.engine.ruleset
        if self._swapped:
            self._swapped = False
            self._rules, _ = guards.allow_rules(ruleset, ruleset.asn)
            if ruleset.asn is not self.plan.networks:
                self.plan.networks, self.plan.stale = ruleset.asn, True
            if self._allowed is not None and self.dropping:
                self._check_again()
        self._guarded_at = now
        prefixes = self._rules | self._host() | frozenset(guards.unpacked(ruleset.trust))
        allowed = Allowed(prefixes, self._sessions() if self.ports else frozenset(), self.ports)
        if allowed != self._allowed:
            self.drops.allow(allowed)
            self._allowed = allowed

    def _check_again(self) -> None:
        try:
            self.check()
        except RefusedError as error:
            self.drops.arm(0.0)
            log.error("nothing is dropped any more: %s", error)

    def _tick(self, now: float) -> bool:
        notify("WATCHDOG=1")
        if not self.drops.present():
            return self._ended()
        lost = self.drops.lost()
        if lost:
            self._tell(f"interface {', '.join(lost)} is gone, or lost the program")
            with suppress(KernelError, OSError):
                self.drops.attach()
                log.warning("attached again to %s", ", ".join(lost))
                self._told.clear()
        if now - self._whole_at > WHOLE:
            self._reconcile()
        if self.metrics is not None and now - self._written_at > METRICS:
            self._written_at = now
            part = self.metrics.with_name(f"{self.metrics.name}.part")
            part.write_text(exposition(self.drops.status(count=self.drops.kind == "xdp"), self), encoding="utf-8")
            part.replace(self.metrics)
        return True

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.error("%s", what)


def notify(text: str) -> None:
    """Tells systemd, where it asked to be told (sd_notify)."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(text.encode(), f"\0{path[1:]}" if path.startswith("@") else path)


def only_one(name: str) -> socket.socket:
    """A lock of this network namespace, held while the socket is open. Raises KernelError: another process has it."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0gobanfast-kernel-{name}")
    except OSError:
        held.close()
        raise KernelError("another gobanfast kernel up runs here; end it first") from None
    return held
