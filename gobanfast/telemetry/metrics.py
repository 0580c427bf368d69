"""Prometheus collector of an engine: `Metrics(engine).register()`. docs/metrics.md lists every metric.

Engine counters are read at scrape time. With `shared_file=PATH` the workers of a host publish theirs in one file, and
the worker that is scraped reports the sum over all: no multiprocess mode, no worker labels.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Iterator
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

from gobanfast._errors import GobanError
from gobanfast._fork import watch_forks
from gobanfast.telemetry.origins import MOST, WithheldOrigins
from gobanfast.telemetry.shared import SharedCounters, Snapshot

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

    from gobanfast._core.decision import Decision
    from gobanfast.stores import Sync
    from gobanfast.telemetry.log import DecisionLog

log = logging.getLogger("gobanfast.telemetry")

PERIOD = 1.0  # seconds between snapshots for other workers
TOP = 100  # AS numbers that have a label
ASNS = 4096  # AS numbers counted apart in a worker
RULES = 1000  # rules counted apart
ORIGINS = 20  # withheld origins that have a label
BUCKETS = (2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 1e-3, 1e-2)  # seconds
SEPARATOR = "\t"

# Counters: name without _total -> help, labels. A series key is the name and its label values, joined.
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ban": ("Requests that were banned.", ()),
    "sni_match": ("Requests banned by a rule with a condition on the server name.", ()),
    "gobanfast_decisions": ("Decisions by action and cause.", ("action", "cause")),
    "gobanfast_rule_decisions": ("Decisions by rule; for shadow and log rules, requests that match.", ("rule", "mode")),
    "gobanfast_share": ("Answers to pages of other origins by what was shared, and the rule.", ("share", "rule")),
    "gobanfast_record": ("Requests by the action of the record rule that decided on their trace.", ("action", "rule")),
    "gobanfast_foreign_headers": ("Header lines access-control-* of applications that share rules replaced.", ()),
    "gobanfast_ban_changes": ("Changes of the ban table.", ("change",)),
    "gobanfast_reloads": ("Reloads of the rules files, by result.", ("result",)),
    "gobanfast_store_changes": ("Changes exchanged between the ban table and the store, by kind.", ("change",)),
    "gobanfast_store_outages": ("Store outages.", ()),
    "gobanfast_store_dropped": ("Ban changes dropped because the store queue was full.", ()),
    "gobanfast_log_lines": ("Decision log lines written.", ()),
    "gobanfast_log_dropped": ("Decisions dropped because the log queue was full or the sink never accepted them.", ()),
    "gobanfast_log_failures": ("Decision log sink failures.", ()),
}
# Gauges: name -> help, labels, and the function that aggregates over workers.
GAUGES: dict[str, tuple[str, tuple[str, ...], Callable[[float, float], float]]] = {
    "gobanfast_workers": ("Worker processes reporting.", (), float.__add__),
    "gobanfast_ruleset_workers": ("Workers by the ruleset in force.", ("hash",), float.__add__),
    "gobanfast_ruleset_stale": ("Workers whose ruleset differs from the rules files.", (), float.__add__),
    "gobanfast_ruleset_generation": ("Number of rulesets put in force, the minimum over workers.", (), min),
    "gobanfast_bans": ("Bans in force, the maximum over workers.", (), max),
    "gobanfast_ban_table_fill": ("Used fraction of the ban table, the maximum over workers.", (), max),
    "gobanfast_labels": ("Labels stored, the maximum over workers.", (), max),
    "gobanfast_label_table_fill": ("Used fraction of the label table, the maximum over workers.", (), max),
    "gobanfast_tracker_fill": ("Used fraction of the trackers, the maximum over workers.", (), max),
    "gobanfast_store_up": ("Workers connected to the store.", (), float.__add__),
    "gobanfast_store_queue": ("Ban changes queued for the store.", (), float.__add__),
    "gobanfast_feed_age_seconds": ("Seconds since the source of a feed confirmed it; -1: never.", ("feed",), max),
    "gobanfast_feed_entries": ("Entries of a feed.", ("feed",), max),
    "gobanfast_feed_failures": ("Fetches of a feed that failed in a row.", ("feed",), max),
    "gobanfast_feed_stale": ("Whether a feed is older than its stale_after, or was never fetched.", ("feed",), max),
    "gobanfast_log_queue": ("Decisions queued for the log.", (), float.__add__),
    "gobanfast_log_queue_bytes": ("Bytes of memory held by queued decisions.", (), float.__add__),
}


class MeasuredEngine(Protocol):
    """The members of `Engine` that metrics read."""

    @property
    def generation(self) -> int: ...
    @property
    def ruleset(self) -> Any: ...
    @property
    def ban_table(self) -> Any: ...
    @property
    def snapshot(self) -> Any: ...
    def decided(self) -> dict[tuple[str, str], int]: ...
    def hits(self) -> dict[str, int]: ...
    def shared(self) -> dict[tuple[str, str | None], int]: ...
    def recorded(self) -> dict[tuple[str, str], int]: ...
    def status(self) -> dict[str, Any]: ...


class Guard(Protocol):
    """The member of an `HttpGuard` that metrics read."""

    @property
    def foreign_headers(self) -> int: ...


class Metrics:
    """Counters and gauges of an engine, its store connection and its decision log.

    Args:
        sync, log: store synchronisation and decision log of the engine, where configured.
        shared_file: a file for all workers of the host, see `SharedCounters`; None: this process only.
    Attributes:
        withheld: the origins from which answers were withheld most often; `observe` notes them.
    Forks: a child counts from zero and takes a slot of its own.
    """

    def __init__(
        self,
        engine: MeasuredEngine,
        *,
        sync: Sync | None = None,
        log: DecisionLog | None = None,
        shared_file: str | PathLike[str] | None = None,
    ) -> None:
        self.engine, self.sync, self.log = engine, sync, log
        self._shared = None if shared_file is None else SharedCounters(shared_file, _add)
        self._labels: dict[str, int] = {}  # AS numbers with a label -> what they counted before they had it
        self._at_fork: Snapshot = {}
        self._guards: list[Guard] = []
        self._named: dict[int, tuple[Any, frozenset[str]]] = {}
        self._thread: threading.Thread | None = None
        self._fresh()
        watch_forks(self)

    def register(self, registry: CollectorRegistry | None = None) -> Metrics:
        """This, after adding it to a registry of prometheus_client (its default one)."""
        from prometheus_client import REGISTRY

        (registry or REGISTRY).register(self)
        self.start()
        return self

    def start(self) -> None:
        """Start publishing counters to the other workers; does nothing without `shared_file`."""
        if self._shared is None or self._thread is not None:
            return
        self._publish()
        self._thread = threading.Thread(target=self._run, name="gobanfast-metrics", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Publish the last counts for the other workers and stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PERIOD)
            self._thread = None
        if self._shared is not None:
            self._publish()
            self._shared.close()
            self._shared = None
        atexit.unregister(self.close)

    def observe(self, decision: Decision, *, seconds: float | None = None) -> None:
        """Counts what the engine does not: the AS of a ban, matches of shadow and log rules, origins from which answers
        were withheld, and `seconds` it took.

        Cost: 0.2 us for a plain allow, 1 us for others.
        """
        if seconds is not None:
            self._time(seconds)
        if decision.action == "ban":
            asn = "unknown" if decision.asn is None else f"AS{decision.asn}"
            with self._lock:
                self._count(self._asns, asn if asn in self._asns or len(self._asns) < ASNS else "other")
        if decision.share == "withheld" and decision.origin is not None and not decision.own_page:
            self.withheld.note(decision.origin)
        for mode, rules in (
            ("shadow", decision.shadow),
            ("log", decision.logged),
            ("shadow", decision.share_shadow),
            ("shadow", decision.record_shadow),
        ):
            for rule in rules:
                with self._lock:
                    self._count(self._own, SEPARATOR.join(("gobanfast_rule_decisions", rule, mode)))

    def attach(self, guard: Guard) -> None:
        """Reads the counts of an HTTP guard, too; a guard that is given these metrics does it."""
        self._guards.append(guard)

    def timed(self, decide: Callable[..., Decision], *, every: int = 64) -> Callable[..., Decision]:
        """The same `decide`, of which one call of `every` is timed for the histogram."""
        turn = 0

        def decide_timed(*arguments: Any, **signals: Any) -> Decision:
            nonlocal turn
            turn += 1
            if turn % every:
                return decide(*arguments, **signals)
            started = time.perf_counter()
            decision = decide(*arguments, **signals)
            self._time(time.perf_counter() - started)
            return decision

        return decide_timed

    # ---- what prometheus_client calls

    def describe(self) -> list[Metric]:
        """Nothing: names are checked when they are collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families of all workers, summed."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        total = self.total()
        counts, gauges = total["counts"], total["gauges"]
        for name, (text, labels) in COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=labels)
            found = {series: value for series, value in counts.items() if series.partition(SEPARATOR)[0] == name}
            if not labels and not found:
                found = {name: 0}
            for series, value in found.items():
                family.add_metric(series.split(SEPARATOR)[1:], value)
            yield family
        for name, (text, labels, _) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=labels)
            for series, value in gauges.items():
                if series.partition(SEPARATOR)[0] == name:
                    gauge.add_metric(series.split(SEPARATOR)[1:], value)
            yield gauge
        bans = counts.get("ban", 0)
        fraction = counts.get("sni_match", 0) / bans if bans else 0.0
        text = (
            "Fraction of bans by rules on the server name since the start; for current values: rate(sni_match_total)."
        )
        yield GaugeMetricFamily("sni_match_rate", text, fraction)
        by_asn = CounterMetricFamily("ban_by_asn", f"Banned requests by AS: {TOP} labels and other.", labels=("asn",))
        for asn, count in self._labelled(total["asns"]).items():
            by_asn.add_metric((asn,), count)
        yield by_asn
        text = f"Answers withheld since the start, by origin, at least: the {ORIGINS} most frequent origins."
        origins = GaugeMetricFamily("gobanfast_withheld_origins", text, labels=("origin",))
        for origin, count in sorted(total["origins"].items(), key=lambda item: (-item[1], item[0]))[:ORIGINS]:
            origins.add_metric((origin,), count)
        yield origins
        passed, sums = 0, []
        for bound, count in zip([*map(repr, BUCKETS), "+Inf"], total["times"], strict=True):
            passed += count
            sums.append((bound, passed))
        text = "Latency of timed decisions in seconds."
        yield HistogramMetricFamily("gobanfast_decision_seconds", text, sums, total["seconds"])

    def total(self) -> Snapshot:
        """The sum over all workers: counts, gauges, asns, origins, times, seconds."""
        mine = self._snapshot()
        if self._shared is None:
            return mine
        for other in self._shared.others():
            mine = {**_add(mine, other), "gauges": _join(mine["gauges"], other.get("gauges", {}))}
        return mine

    def before_fork(self) -> None:
        """See `ForkAware`."""
        self._lock.acquire()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if not child:
            self._lock.release()
            return
        running = self._thread is not None
        self._fresh()
        self._at_fork = self._engine_counts()
        if self._shared is not None:
            self._shared.forked()
        if running:
            self.start()

    # ---- counting

    def _fresh(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = None
        self._asns: dict[str, int] = {}
        self.withheld = WithheldOrigins()
        self._own: dict[str, int] = {}
        self._times = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def _count(self, counts: dict[str, int], series: str, by: int = 1) -> None:
        counts[series] = counts.get(series, 0) + by

    def _time(self, seconds: float) -> None:
        bucket = next((i for i, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
        with self._lock:
            self._times[bucket] += 1
            self._seconds += seconds

    def _snapshot(self) -> Snapshot:
        """What this process counted, since it began or was forked."""
        counts = {series: value - self._at_fork.get(series, 0) for series, value in self._engine_counts().items()}
        with self._lock:
            for series, value in self._own.items():
                self._count(counts, series, value)
            asns, times, seconds = dict(self._asns), list(self._times), self._seconds
        gauges: dict[str, float] = {}
        self._measure(counts, gauges)
        origins = {each.origin: each.at_most - each.over for each in self.withheld.top(MOST)}
        return {
            "counts": counts, "gauges": gauges, "asns": asns, "origins": origins, "times": times, "seconds": seconds,
        }  # fmt: skip

    def _engine_counts(self) -> dict[str, int]:
        """What the engine itself counts; a child of fork inherits these."""
        counts: dict[str, int] = {}
        for (cause, action), value in self.engine.decided().items():
            self._count(counts, SEPARATOR.join(("gobanfast_decisions", action, cause)), value)
            if action == "ban":
                self._count(counts, "ban", value)
        hits = sorted(self.engine.hits().items(), key=lambda item: -item[1])
        named = self._name_rules()
        for place, (rule, value) in enumerate(hits):
            shown = rule if place < RULES else "other"
            self._count(counts, SEPARATOR.join(("gobanfast_rule_decisions", shown, "enforce")), value)
            if rule in named:
                self._count(counts, "sni_match", value)
        shared = sorted(self.engine.shared().items(), key=lambda item: -item[1])
        for place, ((share, by), value) in enumerate(shared):
            shown = (by or "") if place < RULES else "other"
            self._count(counts, SEPARATOR.join(("gobanfast_share", share, shown)), value)
        recorded = sorted(self.engine.recorded().items(), key=lambda item: -item[1])
        for place, ((action, rule), value) in enumerate(recorded):
            shown = rule if place < RULES else "other"
            self._count(counts, SEPARATOR.join(("gobanfast_record", action, shown)), value)
        self._count(counts, "gobanfast_foreign_headers", sum(guard.foreign_headers for guard in self._guards))
        stats = self.engine.ban_table.stats()
        for change in ("added", "extended", "lifted", "ended", "refused", "evicted"):
            self._count(counts, SEPARATOR.join(("gobanfast_ban_changes", change)), stats[change])
        reload = self.engine.status().get("reload") or {}
        for result in ("reloads", "failures", "rollbacks"):
            self._count(counts, SEPARATOR.join(("gobanfast_reloads", result)), int(reload.get(result, 0)))
        return counts

    def _measure(self, counts: dict[str, int], gauges: dict[str, float]) -> None:
        """What stands at some value now, and the counts of store and log."""
        status, table = self.engine.status(), self.engine.ban_table
        gauges["gobanfast_workers"] = 1.0
        gauges["gobanfast_ruleset_workers" + SEPARATOR + str(status["content_hash"])] = 1.0
        gauges["gobanfast_ruleset_stale"] = float(bool(status["stale"]))
        gauges["gobanfast_ruleset_generation"] = float(self.engine.generation)
        gauges["gobanfast_bans"] = float(len(table))
        gauges["gobanfast_ban_table_fill"] = len(table) / table.capacity
        gauges["gobanfast_labels"] = len(table.labels)
        gauges["gobanfast_label_table_fill"] = len(table.labels) / table.labels.capacity
        trackers = self.engine.snapshot.trackers
        if trackers is not None:
            gauges["gobanfast_tracker_fill"] = trackers.stats()["clients"] / trackers.capacity
        if self.sync is not None:
            health = self.sync.health()
            gauges["gobanfast_store_up"] = float(not health["outage"])
            gauges["gobanfast_store_queue"] = float(health["queue"])
            for change in ("written", "unwritable", "unreadable", "applied", "refused", "resyncs"):
                self._count(counts, SEPARATOR.join(("gobanfast_store_changes", change)), health.get(change, 0))
            self._count(counts, "gobanfast_store_outages", health["outages"])
            self._count(counts, "gobanfast_store_dropped", health["dropped"])
        for feed in status.get("feeds", ()):
            name = SEPARATOR + feed["name"]
            gauges["gobanfast_feed_age_seconds" + name] = -1.0 if feed["age"] is None else round(feed["age"], 1)
            gauges["gobanfast_feed_entries" + name] = float(feed["entries"])
            gauges["gobanfast_feed_failures" + name] = float(feed["failures"])
            gauges["gobanfast_feed_stale" + name] = float(feed["stale"])
        if self.log is not None:
            lines = self.log.health()
            gauges["gobanfast_log_queue"] = float(lines["queue"])
            gauges["gobanfast_log_queue_bytes"] = float(lines.get("queue_bytes", 0))
            self._count(counts, "gobanfast_log_lines", lines["written"])
            self._count(counts, "gobanfast_log_dropped", lines["dropped"])
            self._count(counts, "gobanfast_log_failures", lines["failures"])

    def _name_rules(self) -> frozenset[str]:
        """Ids of the rules that ban and require the server name."""
        ruleset = self.engine.ruleset
        found = self._named.get(id(ruleset))
        if found is None:
            rules = frozenset(
                rule.id
                for rule in ruleset.rules
                if rule.action == "ban" and (rule.when.sni is not None or rule.when.sni_file is not None)
            )
            self._named = {id(ruleset): (ruleset, rules)}
            return rules
        return found[1]

    def _labelled(self, asns: dict[str, int]) -> dict[str, int]:
        """Counts of the AS numbers that have a label, and of all others as one. No series ever goes down.

        The first hundred get a label. Later, one that has come to twice the count of the lowest takes its label: that
        one joins "other" with all it counted, the new one counts from then on.
        """

        def relabel(common: Snapshot) -> Snapshot:
            labels = dict(common.get("labels", self._labels))
            for asn in sorted(asns.keys() - labels.keys() - {"other"}, key=lambda asn: -asns[asn]):
                if len(labels) < TOP:
                    labels[asn] = 0
                    continue
                lowest = min(labels, key=lambda asn: asns.get(asn, 0))
                if asns[asn] < 2 * max(1, asns.get(lowest, 0)):
                    break
                del labels[lowest]
                labels[asn] = asns[asn]
            return {**common, "labels": labels}

        common = relabel({}) if self._shared is None else self._shared.update_common(relabel)
        self._labels = common["labels"]
        shown = {asn: asns.get(asn, 0) - before for asn, before in self._labels.items()}
        return {**shown, "other": sum(asns.values()) - sum(shown.values())}

    # ---- telling the other workers

    def _run(self) -> None:
        while not self._stop.wait(PERIOD):
            self._publish()

    def _publish(self) -> None:
        if self._shared is not None:
            try:
                self._shared.publish(self._snapshot())
            except GobanError as error:
                log.error("metrics of this worker are not published to others: %s", error)


def _add(one: Snapshot, two: Snapshot) -> Snapshot:
    """Counts of both; gauges are left out, they end with their worker."""
    return {
        "counts": _join(one.get("counts", {}), two.get("counts", {})),
        "asns": _join(one.get("asns", {}), two.get("asns", {})),
        "origins": _most_frequent(_join(one.get("origins", {}), two.get("origins", {}))),
        "times": [a + b for a, b in zip(one.get("times") or [0] * 12, two.get("times") or [0] * 12, strict=True)],
        "seconds": one.get("seconds", 0.0) + two.get("seconds", 0.0),
    }


def _most_frequent(origins: dict[str, int]) -> dict[str, int]:
    """As many as one worker holds: those of workers that are gone take no more room."""
    return dict(sorted(origins.items(), key=lambda item: (-item[1], item[0]))[:MOST])


def _join(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Both, with what both have joined: sums, or as GAUGES says."""
    joined = dict(one)
    for series, value in two.items():
        if series in joined:
            gauge = GAUGES.get(series.partition(SEPARATOR)[0])
            joined[series] = joined[series] + value if gauge is None else gauge[2](joined[series], value)
        else:
            joined[series] = value
    return joined
