"""Rules on a combined log: the scan, the slow reader line by line, and a pipeline of pandas that does less."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from benchmarks.cases import Case, Data, timed

SUITE = "scan"
CAPTION = "One line of a combined log, decided by address, path and user agent: ns median (times the no-op call)"
LINES, FEW = 1_000_000, 20_000
ADDRESS = "rules:\n- {id: net, when: {prefix: 203.0.113.0/24}, action: ban}\n"
REQUESTS = ADDRESS + (
    "- {id: tool, when: {header: {user-agent: {contains: sqlmap}}}, action: ban}\n"
    "- {id: env, when: {path: [/.env, /cgi-bin/**]}, action: ban}\n"
)
PATTERN = r'^(\S+) \S+ \S+ \[([^\]]*)\] "(\S+) (\S+)[^"]*" (\d+) (\S+) "([^"]*)" "([^"]*)"'


def log(lines: int) -> bytes:
    """Lines of 20,000 clients, 5,000 paths and 90 user agents, the frequent ones first."""
    import random

    draw = random.Random(7)
    clients = [".".join(str(draw.randrange(1, 224)) for _ in range(4)) for _ in range(20_000)]
    return "".join(
        f'{draw.choice(clients)} - - [02/Nov/2026:00:{n // 60 % 60:02}:{n % 60:02} +0000] "GET /p/'
        f'{int(draw.paretovariate(0.6)) % 5000}/item.html HTTP/1.1" 200 {n} "https://example.com/{n % 50}" '
        f'"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/{int(draw.paretovariate(1)) % 90}.0"\n'
        for n in range(lines)
    ).encode()


def scanned(engine: Any, text: bytes) -> object:
    from gobanfast.batch.coverage import required_headers
    from gobanfast.batch.logs import LogFile
    from gobanfast.batch.scan import Scan

    scan = Scan(engine)
    stream = io.BufferedReader(io.BytesIO(text))  # type: ignore[type-var]
    scan.read(LogFile(stream, "log", requests=scan.asks_requests, asked=required_headers(engine.compiled)))
    return scan.decided


def one_by_one(engine: Any, text: bytes) -> object:
    from gobanfast.batch.logs import LogFile

    stream = io.BufferedReader(io.BytesIO(text))  # type: ignore[type-var]
    counts: dict[str, int] = {}
    for chunk in LogFile(stream, "log", requests=True):
        for address, request in zip(chunk.addresses, chunk.requests or [], strict=True):
            action = engine.peek(address, headers=request.headers).action
            counts[action] = counts.get(action, 0) + 1
    return counts


def by_pandas(_: Any, text: bytes) -> object:
    import pandas as pd

    found = pd.Series(text.decode("latin-1").splitlines()).str.extract(PATTERN)
    banned = found[0].str.startswith("203.0.113.") | found[7].str.contains("sqlmap", regex=False)
    banned |= found[3].eq("/.env") | found[3].str.startswith("/cgi-bin/")
    return int(banned.sum())


def cases(data: Data) -> Iterator[Case]:
    from benchmarks.floor import noop
    from gobanfast import Engine, Ruleset

    text, few = log(LINES), log(FEW)
    engines = {name: Engine(Ruleset.from_text(rules)) for name, rules in (("a", ADDRESS), ("r", REQUESTS))}
    yield Case(SUITE, "a line", "no-op call", "yardstick", FEW, lambda: None, lambda _: [noop(0) for _ in range(FEW)])
    for name, kind, which, lines, run in (
        ("scan, address", "ours", "a", text, scanned), ("scan, address, path and agent", "ours", "r", text, scanned),
        ("slow reader, address, path and agent", "ours", "r", few, one_by_one),
        ("pandas, str.extract", "rival", "r", few, by_pandas),
    ):  # fmt: skip
        count = LINES if lines is text else FEW
        yield Case(
            SUITE, "a line", name, kind, count,  # type: ignore[arg-type]
            prepare=lambda: None, run=lambda _, r=run, e=engines[which], t=lines: r(e, t),
        )  # fmt: skip


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
