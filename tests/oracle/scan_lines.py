"""Counts a log line by line: the slow reader's texts, one `peek` each. What the scan by columns has to equal."""

from __future__ import annotations

from collections import Counter

from gobanfast._core.address import parse_address
from gobanfast.batch.logs import LogFile
from gobanfast.batch.scan import Outcome, outcome
from gobanfast.engine import Engine


def count(engine: Engine, log: LogFile, mount: str = "") -> tuple[Counter[tuple[str, Outcome]], int]:
    """Lines by client and answer, and the lines without an address. The log is opened with `requests`."""
    counts: Counter[tuple[str, Outcome]] = Counter()
    bad = 0
    for chunk in log:
        assert chunk.requests is not None
        for row, (address, request) in enumerate(zip(chunk.addresses, chunk.requests, strict=True)):
            if parse_address(address) is None:
                bad += bool(address) or chunk.first + row in chunk.faults
                continue
            counts[address, outcome(engine.peek(address, headers=request.headers, mount=mount))] += 1
    return counts, bad
