"""Limits as they are meant: exact counts of every key, in dicts, with fractions for the bucket."""

from __future__ import annotations

from fractions import Fraction
from math import ceil


class Window:
    """`limit` requests from the first one on, until `window` milliseconds are over."""

    def __init__(self, limit: int, window: int) -> None:
        self.limit, self.window = limit, window
        self.keys: dict[bytes, tuple[int, int]] = {}  # key -> (end, count)

    def step(self, what: str, key: bytes, cost: int, now: int) -> tuple[bool, int, int, int]:
        """(admitted, left, milliseconds to wait, milliseconds until all is there)."""
        end, count = self.keys.get(key, (0, 0))
        if end <= now:
            end, count = now + self.window, 0
        cost = min(cost, self.limit)
        admitted = count + cost <= self.limit
        wait = 0 if admitted else end - now
        if what == "count" or (what == "take" and admitted):
            count = min(count + cost, self.limit)
        elif what == "give":
            count = max(count - cost, 0)
        elif what == "clear":
            count = 0
        if count:
            self.keys[key] = end, count
        else:
            self.keys.pop(key, None)
        return admitted, self.limit - count, wait, end - now if count else 0


class Bucket:
    """A bucket of `burst` tokens that fills at `limit` a `window`; what is missing is kept as time."""

    def __init__(self, limit: int, window: int, burst: int) -> None:
        self.interval = Fraction(ceil(Fraction(window << 30, limit)), 1 << 30)  # the table's own rounding
        self.burst = burst
        self.keys: dict[bytes, Fraction] = {}  # key -> when it is full

    def step(self, what: str, key: bytes, cost: int, now: int) -> tuple[bool, int, int, int]:
        cost = min(cost, self.burst)
        room, more = self.burst * self.interval, cost * self.interval
        missing = max(self.keys.get(key, Fraction(0)) - now, Fraction(0))
        admitted = missing + more <= room
        wait = Fraction(0) if admitted else missing + more - room
        if what == "count" or (what == "take" and admitted):
            missing = min(missing + more, room)
        elif what == "give":
            missing = max(missing - more, Fraction(0))
        elif what == "clear":
            missing = Fraction(0)
        self.keys[key] = now + missing
        return admitted, int((room - missing) / self.interval), ceil(wait), ceil(missing)
