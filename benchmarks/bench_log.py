"""The decision log and metrics on the side of a request: what `record` costs, with the thread that writes at work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.cases import Case, Data, timed

SUITE = "log"
CAPTION = "Recording one decision: ns median (times the no-op call)"
COUNT = 20_000
RULES = "rules:\n  - {id: spam, when: {prefix: 198.51.100.0/24}, action: ban, for: 1h}\n"


class Nowhere:
    """A sink that throws lines away."""

    def write(self, lines: list[bytes]) -> None:
        """Takes the lines."""

    def close(self) -> None:
        """Nothing is open."""


def repeat(call: Any, decision: Any) -> None:
    for _ in range(COUNT):
        call(decision)


def cases(data: Data) -> Iterator[Case]:
    from benchmarks.floor import noop
    from gobanfast import Engine, Ruleset
    from gobanfast.telemetry.log import DecisionLog

    engine = Engine(Ruleset.from_text(RULES))
    ban, allow = engine.decide("198.51.100.7"), engine.decide("192.0.2.1")
    whole = DecisionLog(Nowhere(), queue=10**9)
    sampled = DecisionLog(Nowhere(), sample_allow=100, queue=10**9)
    hidden = DecisionLog(Nowhere(), pseudonym_key=b"k" * 32, queue=10**9)
    for group, decision, logs in (
        ("a ban", ban, (("record", whole), ("record, pseudonyms", hidden))),
        ("a plain allow", allow, (("record", whole), ("record, 1 of 100 sampled", sampled))),
    ):
        text = decision.address
        yield Case(SUITE, group, "no-op call", "yardstick", COUNT, lambda: None, lambda _, t=text: repeat(noop, t))
        for name, log in logs:
            yield Case(
                SUITE, group, name, "ours", COUNT,
                prepare=lambda log=log: log.flush(60), run=lambda _, log=log, d=decision: repeat(log.observe, d),
            )  # fmt: skip


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
