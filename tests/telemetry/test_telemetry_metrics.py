"""Metrics: what is exposed, sums over workers that come and go, bounded labels, the dashboard on a real Prometheus."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest

from gobanfast import Engine, FormatError, Ruleset
from gobanfast._core.ban_table import BanTable
from gobanfast.stores import attach
from gobanfast.telemetry.log import DecisionLog
from gobanfast.telemetry.metrics import SEPARATOR, TOP, Metrics, _add
from gobanfast.telemetry.origins import MOST
from gobanfast.telemetry.shared import SLOT_BYTES, SharedCounters
from stores_fakes import WAIT, eventually

prometheus_client = pytest.importorskip("prometheus_client", reason="metrics need the extra metrics")

RULES = """
rules:
  - {id: spam, when: {prefix: 198.51.100.0/24}, action: ban}
  - {id: names, when: {sni: "**.evil.example"}, action: ban}
  - {id: google, when: {asn: 15169}, action: challenge, mode: shadow}
  - {id: noted, when: {prefix: 203.0.113.0/24}, action: log}
  - {id: cloud, when: {asn: 14061}, action: ban}
"""


class Counted:
    """An engine with its own counts, kept in the plainest way."""

    def __init__(self):
        self.engine = Engine(Ruleset.from_text(RULES))
        self.ruleset, self.ban_table, self.generation = self.engine.ruleset, BanTable(), 1
        self.snapshot = SimpleNamespace(trackers=SimpleNamespace(stats=lambda: {"clients": 3}, capacity=12))
        self.by_cause, self.by_rule = {}, {}

    def decide(self, address, **signals):
        decision = self.engine.peek(address, **signals)
        cause = "none" if decision.rule is None else "rule"
        self.by_cause[cause, decision.action] = self.by_cause.get((cause, decision.action), 0) + 1
        if decision.rule:
            self.by_rule[decision.rule] = self.by_rule.get(decision.rule, 0) + 1
        return decision

    def decided(self):
        return dict(self.by_cause)

    def recorded(self):
        return {("always", "kept"): 4}

    def hits(self):
        return dict(self.by_rule)

    def shared(self):
        return {("granted", "app"): 2, ("withheld", None): 3}

    def status(self):
        return {"content_hash": self.ruleset.content_hash, "stale": False, "reload": {"reloads": 2, "failures": 1}}


def exposed(metrics):
    """Series -> value, as a scrape sees them."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(metrics)
    text = prometheus_client.generate_latest(registry).decode()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


def test_counts_of_the_engine_are_exposed():
    """Article names and ours, from the engine's counters, the table, and what `record` saw."""
    engine = Counted()
    metrics = Metrics(engine)
    decide = metrics.timed(engine.decide, every=2)
    for address, sni in [("198.51.100.7", None)] * 3 + [("1.1.1.1", "www.evil.example"), ("8.8.8.8", None),
                         ("203.0.113.1", None), ("46.101.9.1", None), ("1.1.1.1", None)]:  # fmt: skip
        metrics.observe(decide(address, sni=sni))
    engine.ban_table.ban("203.0.113.7", duration=60)
    seen = exposed(metrics)

    asn = engine.engine.decide("1.1.1.1").asn
    expected = {
        "ban_total": 5,
        "sni_match_total": 1,
        "sni_match_rate": 0.2,
        'ban_by_asn_total{asn="unknown"}': 3,
        'ban_by_asn_total{asn="AS14061"}': 1,
        'gobanfast_decisions_total{action="ban",cause="rule"}': 5,
        'gobanfast_decisions_total{action="allow",cause="none"}': 3,
        'gobanfast_rule_decisions_total{mode="enforce",rule="spam"}': 3,
        'gobanfast_rule_decisions_total{mode="shadow",rule="google"}': 1,
        'gobanfast_rule_decisions_total{mode="log",rule="noted"}': 1,
        'gobanfast_record_total{action="always",rule="kept"}': 4,
        'gobanfast_share_total{rule="app",share="granted"}': 2,
        'gobanfast_share_total{rule="",share="withheld"}': 3,
        'gobanfast_ban_changes_total{change="added"}': 1,
        'gobanfast_reloads_total{result="failures"}': 1,
        "gobanfast_bans": 1,
        "gobanfast_ban_table_fill": 1e-6,
        "gobanfast_tracker_fill": 0.25,
        "gobanfast_ruleset_generation": 1,
        f'gobanfast_ruleset_workers{{hash="{engine.ruleset.content_hash}"}}': 1,
        "gobanfast_decision_seconds_count": 4,
        'gobanfast_decision_seconds_bucket{le="+Inf"}': 4,
    }
    assert expected == {series: seen.get(series) for series in expected}
    assert asn is None or f'ban_by_asn_total{{asn="AS{asn}"}}' in seen


def test_a_real_engine_is_measured(tmp_path):
    """The names that the engine has are those that metrics read: decisions, hits, bans, trackers, store and log."""
    rules = "trackers: {request_rate: {limit: 1000}}\n" + RULES.lstrip()
    engine = Engine(Ruleset.from_text(rules))
    attach(engine, "memory:")
    log = DecisionLog(f"file:{tmp_path / 'log'}")
    metrics = Metrics(engine, sync=engine.sync, log=log)
    engine.ban("192.0.2.0/24", duration="1h")
    for address, sni in (("198.51.100.7", None), ("192.0.2.1", None), ("1.1.1.1", "a.evil.example"), ("1.1.1.2", None)):
        decision = engine.decide(address, sni=sni)
        metrics.observe(decision)
        log.observe(decision)
    assert engine.sync.flush(WAIT)
    assert log.flush(WAIT)
    seen = exposed(metrics)
    engine.sync.close()
    log.close()

    expected = {
        "ban_total": 3,
        "sni_match_total": 1,
        'gobanfast_decisions_total{action="ban",cause="rule"}': 2,
        'gobanfast_decisions_total{action="ban",cause="ban"}': 1,
        'gobanfast_decisions_total{action="allow",cause="none"}': 1,
        "gobanfast_bans": 1,
        "gobanfast_store_up": 1,
        'gobanfast_store_changes_total{change="written"}': 1,
        "gobanfast_log_lines_total": 3,
        "gobanfast_ruleset_stale": 0,
    }
    assert expected == {series: seen.get(series) for series in expected}
    assert 0 < seen["gobanfast_tracker_fill"] < 0.01


SHARING = """
share:
  - {id: app, when: {path: /api/**, origin: "https://app.example.com"}, action: grant}
  - {id: none, when: {path: /x/**, origin: malformed}, action: refuse, mode: shadow}
  - {id: x, when: {path: /x/**}, action: withhold}
"""


def test_what_is_shared_is_measured():
    """By rule and without one, shadow share rules, and the origins from which answers are withheld."""
    engine = Engine(Ruleset.from_text(SHARING))
    metrics = Metrics(engine)
    for origin, path, times in (("https://app.example.com", "/api/1", 2), ("https://evil.test", "/api/1", 3),
                                ('j"unk', "/x/1", 1), ("https://evil.test", "/x/1", 1)):  # fmt: skip
        for _ in range(times):
            metrics.observe(engine.decide("192.0.2.1", headers=[(b"origin", origin.encode())], method="GET", path=path))
    seen = exposed(metrics)

    expected = {
        'gobanfast_share_total{rule="app",share="granted"}': 2,
        'gobanfast_share_total{rule="",share="withheld"}': 3,
        'gobanfast_share_total{rule="x",share="withheld"}': 2,
        'gobanfast_rule_decisions_total{mode="shadow",rule="none"}': 1,
        'gobanfast_withheld_origins{origin="https://evil.test"}': 4,
        'gobanfast_withheld_origins{origin="j\\"unk"}': 1,
    }
    assert expected == {series: seen.get(series) for series in expected}


def test_withheld_origins_of_workers_are_summed_and_bounded():
    """Sums over workers that are gone hold no more than one worker does, the most frequent."""
    one = {"origins": {f"https://{i}.test": 100 - i for i in range(MOST)}}
    other = {"origins": {f"https://{i}.test": 1000 + i for i in range(MOST - 1, 2 * MOST - 1)}}
    both = _add(one, other)["origins"]

    assert MOST == len(both)
    assert 100 - (MOST - 1) + 1000 + MOST - 1 == both[f"https://{MOST - 1}.test"]
    assert both.keys() >= other["origins"].keys()


def test_before_anything_happened():
    """At the start there is no division by zero and no missing counter."""
    seen = exposed(Metrics(Counted()))

    assert (0, 0, 0) == (seen["ban_total"], seen["sni_match_total"], seen["sni_match_rate"])


def test_series_of_as_numbers_are_bounded_and_never_go_down():
    """Whatever comes, at most 100 AS numbers have a label; while one has it, it only grows, and so does `other`."""
    metrics, order = Metrics(Counted()), random.Random(7)
    asns, before = {}, {"other": 0}
    for step in range(300):
        for _ in range(40):
            asn = f"AS{int(order.paretovariate(0.6)) % 3000 + 10 * (step // 100)}"
            asns[asn] = asns.get(asn, 0) + 1
        shown = metrics._labelled(dict(asns))
        assert len(shown) <= TOP + 1
        assert sum(asns.values()) == sum(shown.values())
        assert [] == [asn for asn in shown.keys() & before.keys() if shown[asn] < before[asn]]
        before = shown
    asns["AS64500"] = 100_000

    assert "AS64500" not in before
    assert 0 == metrics._labelled(asns)["AS64500"]
    asns["AS64500"] += 7
    assert 7 == metrics._labelled(asns)["AS64500"]


# ---- several workers


def test_any_worker_tells_the_sum(tmp_path):
    """Forked workers count; each one's metrics are the sum, also after some were killed or ended, and never go down."""
    engine = Counted()
    engine.decide("198.51.100.7")  # before the fork: the parent's alone
    metrics = Metrics(engine, shared_file=tmp_path / "metrics")
    metrics.start()
    children = []
    try:
        for n in range(3):
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                for _ in range(10 * (n + 1)):
                    metrics.observe(engine.decide("198.51.100.7"))
                metrics._publish()
                os.write(write, b".")
                signal.alarm(2 * WAIT)
                signal.pause()
            children.append(child)
            assert b"." == os.read(read, 1)
            os.close(read)
            os.close(write)
        seen = exposed(metrics)
        assert (61, 4, 60) == (seen["ban_total"], seen["gobanfast_workers"], seen['ban_by_asn_total{asn="unknown"}'])
        end(children.pop(1), signal.SIGKILL)
        seen = exposed(metrics)
        assert (61, 3, 60) == (seen["ban_total"], seen["gobanfast_workers"], seen['ban_by_asn_total{asn="unknown"}'])
    finally:
        for child in children:
            end(child, signal.SIGTERM)
    assert (61, 1) == (exposed(metrics)["ban_total"], exposed(metrics)["gobanfast_workers"])
    metrics.close()

    later = Metrics(Counted(), shared_file=tmp_path / "metrics")
    assert (61, 1) == (exposed(later)["ban_total"], exposed(later)["gobanfast_workers"])
    later.close()


@pytest.mark.parametrize("engines", [1, 2, 3])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_counter_goes_down_with_several_engines_in_a_process(tmp_path, engines, how):
    """A worker with two or three engines leaves the counts of all behind, and so does each one after it."""
    metrics = Metrics(Counted(), shared_file=tmp_path / "metrics")
    expected = 0
    for turn in range(3):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            for number in range(engines):
                own = Counted()
                more = Metrics(own, shared_file=tmp_path / "metrics")
                for _ in range(number + turn + 2):
                    own.decide("198.51.100.7")
                more.start()
            os.write(write, b".")
            signal.pause()
        assert b"." == os.read(read, 1)
        os.close(read)
        os.close(write)
        expected += sum(number + turn + 2 for number in range(engines))
        assert (expected, 1 + engines) == (exposed(metrics)["ban_total"], exposed(metrics)["gobanfast_workers"])
        end(child, how)
        assert (expected, 1) == (exposed(metrics)["ban_total"], exposed(metrics)["gobanfast_workers"])
    metrics.close()


def test_a_slot_that_one_process_takes_twice_counts_twice(tmp_path):
    """Metrics that are closed and made again in one process, in the same slot, leave both counts behind."""
    watching = Metrics(Counted(), shared_file=tmp_path / "metrics")
    for turn in range(4):
        engine = Counted()
        metrics = Metrics(engine, shared_file=tmp_path / "metrics")
        engine.decide("198.51.100.7")
        metrics.start()
        metrics.close()
        assert turn + 1 == exposed(watching)["ban_total"]
    watching.close()


def test_a_worker_killed_while_it_adds_is_added_once(tmp_path):
    """Slots of the dead that were added and not cleared are not added again, whichever slot is looked at first."""
    shared = SharedCounters(tmp_path / "metrics", _add)
    gone = [SharedCounters(tmp_path / "metrics", _add) for _ in range(3)]
    for number, counters in enumerate(gone):
        counters.publish({"counts": {"ban": 10**number}})
    places = [counters._slot for counters in gone]
    write = shared._write

    def killed(slot, pid, started, data):
        write(slot, pid, started, data)
        if slot == 0:
            raise KeyboardInterrupt

    shared._write = killed
    with pytest.raises(KeyboardInterrupt), shared._locked():
        shared._retire(places[2])
    shared._write = write
    for slot in places:
        with shared._locked():
            shared._retire(slot)

    assert [111] == [snapshot["counts"]["ban"] for snapshot in shared.others()]
    shared.close()


def end(child, how):
    os.kill(child, how)
    os.waitpid(child, 0)


def test_a_torn_slot_is_left_out(tmp_path, caplog):
    """What a killed worker wrote half is not read as numbers."""
    engine = Counted()
    metrics = Metrics(engine, shared_file=tmp_path / "metrics")
    engine.decide("198.51.100.7")
    other = SharedCounters(tmp_path / "metrics", lambda one, two: one)
    other.publish({"counts": {"ban": 5}})
    assert 6 == exposed(metrics)["ban_total"]
    at = 64 + SLOT_BYTES * other._slot
    other._map[at + 30] ^= 1

    assert 1 == exposed(metrics)["ban_total"]
    assert "cannot be read and is left out" in caplog.text
    metrics.close()


def test_another_file_is_refused(tmp_path):
    """A file that holds something else is named and left as it is."""
    (tmp_path / "x").write_bytes(b"something")
    with pytest.raises(FormatError, match="not counters of version 1"):
        Metrics(Counted(), shared_file=tmp_path / "x")
    assert b"something" == (tmp_path / "x").read_bytes()


def test_more_rules_than_labels_are_one_series():
    """The busiest thousand rules have series, the rest share one; the sum is right."""
    engine = Counted()
    engine.by_rule = {f"r{n}": n for n in range(1500)}
    counts = Metrics(engine).total()["counts"]
    prefix = "gobanfast_rule_decisions" + SEPARATOR
    series = {name: value for name, value in counts.items() if name.startswith(prefix)}

    assert 1001 == len(series)
    assert sum(range(1500)) == sum(series.values())


# ---- the dashboard


def queries():
    dashboard = json.loads(files("gobanfast.telemetry").joinpath("dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_dashboard_asks_only_for_what_is_exposed():
    """Every metric in a query is one that the collector has."""
    exposed_names = {re.split(r"[{ ]", series)[0] for series in exposed(full_metrics())}
    for query in queries():
        for name in re.findall(r"\b(?:gobanfast_\w+|ban_\w*total|sni_match_\w+)", query):
            assert name in exposed_names, query


def test_the_page_names_what_is_exposed():
    """The tables of docs/metrics.md have every metric of the collector, and no others."""
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`(\w+)", row)}

    families = {
        re.sub(r"_(?:bucket|count|sum|created)$", "", re.split(r"[{ ]", name)[0]) for name in exposed(full_metrics())
    }
    assert families == told | {"gobanfast_decision_seconds"}


def full_metrics():
    """Metrics with something in every family."""

    class Health:
        def __init__(self, **values):
            self.health = lambda: values

    engine = Counted()
    status = engine.status
    engine.status = lambda: {
        **status(),
        "feeds": [{"name": "x", "age": 1.0, "entries": 1, "failures": 0, "stale": False}],
    }
    sync = Health(outage=False, queue=0, written=3, applied=2, refused=0, resyncs=1, outages=1, dropped=0)
    log = Health(queue=0, written=5, dropped=0, failures=0)
    metrics = Metrics(engine, sync=sync, log=log)
    for address in ("198.51.100.7", "8.8.8.8", "203.0.113.1", "1.1.1.1"):
        metrics.observe(engine.decide(address, sni="a.evil.example" if address == "1.1.1.1" else None), seconds=1e-6)
    engine.by_cause["tracker", "challenge"] = 1
    metrics.withheld.note("https://evil.test")
    return metrics


@pytest.fixture
def prometheus(tmp_path):
    """A Prometheus that scrapes `full_metrics` each second; skips where there is none to run."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on PATH")
    registry = prometheus_client.CollectorRegistry()
    metrics = full_metrics()
    registry.register(metrics)
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: gobanfast\n    static_configs:\n"
        f"      - targets: ['127.0.0.1:{server.server_port}']\n"
    )
    process = subprocess.Popen(
        [program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}", metrics
    process.kill()
    process.wait(WAIT)
    server.shutdown()
    server.server_close()
    thread.join(WAIT)


def ask(base, query):
    address = f"{base}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(address, timeout=WAIT) as answer:  # noqa: S310 - our own server
            return json.load(answer)
    except (OSError, ValueError):
        return {"status": "starting"}


def test_every_query_of_the_dashboard_runs_on_prometheus(prometheus):
    """Prometheus scrapes what is exposed, and each panel's query has an answer with a series in it."""
    base, metrics = prometheus
    assert eventually(lambda: ask(base, "ban_total").get("data", {}).get("result"), 60)
    metrics.engine.decide("198.51.100.7")
    time.sleep(3)
    for query in queries():
        answer = ask(base, query.replace("$__rate_interval", "10s"))
        assert "success" == answer["status"], (query, answer)
        assert answer["data"]["result"], query
