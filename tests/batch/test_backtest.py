"""Backtest: whom rules would have refused, equal for any number of partitions, and what of it is collateral."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gobanfast
from gobanfast import PrefixSet
from gobanfast.asn import AsnTable
from gobanfast.batch.backtest import Backtest, Event, backtest, log_events, table_events, wilson
from gobanfast.batch.backtest_html import page
from gobanfast.batch.logs import LogFile
from gobanfast.batch.partition import client_key
from gobanfast.rules import Ruleset

DEMO_LOG = Path(gobanfast.__file__).parent / "demo" / "access.log.gz"
LIMITS = """
trackers:
  request_rate: {limit: 6, window: 30s, action: ban, for: 90s}
  surge: {over: 300, baseline: 60s, min_requests: 4, action: challenge}
"""
RULES = """
rules:
- {id: env, when: {path: /.env}, action: ban, for: 1m}
- {id: tool, when: {header: {user-agent: {contains: sqlmap}}}, action: ban, for: 2m}
- {id: net, when: {prefix: 198.51.100.0/24}, action: challenge}
"""


def ruleset(text: str) -> Ruleset:
    return Ruleset.from_text(text, asn=AsnTable.starter())


def events(rows: list[tuple[float, str, str, str]]) -> list[Event]:
    return list(table_events([{
        "time": [row[0] for row in rows], "ip": [row[1] for row in rows], "method": ["GET"] * len(rows),
        "path": [row[2] for row in rows],
        "user_agent": [row[3] for row in rows],
    }]))  # fmt: skip


ADDRESSES = ["192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "x", ""]
requests = st.lists(
    st.tuples(
        st.floats(0, 12), st.sampled_from(ADDRESSES), st.sampled_from(["/", "/.env"]), st.sampled_from(["a", "sqlmap"])
    ),
    min_size=1, max_size=60,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(requests, st.integers(2, 8), st.booleans())
def test_partitions_do_not_show(gaps: list[tuple[float, str, str, str]], partitions: int, limited: bool) -> None:
    """Partitioned by client, every rule, tracker and ban does the same as in one."""
    rows, now = [], 1_700_000_000.0
    for gap, *rest in gaps:
        now += gap
        rows.append((now, *rest))
    rules = ruleset((LIMITS if limited else "") + RULES)
    one = backtest(rules, events(rows), current=ruleset(RULES))
    many = backtest(rules, events(rows), current=ruleset(RULES), partitions=partitions)
    many.partitions = one.partitions

    assert one == many


def test_a_busy_hour_in_eight() -> None:
    """Thousands of clients in eight partitions: trackers, stored bans and their ends as in one."""
    draw = random.Random(5)
    now, rows = 1_700_000_000.0, []
    for _ in range(30_000):
        now += draw.random() / 5
        which = min(int(draw.paretovariate(0.6)), 3_000)
        rows.append((now, f"10.0.{which >> 8}.{which & 255}", draw.choice(["/"] * 200 + ["/.env"]), "a"))
    rules = ruleset(LIMITS + RULES)
    one, eight = backtest(rules, events(rows)), backtest(rules, events(rows), partitions=8)
    eight.partitions = 1

    assert one == eight
    causes = Counter(effect.cause for effect in one.effects)
    assert {"rule", "tracker", "ban"} <= set(causes)


def test_what_clients_share_is_not_partitioned() -> None:
    """Score and escalation are named, and refused."""
    rules = ruleset("score: {}\nbans: {escalate: {factor: 3}}\n" + RULES)

    with pytest.raises(ValueError, match=r"not kept by client alone.*: score, escalate"):
        backtest(rules, [], partitions=2)
    assert isinstance(backtest(rules, []), Backtest)


def test_limits_by_client() -> None:
    """A limit that counts by client is the same in partitions; one that counts by AS is named."""
    limits = "limits: [{id: flood, when: any, limit: 3, window: 1m, KEYaction: limit}]\n"
    rows = [(1_700_000_000.0 + n, f"192.0.2.{n % 9}", "/", "a") for n in range(400)]
    rules = ruleset(limits.replace("KEY", "") + RULES)
    one, four = backtest(rules, events(rows)), backtest(rules, events(rows), partitions=4)
    four.partitions = 1

    assert one == four
    assert one.actions["limit"] > 0
    with pytest.raises(ValueError, match=r"limit flood \(counts by asn\)"):
        backtest(ruleset(limits.replace("KEY", "key: asn, ") + RULES), [], partitions=2)


def test_client_keys() -> None:
    """A client is an IPv4 address, mapped or not, or an IPv6 network."""
    assert client_key("192.0.2.1") == client_key("::ffff:192.0.2.1") == "192.0.2.1"
    assert client_key("2001:db8::1") == client_key("2001:db8::2") != client_key("2001:db8:0:1::1")
    assert client_key("2001:db8::1", 48) == client_key("2001:db8:0:1::1", 48)
    assert "" == client_key(None) == client_key("x")


def test_effects_and_collateral() -> None:
    """Who looks good, by each reason; first time, overlap, and what a rule adds over the others."""
    start = 1_700_000_000.0
    rows = [(start + 1500.0 * step, "192.0.2.1", "/", "a") for step in range(24)]  # ten hours, no error
    rows += [(start + 40_000, "192.0.2.1", "/.env", "a"), (start + 40_010, "192.0.2.2", "/.env", "sqlmap")]
    rows += [(start + 40_020, "198.51.100.7", "/", "a"), (start + 40_030, "192.0.2.9", "/x", "sqlmap")]
    found = backtest(ruleset(RULES), events(rows), good=PrefixSet(["192.0.2.9"]))

    effects = {(effect.id, effect.cause): effect for effect in found.effects}
    env, tool = effects["env", "rule"], effects["tool", "rule"]
    assert (2, 2, 1, 1) == (env.lines, env.clients, env.good_clients, env.only_lines)
    assert 40_000.0 == env.first
    assert (1, 1, 1) == (tool.lines, tool.good_clients, tool.only_clients)
    assert [("env", "tool", 1)] == found.overlap
    assert {"long good history": 1, "named good": 1} == found.good
    assert (2, 2, 1.0) == (found.good_refused, found.good_clients, found.collateral)
    assert {"ban": 3, "challenge": 1, "allow": 24} == found.actions
    assert "2 of 2 clients that look good" in (found.over(0.1) or "")
    assert found.over(100) is None
    assert "cannot be judged" in (backtest(ruleset(RULES), []).over(0.1) or "")
    current = backtest(ruleset(RULES), events(rows), current=ruleset(RULES))
    assert {0} == {effect.new_lines for effect in current.effects}
    assert "<td>env</td>" in page(found, "A <title>")
    assert "A &lt;title&gt;" in page(found, "A <title>")


def test_sample_is_by_client() -> None:
    """A sample has all lines of some clients, and an interval that holds the share of all."""
    draw = random.Random(1)
    rows = [(1_700_000_000.0 + n, f"10.0.{n % 200}.{n % 7}", draw.choice(["/", "/.env"]), "a") for n in range(8_000)]
    good = PrefixSet(["10.0.0.0/17"])
    whole = backtest(ruleset(RULES), events(rows), good=good)
    part = backtest(ruleset(RULES), events(rows), good=good, sample=0.3)

    assert 0.2 * whole.clients < part.clients < 0.4 * whole.clients
    assert part.collateral_interval is not None
    assert part.collateral_interval[0] <= whole.collateral <= part.collateral_interval[1]
    assert whole.collateral_interval is None


@given(st.integers(1, 500), st.data())
def test_interval_holds_the_share(total: int, data: st.DataObject) -> None:
    """Wilson's interval is within 0 and 1, around the share."""
    hits = data.draw(st.integers(0, total))
    low, high = wilson(hits, total)

    assert 0 <= low <= hits / total + 1e-9
    assert hits / total - 1e-9 <= high <= 1


def test_demo_log_and_facts() -> None:
    """The demo log replays; users and statuses are read from combined lines and JSON."""
    log = LogFile(io.BufferedReader(io.BytesIO(DEMO_LOG.read_bytes())), "a.log", requests=True, times=True)
    found = backtest(ruleset(LIMITS + RULES), log_events([log]))
    assert (1_996, 4) == (found.lines, found.bad)

    lines = '192.0.2.1 - ann [02/Nov/2026:00:00:05 +0000] "GET / HTTP/1.1" 200 5 "-" "x"\n'
    lines += '192.0.2.1 - - [02/Nov/2026:00:00:06 +0000] "GET / HTTP/1.1" 404 5 "-" "x"\n'
    rows = [*log_events([LogFile(io.BufferedReader(io.BytesIO(lines.encode())), "b", requests=True, times=True)])]
    assert [(200, "ann"), (404, None)] == [(row.status, row.user) for row in rows]
    text = json.dumps({"remote_addr": "192.0.2.1", "status": 403, "remote_user": "bob", "time": 1_700_000_000})
    (row,) = log_events([LogFile(io.BufferedReader(io.BytesIO(text.encode())), "c", requests=True, times=True)])
    assert (403, "bob", 1_700_000_000.0) == (row.status, row.user, row.time)
    with pytest.raises(ValueError, match="columns ip; ip and time"):
        list(table_events([{"ip": []}]))
