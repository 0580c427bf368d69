"""The score and its threshold, from exact counts and numpy over the last scores."""

from __future__ import annotations

import copy
import math
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from gobanfast.rules.settings import ScoreSettings

PARTS = 4095  # a guarded window keeps scores in such parts


@dataclass
class OracleWindow:
    """The article's formula; with the guards, unless `naive`."""

    settings: ScoreSettings
    scores: deque[float] = field(init=False)
    threshold: float | None = None

    def __post_init__(self) -> None:
        self.scores = deque(maxlen=self.settings.window)

    def formula(self) -> float:
        values = np.array(self.scores)
        return float(np.percentile(values, self.settings.percentile) + self.settings.deviations * np.std(values))

    def rate(self, score: float, added: float = 0.0) -> tuple[float | None, bool]:
        """Threshold, and whether the score with what is `added` reaches it; the score alone is learned."""
        rules = self.settings
        if rules.naive:
            self.scores.append(score)
            threshold = self.formula()
            return threshold, min(1.0, score + added) >= threshold
        score = math.floor(score * PARTS + 0.5) / PARTS
        cold = len(self.scores) < rules.min_samples
        known = None if cold else self.threshold
        flagged = known is not None and min(1.0, score + added) >= known
        if not flagged or rules.learn == "all":
            self.learn(score)
        return known, flagged

    def learn(self, score: float) -> None:
        rules = self.settings
        self.scores.append(math.floor(score * PARTS + 0.5) / PARTS)
        if len(self.scores) >= rules.min_samples:
            wanted = min(max(self.formula(), rules.floor), rules.ceiling)
            if self.threshold is None:
                self.threshold = wanted
            else:
                self.threshold += min(max(wanted - self.threshold, -rules.max_step), rules.max_step)


@dataclass
class OracleScorer:
    """Scores from counts that are exact and never age."""

    settings: ScoreSettings
    names: Counter[int] = field(default_factory=Counter)
    fingerprints: Counter[int] = field(default_factory=Counter)
    learned: Counter[int] = field(default_factory=Counter)  # from each client
    spent: int = 0  # of it, above what is fair
    shapes: Counter[int] = field(default_factory=Counter)
    window: OracleWindow = field(init=False)

    def __post_init__(self) -> None:
        self.window = OracleWindow(self.settings)

    @staticmethod
    def surprise(counts: Counter[int], value: int) -> float:
        categories = counts.total() + len(counts) + 1
        if categories == 1:
            return 1.0
        probability = (counts[value] + 1) / categories
        return max(0.0, -math.log2(probability) / math.log2(categories))

    def risk(self, asn: int) -> float:
        listed = [risk for first, last, risk in self.settings.asn_risk if first <= asn <= last]
        return listed[0] if listed else self.settings.unknown_asn

    @property
    def fair(self) -> int:
        """What may be learned from any one client: twice what the average one taught, 16 at least."""
        return max(16, 2 * self.learned.total() // max(1, len(self.learned)))

    def teaches(self, client: int) -> bool:
        """Whether a client may teach once more; above what is fair, 1/128 of everything, and all together 1/8 of it."""
        total, count = self.learned.total(), self.learned[client]
        spends = count >= self.fair and count < total // 128 and self.spent < total // 8
        self.spent += spends
        return count < self.fair or spends

    def rate(
        self,
        name: int | None,
        fingerprint: int | None,
        asn: int | None,
        added: float = 0.0,
        client: int = 0,
        shape: int | None = None,
    ) -> tuple[float, float, float | None, bool]:
        """Score with what is `added`, coverage, threshold, flagged."""
        rules = self.settings
        score, coverage = self.score(name, fingerprint, asn, shape)
        if coverage == 0 and added == 0:
            return 0.0, 0.0, None, False
        if coverage == 0:
            return min(1.0, added), 0.0, *copy.deepcopy(self.window).rate(0.0, added)
        if not rules.naive and not self.teaches(client):
            return min(1.0, score + added), coverage, *copy.deepcopy(self.window).rate(score, added)
        threshold, flagged = self.window.rate(score, added)
        if not flagged or rules.naive or rules.learn == "all":
            self.count(name, fingerprint, shape)
            self.learned[client] += 1
        return min(1.0, score + added), coverage, threshold, flagged

    def vouch(self, name: int | None, fingerprint: int | None, asn: int | None, shape: int | None = None) -> bool:
        """Learns a flagged request; whether there was anything to learn."""
        score, coverage = self.score(name, fingerprint, asn, shape)
        if self.settings.naive or self.settings.learn == "all" or coverage == 0:
            return False
        self.window.learn(score)
        self.count(name, fingerprint, shape)
        return True

    def count(self, name: int | None, fingerprint: int | None, shape: int | None) -> None:
        if name is not None:
            self.names[name] += 1
        if fingerprint is not None:
            self.fingerprints[fingerprint] += 1
            if shape is not None:
                self.shapes[shape] += 1

    def score(
        self, name: int | None, fingerprint: int | None, asn: int | None, shape: int | None
    ) -> tuple[float, float]:
        """Score and coverage."""
        rules, parts = self.settings, []
        if name is not None:
            parts.append((rules.sni, self.surprise(self.names, name)))
        if fingerprint is not None:
            unlike = self.surprise(self.fingerprints, fingerprint)
            if shape is not None:
                unlike = max(unlike, self.surprise(self.shapes, shape))
            parts.append((rules.header, unlike))
        if asn is not None:
            parts.append((rules.asn, self.risk(asn)))
        coverage = sum(weight for weight, _ in parts)
        return (sum(weight * part for weight, part in parts) / coverage if coverage else 0.0), coverage
