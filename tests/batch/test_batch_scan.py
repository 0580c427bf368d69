"""Lines decided in bulk and counted: equal to the oracle, whatever the way there."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import gobanfast
from gobanfast.asn import AsnTable
from gobanfast.batch import scan
from gobanfast.batch.logs import LogFile
from gobanfast.batch.scan import Scan
from gobanfast.engine import Engine
from gobanfast.rules import Ruleset
from oracle import scan as oracle
from oracle.requests import OracleRequest
from oracle.rules import OracleNetworks, OracleRule, OracleSignals
from oracle.rules import decide as decide_by_rules

PACKAGE = Path(gobanfast.__file__).parent
DEMO_LOG = PACKAGE / "demo" / "access.log.gz"
DEMO_RULES = PACKAGE / "demo" / "rules.yaml"
STARTER = PACKAGE / "asn" / "starter.csv"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(Ruleset.load(DEMO_RULES, asn=AsnTable.starter()))


def scanned(engine: Engine, *logs: bytes, out: io.StringIO | None = None, layout: str = "auto") -> Scan:
    made = Scan(engine, out=out)
    for number, log in enumerate(logs):
        made.read(LogFile(io.BufferedReader(io.BytesIO(log)), f"{number}.log", layout=layout))
    return made


def counted(made: Scan) -> oracle.Counts:
    """The counts of a scan in the oracle's shape, but for the bad lines."""
    return oracle.Counts(
        lines=made.lines,
        actions=Counter({action: lines for _, action, lines in made.by_action()}),
        rules=Counter({(key, action): lines for key, action, lines in made.by_rule()}),
        asns=Counter({(key, action): lines for key, action, lines in made.by_asn()}),
        logged=summed(made.by_logged()),
        shadow=summed(made.by_shadow()),
    )


def summed(tallies: list[scan.Tally[str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for key, _, lines in tallies:
        counts[key] += lines
    return counts


def assert_counts(expected: oracle.Counts, made: Scan) -> None:
    """Every count is the oracle's; the first bad lines are its first."""
    bad, expected.bad = expected.bad, []
    assert expected == counted(made)
    assert len(bad) == made.bad
    assert bad[: scan.FAULTS_KEPT] == [fault.line for fault in made.faults]


def test_demo_log_counts_equal_the_oracle(engine: Engine) -> None:
    """The bundled log under the bundled rules counts as deciding each address by hand does; requests are not read."""
    rules = [rule for rule in oracle.read_rules(DEMO_RULES) if not {"sni", "header", "path"} & set(rule["when"])]
    expected = oracle.count(DEMO_LOG, rules, oracle.read_asns(STARTER))

    assert_counts(expected, scanned(engine, DEMO_LOG.read_bytes()))


RULES = r"""
rules:
  - {id: own, when: {prefix: [66.249.64.0/19, "2001:db8::/32"]}, action: allow}
  - {id: blocked, when: {prefix_file: block.netset}, action: ban, for: 1h, reason: on a public list}
  - {id: hosting, when: {asn_name: "hosting|server|\\bvps\\b"}, action: challenge}
  - {id: some, when: {asn: [16276, 24940, 14061, 16509]}, action: challenge}
  - {id: both, when: {asn: [15169], prefix: [64.0.0.0/4]}, action: ban, priority: 50}
  - {id: watched, when: {asn_name: [telecom, "^AS7"]}, action: ban, mode: shadow}
  - {id: noted, when: {prefix: [0.0.0.0/1]}, action: log}
"""


def test_real_log_counts_equal_the_oracle(real_data: Path, tmp_path: Path) -> None:
    """10,000 real lines, a whole routing table, a real block list: every count is the oracle's."""
    rules, names, table = tmp_path / "rules.yaml", real_data / "asn-names.csv.gz", real_data / "asn-full.csv.gz"
    rules.write_text(RULES, "utf-8")
    (tmp_path / "block.netset").write_bytes(gzip.decompress((real_data / "block-addresses.netset.gz").read_bytes()))
    log = real_data / "access-combined.log.gz"
    engine = Engine(Ruleset.load(rules, asn=AsnTable.from_csv(table, names=names)))

    expected = oracle.count(log, oracle.read_rules(rules), oracle.read_asns(table, names))

    assert expected.actions.keys() == {"allow", "challenge", "ban"}  # or the test proves little
    assert_counts(expected, scanned(engine, log.read_bytes()))


ADDRESSES = st.sampled_from(
    ["192.0.2.2", "198.51.100.7", "198.51.100.9", "::ffff:198.51.100.9", "46.101.9.9", "162.142.125.1", "2001:db8::1",
     "3.88.14.1", "66.249.66.1", "8.8.8.8", "bad.example", ""]
)  # fmt: skip


@given(st.lists(st.lists(ADDRESSES, max_size=30), max_size=4))
def test_lines_count_one_by_one(engine: Engine, logs: list[list[str]]) -> None:
    """Scanning logs counts what deciding every line on its own counts, and writes each of those decisions."""
    out = io.StringIO()
    made = scanned(engine, *("".join(f"{a} -\n" if a else "\n" for a in log).encode() for log in logs), out=out)
    expected = []
    for number, log in enumerate(logs):
        for line, address in enumerate(log, 1):
            if address not in {"", "bad.example"}:
                decision = engine.peek(address)
                expected.append({
                    "address": address, "action": decision.action, "rule": decision.rule, "asn": decision.asn,
                    "reason": decision.reason, "shadow": list(decision.shadow), "logged": list(decision.logged),
                    "file": f"{number}.log", "line": line,
                })  # fmt: skip

    written = [json.loads(line) for line in out.getvalue().splitlines()]

    assert expected == written
    assert sum(map(len, logs)) == made.lines
    assert len(expected) == made.decided == made.lines - made.bad
    assert Counter(d["action"] for d in expected) == Counter({a: lines for _, a, lines in made.by_action()})
    assert Counter((d["rule"], d["action"]) for d in expected) == Counter({s[:2]: s.lines for s in made.by_rule()})
    assert Counter((d["asn"], d["action"]) for d in expected) == Counter({s[:2]: s.lines for s in made.by_asn()})


def test_decision_lines_are_ascii_json_of_one_shape(engine: Engine) -> None:
    """A decision line has these members in this order, whatever its file is called."""
    out = io.StringIO()
    made = Scan(engine, out=out)
    made.read(LogFile(io.BufferedReader(io.BytesIO(b"192.0.2.2 -\n")), 'a "log" ü\n'))

    assert out.getvalue().isascii()
    assert 1 == out.getvalue().count("\n")
    assert ["address", "action", "rule", "asn", "reason", "shadow", "logged", "file", "line"] == list(
        json.loads(out.getvalue())
    )


def test_header_is_no_line_and_faults_are_bounded(engine: Engine) -> None:
    """A CSV header is not counted; of many bad lines the first few are kept and all are counted."""
    made = scanned(engine, b"ip,x\n192.0.2.2,1\n" + b"what,2\n" * 50, layout="csv")

    assert (51, 50, 1) == (made.lines, made.bad, made.decided)
    assert [f"0.log:{line}: 'what' is not an address" for line in range(3, 3 + scan.FAULTS_KEPT)] == list(
        map(str, made.faults)
    )


def test_busiest_clients_per_action(engine: Engine) -> None:
    """The clients with most lines come first, at most so many for each action."""
    lines = ["198.51.100.9"] * 5 + ["198.51.100.10"] * 4 + ["198.51.100.11"] * 3 + ["192.0.2.2"] * 2
    made = scanned(engine, "\n".join(lines).encode())

    assert [("198.51.100.9", "ban", 5), ("198.51.100.10", "ban", 4), ("192.0.2.2", "allow", 2)] == [
        (address, decision.action, count) for address, decision, count in made.top_clients(2)
    ]


def test_clients_take_bounded_memory(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the rarest clients are dropped, the busiest stays, and the scan says so; no line is lost."""
    monkeypatch.setattr(scan, "MOST_CLIENTS", 10)
    lines = [f"10.0.{n}.{host}" for n in range(200) for host in range(8)]
    made = Scan(engine)
    for n in range(0, len(lines), 8):
        made.read(
            LogFile(io.BufferedReader(io.BytesIO("\n".join(["192.0.2.2"] * 3 + lines[n : n + 8]).encode())), "log")
        )

    assert 200 * 11 == made.decided
    assert not made.clients_exact
    assert made.clients <= 10
    assert ("192.0.2.2", 600) == next((address, lines) for address, _, lines in made.top_clients(1))


REQUEST_RULES = r"""
rules:
  - {id: tools, when: {header: {user-agent: {contains: [curl, wget, python]}}}, action: challenge}
  - {id: bots, when: {ua_family: bot, path: [/robots.txt, "/**.php"]}, action: allow}
  - {id: feeds, when: {path: {regex: "(?i)feed|rss"}, method: GET}, action: ban}
  - {id: nobody, when: {header: {user-agent: absent}}, action: ban, priority: 50}
  - {id: direct, when: {header: {referer: absent, user-agent: {prefix: Mozilla/}}}, action: log}
  - {id: linked, when: {header: {referer: {contains: google, suffix: "="}}}, action: ban, mode: shadow}
  - {id: unknown, when: {header: {accept: absent}}, action: ban, priority: 1}
"""


def said_by(line: str) -> OracleRequest:
    """Method, path, user agent and referer of a combined line, cut at the quotes by hand; a line that is cut off says
    nothing of headers."""
    cut = re.split(r'(?<!\\)"', line)
    parts = cut[1].split(" ")
    method, path = (parts[0], parts[1]) if len(parts) == 3 else (None, None)
    named = {"referer": cut[3], "user-agent": cut[5]}
    pairs = tuple((name.encode(), value.encode("latin-1")) for name, value in named.items() if value != "-")
    return OracleRequest(pairs if line.endswith('"') else None, method, path)


def by_hand(rules: list[OracleRule], request: OracleRequest) -> tuple[str | None, list[str], list[str]]:
    """What the rules say of a logged request; conditions on headers that a log does not keep never hold."""
    known = [rule for rule in rules if set(rule.header or {}) <= {"user-agent", "referer"}]
    return decide_by_rules(known, None, OracleNetworks(), OracleSignals(request=request))


def test_requests_of_a_real_log_count_like_the_oracle(real_data: Path) -> None:
    """10,000 real lines under rules on user agent, referer, method and path count as deciding each by hand does."""
    log = gzip.decompress((real_data / "access-combined.log.gz").read_bytes())
    rules = [
        OracleRule(
            rule["id"], rule["action"], rule.get("mode", "enforce"), rule.get("priority", 100),
            **{key: tuple(value) if key in ("ua_family", "method") and isinstance(value, list) else
               (value,) if key in ("ua_family", "method") else value for key, value in rule["when"].items()},
        )
        for rule in yaml.safe_load(REQUEST_RULES)["rules"]
    ]  # fmt: skip
    actions = {rule.id: rule.action for rule in rules}
    won: Counter[tuple[str | None, str]] = Counter()
    logged: Counter[str] = Counter()
    seen: dict[OracleRequest, Any] = {}
    for line in log.decode("latin-1").splitlines():
        request = said_by(line)
        if request not in seen:
            seen[request] = by_hand(rules, request)
        winner, _, noted = seen[request]
        unread = re.search(r"%([01][0-9a-f]|7f)", (request.path or "").partition("?")[0], re.IGNORECASE) is not None
        won[winner, actions.get(winner or "", "challenge" if unread else "allow")] += 1  # control characters: malformed
        logged.update(noted)
    made = Scan(Engine(Ruleset.from_text(REQUEST_RULES)))
    made.read(LogFile(io.BufferedReader(io.BytesIO(log)), "log", requests=made.asks_requests))

    assert won == Counter({(key, action): lines for key, action, lines in made.by_rule()})
    assert logged == summed(made.by_logged())
    assert {"tools", "bots", "feeds", "nobody", None} <= {rule for rule, _ in won}
    assert ("unknown",) == made.unjudged


@pytest.mark.parametrize(
    ("layout", "silent", "lines"),
    [
        ("combined", 1, r'''
1.2.3.4 - a b [x] "POST /a.php?q HTTP/1.1" 200 1 "-" "x \"y\" \x41"
1.2.3.4 - - [x] "GET / HTTP/1.0" 200 1
1.2.3.4 - - [x] "\x16\x03" 400 0 "-" "-"
1.2.3.4'''),
        ("nginx-json", 1, r'''
{"remote_addr":"1.2.3.4","request":"POST /a.php?q HTTP/1.1","http_user_agent":"x \"y\" \x41"}
{"remote_addr":"1.2.3.4","request_method":"GET","request_uri":"/"}
{"remote_addr":"1.2.3.4","request":"\u0016","http_user_agent":"-"}
{"remote_addr":"1.2.3.4"}'''),
        ("jsonl", 1, r'''
{"ip":"1.2.3.4","request":{"method":"POST","uri":"/a.php?q","headers":{"User-Agent":["x \"y\" A"]}}}
{"ip":"1.2.3.4","method":"GET","path":"/"}
{"ip":"1.2.3.4","agent":""}
{"ip":"1.2.3.4"}'''),
        ("csv", 2, r'''
IP,Method,URI,User_Agent
1.2.3.4,POST,/a.php?q,"x ""y"" A"
1.2.3.4,GET,/,-
1.2.3.4,,,-'''),
    ],
    ids=["combined", "nginx-json", "jsonl", "csv"],
)  # fmt: skip
def test_every_layout_says_what_was_asked(layout: str, silent: int, lines: str) -> None:
    """User agent, method and path of a line come out as they were sent, whatever the layout writes them like."""
    rules = """
rules:
  - {id: agent, when: {header: {user-agent: 'x "y" A'}, method: POST, path: /*.php}, action: ban}
  - {id: get, when: {method: GET, path: /}, action: challenge}
  - {id: silent, when: {header: {user-agent: absent}}, action: log}
"""
    made = Scan(Engine(Ruleset.from_text(rules)))
    made.read(LogFile(io.BufferedReader(io.BytesIO(lines.strip().encode())), "log", layout=layout, requests=True))

    counts = {key: count for key, _, count in made.by_rule()}
    assert (1, 1) == (counts["agent"], counts["get"])
    assert {"silent": silent} == summed(made.by_logged())
