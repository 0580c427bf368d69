"""How many of an attack and how many of everybody else the score challenges: `python -m benchmarks.score_attack`.

Synthetic and seeded, so the figures are the same in every run. In peace a site of 40 names is asked by 5,000 kinds of
client (both Zipf), one request in a hundred from a kind never seen before, one in twenty from a hosting AS of risk 0.6.
The attacks:

- tool: one program, one fingerprint, one name nobody else asks for, from an AS of risk 0.9
- scan: a new name and a new fingerprint each time, from that AS
- rotate: the most usual name, a new fingerprint each time, from that AS
- patient: rises by as little as it takes to drag the threshold up, and never reaches it
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

from gobanfast._score import Scorer, ScoreWindow
from gobanfast.rules.settings import ScoreSettings

KEY = b"benchmarks.score_attack"
HOSTING, HOSTILE, ACCESS = 64500, 64501, 64510
RISKS = ((HOSTING, HOSTING, 0.6), (HOSTILE, HOSTILE, 0.9))
PEACE, MIXED, SHARES = 20_000, 10_000, (0.02, 0.05, 0.10, 0.33, 0.67)

GUARDED = ScoreSettings(asn_risk=RISKS)
MODES = {
    "naive": ScoreSettings(asn_risk=RISKS, naive=True),
    "guarded": GUARDED,
    "guarded, learn: all": replace(GUARDED, learn="all"),
}


class Request(NamedTuple):
    name: int
    fingerprint: int
    asn: int


class Traffic:
    """Requests of a seed; numbers from 10**6 on were never seen before."""

    def __init__(self, seed: int) -> None:
        self.random, self.new = random.Random(seed), 10**6
        self.names = list(accumulate(1 / (i + 1) for i in range(40)))
        self.kinds = list(accumulate(1 / (i + 1) ** 1.1 for i in range(5000)))

    def fresh(self) -> int:
        self.new += 1
        return self.new

    def zipf(self, weights: list[float]) -> int:
        return bisect(weights, self.random.random() * weights[-1])

    def benign(self) -> Request:
        kind = self.zipf(self.kinds) if self.random.random() > 0.01 else self.fresh()
        asn = HOSTING if self.random.random() < 0.05 else ACCESS
        return Request(self.zipf(self.names), kind, asn)

    def attack(self, kind: str) -> Iterator[Request]:
        while True:
            if kind == "tool":
                yield Request(900, 9000, HOSTILE)
            elif kind == "scan":
                yield Request(self.fresh(), self.fresh(), HOSTILE)
            else:
                yield Request(0, self.fresh(), HOSTILE)


def flagged(scorer: Scorer, request: Request) -> bool:
    return scorer.rate(name=request.name, fingerprint=request.fingerprint, asn=request.asn).flagged


def peace(settings: ScoreSettings) -> float:
    """Share of ordinary requests that are challenged, after as many to learn from."""
    traffic, scorer = Traffic(1), Scorer(settings, key=KEY)
    for _ in range(PEACE):
        flagged(scorer, traffic.benign())
    return sum(flagged(scorer, traffic.benign()) for _ in range(PEACE)) / PEACE


def war(settings: ScoreSettings, kind: str, share: float) -> tuple[float, float]:
    """Shares of the attack and of ordinary requests that are challenged while both come."""
    traffic, scorer = Traffic(2), Scorer(settings, key=KEY)
    for _ in range(PEACE):
        flagged(scorer, traffic.benign())
    attack, order = traffic.attack(kind), random.Random(3)
    caught, wrong = [], []
    for _ in range(MIXED):
        if order.random() < share:
            caught.append(flagged(scorer, next(attack)))
        else:
            wrong.append(flagged(scorer, traffic.benign()))
    return sum(caught) / len(caught), sum(wrong) / len(wrong)


def founding(settings: ScoreSettings) -> int:
    """How many of the next 100 scores of 0.9 are flagged, when the last 300 were one in three 0.9, the others 0.1."""
    window, count = ScoreWindow(settings), 0
    for score in [0.1] * 300 + [0.9, 0.1, 0.1] * 100:
        window.rate(score)
    for _ in range(100):
        count += window.rate(0.9)[1]
        window.rate(0.1)
        window.rate(0.1)
    return count


def patience(settings: ScoreSettings) -> float:
    """The highest score let through, of one request in three that rises as long as none is challenged."""
    window, score, highest = ScoreWindow(settings), 0.1, 0.0
    for _ in range(300):
        window.rate(0.1)
    for _ in range(MIXED):
        threshold, over = window.rate(score)
        highest = highest if over else max(highest, score)
        score = (threshold or 0.1) - 0.001 if over else min(1.0, score + 0.0005)
        window.rate(0.1)
        window.rate(0.1)
    return highest


def main() -> None:
    print("| | " + " | ".join(MODES) + " |")
    print("|---|" + "---|" * len(MODES))
    print(
        "| 100 scores of 0.9 among 200 of 0.1, flagged | " + " | ".join(str(founding(m)) for m in MODES.values()) + " |"
    )
    print("| peace: ordinary requests challenged | " + " | ".join(f"{peace(m):.2%}" for m in MODES.values()) + " |")
    print("| patient: highest score let through | " + " | ".join(f"{patience(m):.2f}" for m in MODES.values()) + " |")
    for kind in ("tool", "scan", "rotate"):
        for share in SHARES:
            cells = [war(settings, kind, share) for settings in MODES.values()]
            row = " | ".join(f"{caught:.1%} (ordinary {wrong:.2%})" for caught, wrong in cells)
            print(f"| {kind}, {share:.0%} of requests: caught | {row} |")


if __name__ == "__main__":
    main()
