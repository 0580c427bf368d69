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
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gobanfast._core.address import format_address
from gobanfast._core.enums import MAKERS
from gobanfast._errors import GobanError
from gobanfast.bans import ban_key, too_wide

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


class _Columns:
    """The bans of a table that are evidence, in columns."""

    def __init__(self, engine: Engine, now: float) -> None:
        import numpy as np

        self.packed, lengths, _, makers, _ = engine.ban_table.packed(now=now)
        self.lengths = np.frombuffer(lengths, np.uint8)
        self._words = np.frombuffer(self.packed, ">u8").reshape(-1, 2).astype(np.uint64)
        self._counts = np.isin(np.frombuffer(makers, np.uint8), [MAKERS.index(maker) for maker in EVIDENCE])
        self._four = (self._words[:, 0] == 0) & (self._words[:, 1] >> np.uint64(32) == 0xFFFF) & (self.lengths >= 96)

    def networks(self, is4: bool, bits: int) -> tuple[Any, Any]:
        """(rows, number of the network of each) of the bans of longer prefixes of a family."""
        import numpy as np

        rows = np.flatnonzero(self._counts & (self._four == is4) & (self.lengths > bits + 96 * is4))
        if is4:
            return rows, (self._words[rows, 1] & np.uint64(0xFFFFFFFF)) >> np.uint64(32 - bits)
        return rows, self._words[rows, 0] >> np.uint64(64 - bits)


def _network(is4: bool, bits: int, number: int) -> Network:
    return IPv4Network((number << (32 - bits), bits)) if is4 else IPv6Network((number << (128 - bits), bits))


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
        # (IPv4, prefix length) -> networks and how many bans of each were only counted
        self._before: dict[tuple[bool, int], tuple[Any, Any]] = {}

    def wake(self, now: float) -> None:
        """Has a thread climb; decisions go on meanwhile."""
        if self._pid != os.getpid():  # a forked child has not the thread, which may have held the lock
            self._pid, self._running, self._lock = os.getpid(), False, threading.Lock()
        if not self._running:
            self._running = True
            try:
                threading.Thread(target=self._run, args=(now,), name="gobanfast-ladder", daemon=True).start()
            except RuntimeError:  # no thread to be had, or the interpreter ends: the next ban asks again
                self._running = False

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
            touched |= self._fold(engine, ladder, now)
        for change in changes or ():
            if change.event in ("add", "extend"):
                touched |= self._note(ladder, change.ban)
            else:
                self._forget(ladder, change.ban)
        steps = []
        columns: _Columns | None = None
        for network in tuple(touched):
            if self._uncounted(network):
                columns = columns or _Columns(engine, now)
                self._complete(engine, ladder, network, now, columns)
        for network, needed in sorted(touched.items(), key=lambda item: -item[0].prefixlen):  # the narrowest first
            step = self._judge(engine, ladder, network, needed, now)
            if step is not None:
                steps.append(step)
        return steps

    def _fold(self, engine: Engine, ladder: Ladder, now: float) -> dict[Network, int]:
        """Counts the bans of the table by network, in columns; the networks that have enough."""
        import numpy as np

        bans = _Columns(engine, now)
        touched: dict[Network, int] = {}
        self._before.clear()
        for is4, steps in ((True, ladder.ipv4), (False, ladder.ipv6)):
            for bits, needed in steps:
                nets, counts = np.unique(bans.networks(is4, bits)[1], return_counts=True)
                self._before[is4, bits] = nets, counts
                touched |= {_network(is4, bits, int(net)): needed for net in nets[counts >= needed]}
        for network in touched:
            self._complete(engine, ladder, network, now, bans)
        return touched

    def _uncounted(self, network: Network, *, forget: bool = False) -> int:
        """How many bans of a network were only counted so far."""
        found = self._before.get((network.version == 4, network.prefixlen))
        if found is None:
            return 0
        nets, counts = found
        number = int(network.network_address) >> ((32 if network.version == 4 else 128) - network.prefixlen)
        at = int(nets.searchsorted(number))
        if at == len(nets) or int(nets[at]) != number:
            return 0
        count = int(counts[at])
        if forget:
            counts[at] = 0
        return count

    def _complete(self, engine: Engine, ladder: Ladder, network: Network, now: float, bans: _Columns) -> None:
        """Takes in one by one the bans of a network that were only counted."""
        if not self._uncounted(network, forget=True):
            return
        number = int(network.network_address) >> ((32 if network.version == 4 else 128) - network.prefixlen)
        rows, nets = bans.networks(network.version == 4, network.prefixlen)
        for row in rows[nets == number]:
            self._load(engine, ladder, bans.packed[16 * row : 16 * row + 16], int(bans.lengths[row]), now)

    def _load(self, engine: Engine, ladder: Ladder, packed: bytes, bits: int, now: float) -> None:
        text = format_address(packed)
        key = ban_key(text if bits == 128 else f"{text}/{bits - 96 if '.' in text else bits}")
        ban = engine.ban_table.get(key, now=now)
        if ban is not None:
            self._note(ladder, ban)

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
            if len(clients) + self._uncounted(network) >= needed:
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
            steps = ladder.ipv4 if network.version == 4 else ladder.ipv6
            if network.prefixlen != steps[0][0]:
                return None  # those who live in a wider one are not challenged for a corner of it
            try:
                engine.label(name, LABEL, duration=ladder.duration, reason="bans of clients", now=now)
            except GobanError as error:  # a full table: other networks are still to be judged
                log.warning("ladder: %s", error)
            return self._told(Step(name, "crowded", len(clients), rule, others), network)
        reason = f"{len(clients)} banned clients"
        made = engine.ban_table.ban(name, duration=ladder.duration, reason=reason, rule=rule, by="tracker", now=now)
        if made is None:
            return None
        count = len(clients)
        for key in tuple(clients):
            if (lifted := engine.ban_table.unban(key, maker="tracker", now=now)) is not None:
                self._forget(ladder, lifted)  # in wider ones, too, which are looked at next
        return self._told(Step(name, "banned", count, rule, others), network)

    def _told(self, step: Step, network: Network) -> Step:
        self._total -= len(self._networks.pop(network, {}))
        log.warning(
            "ladder: %s is %s: %d clients of it are banned, most by %s; %s others were let in lately",
            step.network, step.outcome, step.clients, step.rule, "an unknown number of" if step.others is None
            else step.others,
        )  # fmt: skip
        return step
