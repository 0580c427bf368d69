"""Bans that grow: many banned clients of one network become one ban of it, never past those who also live there.

Evidence are bans that rules and trackers made, read from the change feed of the ban table. A network of enough banned
clients is banned in their place, where at most `collateral` other clients of it were let in within the last hour; else
it keeps its bans of clients, gets the label "ladder", and that is told. Memory is bounded by CLIENTS.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Literal, NamedTuple

from gobanfast.bans import too_wide

if TYPE_CHECKING:
    from gobanfast.bans import Ban
    from gobanfast.engine import Engine
    from gobanfast.rules.settings import Ladder

Network = IPv4Network | IPv6Network

CLIENTS = 262_144  # that evidence is kept of; those of the network heard of longest ago are forgotten
PAUSE = 0.05  # seconds between a ban and the look at what it adds to
LABEL = "ladder"
EVIDENCE = ("rule", "tracker")

log = logging.getLogger("gobanfast.rules")


class Step(NamedTuple):
    """What became of a network with enough banned clients: "banned" in their place, "crowded" (labelled), or "spared",
    because no decision may ban it. `rule` made most of its bans; `others` were let in lately, None: nobody knows."""

    network: str
    outcome: Literal["banned", "crowded", "spared"]
    clients: int
    rule: str | None
    others: int | None


class Climber:
    """Follows the bans of an engine and lets them grow, by the ladder in its rules.

    Threads: one at a time climbs; another one that comes meanwhile leaves it to that.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)
        self._cursor: int | None = None
        self._lock = threading.Lock()
        self._pid, self._running = os.getpid(), False
        # network -> clients banned in it: key -> (when the ban ends, the rule that made it)
        self._networks: dict[Network, dict[str, tuple[float, str | None]]] = {}
        self._total = 0  # clients in all of them

    def wake(self, now: float) -> None:
        """Has a thread climb; decisions go on meanwhile."""
        if self._pid != os.getpid():  # a forked child has not the thread, which may have held the lock
            self._pid, self._running, self._lock = os.getpid(), False, threading.Lock()
        if not self._running:
            self._running = True
            threading.Thread(target=self._run, args=(now,), name="gobanfast-ladder", daemon=True).start()

    def _run(self, now: float) -> None:
        time.sleep(PAUSE)  # an attack bans many at once
        self._running = False  # who comes from here on is not among what is read
        try:
            self.climb(now)
        except Exception:
            log.exception("ladder: climbing failed")

    def climb(self, now: float) -> list[Step]:
        """The steps that are due, taken."""
        engine = self._engine()
        ladder = None if engine is None else engine.snapshot.settings.bans.ladder
        if engine is None or ladder is None:
            return []
        with self._lock:
            return self._climb(engine, ladder, now)

    def _climb(self, engine: Engine, ladder: Ladder, now: float) -> list[Step]:
        table = engine.ban_table
        changes, cursor = table.changes(self._cursor)
        self._cursor = cursor
        touched: dict[Network, int] = {}
        if changes is None:  # from the start, or too far behind
            self._networks.clear()
            self._total = 0
            for ban in table.bans(now=now):
                touched |= self._note(ladder, ban)
        for change in changes or ():
            if change.event in ("add", "extend"):
                touched |= self._note(ladder, change.ban)
            else:
                self._forget(ladder, change.ban)
        steps = []
        for network, needed in sorted(touched.items(), key=lambda item: item[0].prefixlen):  # the widest first
            step = self._judge(engine, ladder, network, needed, now)
            if step is not None:
                steps.append(step)
        return steps

    def _scopes(self, ladder: Ladder, key: str) -> list[tuple[Network, int]]:
        """(network, clients it needs) for each step above a banned client."""
        if key.startswith(("AS", "gh2:", "uid:")):
            return []
        client = ip_network(key)
        steps = ladder.ipv4 if client.version == 4 else ladder.ipv6
        return [(client.supernet(new_prefix=bits), needed) for bits, needed in steps if bits < client.prefixlen]

    def _note(self, ladder: Ladder, ban: Ban) -> dict[Network, int]:
        touched = {}
        for network, needed in self._scopes(ladder, ban.key) if ban.by in EVIDENCE else ():
            clients = self._networks.pop(network, {})
            self._networks[network] = clients  # the newest
            self._total += ban.key not in clients
            while self._total > CLIENTS and len(self._networks) > 1:
                self._total -= len(self._networks.pop(next(iter(self._networks))))
            if self._total > CLIENTS:
                del clients[next(iter(clients))]
                self._total -= 1
            clients[ban.key] = (float("inf") if ban.expires is None else ban.expires, ban.rule)
            if len(clients) >= needed:
                touched[network] = needed
        return touched

    def _forget(self, ladder: Ladder, ban: Ban) -> None:
        for network, _ in self._scopes(ladder, ban.key):
            clients = self._networks.get(network, {})
            if clients.pop(ban.key, None) is not None:
                self._total -= 1
            if not clients:
                self._networks.pop(network, None)

    def _judge(self, engine: Engine, ladder: Ladder, network: Network, needed: int, now: float) -> Step | None:
        clients, unix = self._networks.get(network, {}), now + engine.ban_table.offset
        for key in [key for key, (ends, _) in clients.items() if ends <= unix]:
            del clients[key]
            self._total -= 1
        if len(clients) < needed:
            return None
        name, rules = str(network), [rule for _, rule in clients.values()]
        rule = max(set(rules), key=rules.count)
        others = engine.others_in(name, clients, now=now)
        trusted = engine.ruleset.trust
        if engine.spares(name) or too_wide(name, trusted=trusted):
            return self._told(Step(name, "spared", len(clients), rule, others), network)
        if others is None or others > ladder.collateral:
            engine.label(name, LABEL, duration=ladder.duration, reason="bans of clients", now=now)
            return self._told(Step(name, "crowded", len(clients), rule, others), network)
        reason = f"{len(clients)} banned clients"
        made = engine.ban_table.ban(name, duration=ladder.duration, reason=reason, rule=rule, by="tracker", now=now)
        if made is None:
            return None
        for key in tuple(clients):
            engine.ban_table.unban(key, maker="tracker", now=now)
        return self._told(Step(name, "banned", len(clients), rule, others), network)

    def _told(self, step: Step, network: Network) -> Step:
        self._total -= len(self._networks.pop(network, {}))
        log.warning(
            "ladder: %s is %s: %d clients of it are banned, most by %s; %s others were let in lately",
            step.network, step.outcome, step.clients, step.rule, "an unknown number of" if step.others is None
            else step.others,
        )  # fmt: skip
        return step
