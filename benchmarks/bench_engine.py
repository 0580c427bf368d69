"""Engine.decide with everything on: address, server name and 13 headers against rules, bans, trackers and score.

The full triple has 100 rules (prefixes, AS numbers, server names, user agents, paths), 100,000 bans, trackers of
distinct fingerprints and of rates, and the score. Requests come from 2,000 clients, to 200 names, with 64 sets of
headers, every object made anew, a few requests at a time, just before they are decided; "new clients": each from an
address of its own. Growth: the same with other numbers of rules and bans.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.bench_headers import BROWSER, copy
from benchmarks.cases import Case, Data, few, timed
from benchmarks.tables import SEED

SUITE = "engine"
CAPTION = "Whole decisions: ns median (times the no-op call)"
COUNT, CLIENTS, NAMES, FINGERPRINTS = 20_000, 2_000, 200, 64
RULES, BANS = 100, 100_000
SECTIONS = """
trackers:
  distinct_fingerprints: {limit: 1000, action: challenge}
  request_rate: {window: 10s, limit: 60000, action: challenge}
score: {mode: shadow}
"""
Request = tuple[str, str, list[tuple[bytes, bytes]]]


def rules(count: int) -> str:
    """`count` rules, a sixth of each kind; none holds for the requests, so every part is asked."""
    kinds = (
        "prefix: [203.0.{a}.0/25, 203.0.{a}.128/26, '2001:db8:{i:x}::/48']",
        "asn: [{i}]",
        "prefix: 203.1.{a}.0/24, sni: '*.bad{i}.example'",
        "sni: ['*.evil{i}.example', 'evil{i}.test']",
        "header: {{user-agent: {{contains: 'scanner/{i}.'}}}}",
        "path: {{prefix: /probe{i}}}",
    )
    lines = [f"- {{id: r{i}, action: ban, when: {{{kinds[i % 6].format(i=i + 1, a=i % 256)}}}}}" for i in range(count)]
    return "rules:\n" + "\n".join(lines) + "\n"


def engine(rule_count: int, bans: int, sections: str = SECTIONS) -> Any:
    from gobanfast import Engine, Ruleset

    made = Engine(Ruleset.from_text(rules(rule_count) + sections))
    for i in range(bans):
        made.ban_table.ban(f"100.{64 + i // 65536}.{i // 256 % 256}.{i % 256}", duration=3600.0)
    return made


def requests(count: int, seed: int = SEED, *, new: bool = False) -> Iterator[list[Request]]:
    """As many requests in lists of a few, skewed: some clients and names make most of them. `new`: no client twice."""
    random = np.random.default_rng(seed)
    drawn = np.minimum(random.zipf(1.3, count), CLIENTS)
    clients = range(count) if new else drawn.tolist()
    names = np.minimum(random.zipf(1.5, count), NAMES).tolist()
    fingerprints = random.integers(0, FINGERPRINTS, count).tolist()

    def request(number: int) -> Request:
        client, headers = clients[number], copy(BROWSER)
        headers[6] = (b"user-agent", headers[6][1] + b" b%d" % fingerprints[number])
        address = f"198.{18 + client // 65536}.{client // 256 % 256}.{client % 256}"
        return address, f"w{names[number]}.shop.example", headers

    return few(request, count)


def decide_each(decide: Any, asked: list[Request]) -> None:
    for address, name, headers in asked:
        decide(address, sni=name, headers=headers, method="GET", path="/")


def address_each(decide: Any, asked: list[Request]) -> None:
    for address, _, _ in asked:
        decide(address)


def noop_each(noop: Any, asked: list[Request]) -> None:
    for address, _, _ in asked:
        noop(address)


def case(group: str, name: str, kind: str, each: Any, target: Any) -> Case:
    prepare = partial(requests, COUNT, new="new clients" in group)
    return Case(SUITE, group, name, kind, COUNT, prepare=prepare, run=partial(each, target))  # type: ignore[arg-type]


def cases(data: Data) -> Iterator[Case]:
    from benchmarks.floor import noop

    groups = {
        "full triple": (decide_each, engine(RULES, BANS)),
        "full triple, new clients": (decide_each, engine(RULES, BANS)),
        "triple, rules only": (decide_each, engine(RULES, 0, "")),
        "address only, bans on": (address_each, engine(RULES, BANS, "")),
        "address only": (address_each, engine(RULES, 0, "")),
    }
    groups |= {f"full triple, {count:,} rules": (decide_each, engine(count, BANS)) for count in (10, 1_000, 10_000)}
    groups |= {f"full triple, {count:,} bans": (decide_each, engine(RULES, count)) for count in (0, 1_000, 1_000_000)}
    for group, (each, made) in groups.items():
        yield case(group, "no-op call", "yardstick", noop_each, noop)
        yield case(group, "gobanfast decide", "ours", each, made.decide)


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
