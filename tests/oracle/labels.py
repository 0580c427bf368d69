"""What a table of labels answers: a dict of every label, and every one asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gobanfast.bans import Label


@dataclass
class Table:
    """Labels by key and word. Times are Unix seconds that are whole milliseconds; time never goes back."""

    stored: dict[tuple[str, str], Label] = field(default_factory=dict)
    events: list[tuple[str, Label]] = field(default_factory=list)

    def get(self, key: str, word: str, now: float) -> Label | None:
        """The label of this key and word."""
        label = self.stored.get((key, word))
        return label if label is not None and holds(label, now) else None

    def add(self, label: Label, now: float) -> Label:
        """The label as it stands after this one was added: the later end stays."""
        label = replace(label, created=whole(label.created), expires=label.expires and whole(label.expires))
        old = self.get(label.key, label.word, now)
        if not holds(label, now) or (old is not None and end(old) >= end(label)):
            return old or label
        self.events.append(("add" if old is None else "extend", label))
        self.stored[label.key, label.word] = label
        return label

    def remove(self, key: str, word: str, now: float) -> Label | None:
        """The label, gone now."""
        old = self.get(key, word, now)
        self.stored.pop((key, word), None)
        if old is not None:
            self.events.append(("lift", old))
        return old

    def labels(self, now: float) -> dict[tuple[str, str], Label]:
        """All that hold."""
        return {place: label for place, label in self.stored.items() if holds(label, now)}

    def words(self, keys: set[str], now: float) -> set[str]:
        """The words that any of these keys carries."""
        return {word for key, word in self.labels(now) if key in keys}


def whole(seconds: float) -> float:
    """The nearest whole millisecond."""
    return round(seconds * 1000) / 1000


def end(label: Label) -> float:
    """When it ends."""
    return float("inf") if label.expires is None else label.expires


def holds(label: Label, now: float) -> bool:
    """Whether the key carries it at `now`."""
    return now < end(label)
