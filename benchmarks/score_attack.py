"""How many of an attack and how many of everybody else the score challenges: `python -m benchmarks.score_attack`.

Synthetic and seeded, so the figures are the same in every run. In peace a site of 40 names is asked by 5,000 kinds of
client (both Zipf; five families of browsers, each with twenty shapes of request), one request in a hundred from a kind
never seen before, one in twenty from a hosting AS of risk 0.6. The attacks come from an AS of risk 0.9, which only some
settings list; to `score: {}` it is an AS like any other:

- tool: one program, one fingerprint and shape, one name nobody else asks for
- scan: a new name and a new fingerprint each time, one shape
- rotate: the most usual name, a new fingerprint each time, one shape that no browser has
- rotate like a browser: the same, with the shapes of a browser
- copy: the most usual name and fingerprint, one shape that no browser has
- copy all: the most usual fingerprint and its shapes, a name nobody else asks for
- dilute: the most usual name with one fingerprint, or a new one each time, from an AS like everybody's: never
  challenged, it makes all others less usual. From 1, 20 or 1,000 addresses; all /64s of an IPv6 /48 are one client
- warm-up: one client asks for the most usual name 1,000 times, then for an odd one
- patient: rises by as little as it takes to drag the threshold up, and never reaches it
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

from gobanfast._core.scorer import Scorer, ScoreWindow
from gobanfast.rules.settings import ScoreSettings

KEY = b"benchmarks.score_attack"
ATTACKER = 1 << 32  # and the numbers after it
HOSTING, HOSTILE, ACCESS = 64500, 64501, 64510
RISKS = ((HOSTING, HOSTING, 0.6), (HOSTILE, HOSTILE, 0.9))
PEACE, MIXED, FRACTIONS = 20_000, 10_000, (0.02, 0.05, 0.10, 0.33, 0.67)
CLIENTS, ORDINARY = 2_000, 3_000  # addresses of ordinary clients, and their requests during a dilution

FAMILIES, SHAPES = 5, 20

GUARDED = ScoreSettings(asn_risk=RISKS)
MODES = {
    "`score: {}`": ScoreSettings(),
    "naive": ScoreSettings(asn_risk=RISKS, naive=True),
    "guarded": GUARDED,
    "guarded, learn: all": replace(GUARDED, learn="all"),
}


class Request(NamedTuple):
    name: int
    fingerprint: int
    shape: int
    asn: int
    client: int


class Traffic:
    """Requests of a seed; numbers from 10**6 on were never seen before."""

    def __init__(self, seed: int) -> None:
        self.random, self.new = random.Random(seed), 10**6
        self.names = list(accumulate(1 / (i + 1) for i in range(40)))
        self.kinds = list(accumulate(1 / (i + 1) ** 1.1 for i in range(5000)))
        self.shapes = list(accumulate(1 / (i + 1) for i in range(SHAPES)))

    def fresh(self) -> int:
        self.new += 1
        return self.new

    def zipf(self, weights: list[float]) -> int:
        return bisect(weights, self.random.random() * weights[-1])

    def benign(self) -> Request:
        kind = self.zipf(self.kinds) if self.random.random() > 0.01 else self.fresh()
        asn = HOSTING if self.random.random() < 0.05 else ACCESS
        return Request(self.zipf(self.names), kind, self.shape(kind), asn, self.random.randrange(CLIENTS))

    def shape(self, kind: int) -> int:
        return kind % FAMILIES * SHAPES + self.zipf(self.shapes)

    def attack(self, kind: str) -> Iterator[Request]:
        while True:
            if kind == "tool":
                yield Request(900, 9000, 9000, HOSTILE, ATTACKER)
            elif kind == "scan":
                yield Request(self.fresh(), self.fresh(), 9000, HOSTILE, ATTACKER)
            elif kind == "rotate":
                yield Request(0, self.fresh(), 9000, HOSTILE, ATTACKER)
            elif kind == "rotate like a browser":
                yield Request(0, self.fresh(), self.shape(0), HOSTILE, ATTACKER)
            elif kind == "copy":
                yield Request(0, 0, 9000, HOSTILE, ATTACKER)
            else:
                yield Request(900, 0, self.shape(0), HOSTILE, ATTACKER)


def flagged(scorer: Scorer, request: Request) -> bool:
    name, fingerprint, shape, asn, client = request
    return scorer.rate(name=name, fingerprint=fingerprint, shape=shape, asn=asn, client=client).flagged


def peace(settings: ScoreSettings) -> float:
    """Fraction of ordinary requests that are challenged, after as many to learn from."""
    traffic, scorer = Traffic(1), Scorer(settings, key=KEY)
    for _ in range(PEACE):
        flagged(scorer, traffic.benign())
    return sum(flagged(scorer, traffic.benign()) for _ in range(PEACE)) / PEACE


def war(settings: ScoreSettings, kind: str, fraction: float) -> tuple[float, float]:
    """Fraction of the attack and of ordinary requests that are challenged while both come."""
    traffic, scorer = Traffic(2), Scorer(settings, key=KEY)
    for _ in range(PEACE):
        flagged(scorer, traffic.benign())
    attack, order = traffic.attack(kind), random.Random(3)
    caught, wrong = [], []
    for _ in range(MIXED):
        if order.random() < fraction:
            caught.append(flagged(scorer, next(attack)))
        else:
            wrong.append(flagged(scorer, traffic.benign()))
    return sum(caught) / len(caught), sum(wrong) / len(wrong)


def dilution(settings: ScoreSettings, fraction: float, clients: int, *, rotate: bool) -> tuple[float, float]:
    """Fraction of ordinary requests that are challenged before and while `clients` send `fraction` of all requests."""
    traffic, scorer, order = Traffic(4), Scorer(settings, key=KEY), random.Random(5)
    for _ in range(PEACE):
        flagged(scorer, traffic.benign())
    before = [flagged(scorer, traffic.benign()) for _ in range(PEACE // 2)]
    during: list[bool] = []
    while len(during) < ORDINARY:
        if order.random() < fraction:
            fingerprint = traffic.fresh() if rotate else 9000
            flagged(scorer, Request(0, fingerprint, traffic.shape(0), ACCESS, ATTACKER + order.randrange(clients)))
        else:
            during.append(flagged(scorer, traffic.benign()))
    return sum(before) / len(before), sum(during) / len(during)


def warm_up(settings: ScoreSettings) -> float:
    """Fraction of 100 clients that are challenged for an odd name after 1,000 requests each to the usual one."""
    traffic, scorer, count = Traffic(6), Scorer(settings, key=KEY), 0
    for _ in range(PEACE):
        flagged(scorer, traffic.benign())
    for client in range(100):
        fingerprint = traffic.fresh()
        for _ in range(1000):
            flagged(scorer, Request(0, fingerprint, traffic.shape(0), ACCESS, ATTACKER + client))
        name, asn = traffic.fresh(), ACCESS
        count += scorer.peek(name=name, fingerprint=fingerprint, shape=traffic.shape(0), asn=asn).flagged
    return count / 100


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
    for kind in ("tool", "scan", "rotate", "rotate like a browser", "copy", "copy all"):
        for fraction in FRACTIONS:
            cells = [war(settings, kind, fraction) for settings in MODES.values()]
            row = " | ".join(f"{caught:.1%} (ordinary {wrong:.2%})" for caught, wrong in cells)
            print(f"| {kind}, {fraction:.0%} of requests: caught | {row} |")
    print(f"| warm-up: caught | {' | '.join(f'{warm_up(m):.0%}' for m in MODES.values())} |")
    for rotate in (False, True):
        for fraction in (0.90, 0.99):
            for clients in (1, 20, 1000):
                found = [dilution(settings, fraction, clients, rotate=rotate) for settings in MODES.values()]
                row = " | ".join(f"{before:.2%} -> {during:.2%}" for before, during in found)
                kind = "new fingerprints" if rotate else "one fingerprint"
                print(f"| dilute, {fraction:.0%}, {clients} clients, {kind}: ordinary | {row} |")


if __name__ == "__main__":
    main()
