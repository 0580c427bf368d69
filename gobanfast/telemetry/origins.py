"""Space-Saving sketch of the origins whose pages were refused an answer most often, in fixed memory.

Source: Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

MOST = 64  # origins counted at a time
LONGEST = 300  # characters of one; none that is valid is longer


class Counted(NamedTuple):
    """An origin, and how often it was noted: at most `at_most` times, and at least `over` less."""

    origin: str
    at_most: int
    over: int


class WithheldOrigins:
    """Counts of origins, of which anyone can invent any number: `most` of them are held, whatever comes.

    An origin that is not held takes the place of the rarest and counts on from its count, so that whichever is noted
    more often than once in `most` times is held. Threads: any number.
    """

    def __init__(self, most: int = MOST) -> None:
        if most < 1:
            raise ValueError(f"most={most} holds no origin; write 1 or more")
        self._most = most
        self._held: dict[str, tuple[int, int]] = {}  # origin -> count, over
        self._total = 0
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """How many were noted."""
        return self._total

    def note(self, origin: str) -> None:
        """Counts one more. What is over 300 characters is cut, and what is not printable ASCII is escaped.

        Cost: half a microsecond for an origin that is held; some more for one that takes a place.
        """
        text = origin[:LONGEST]
        if not (text.isascii() and text.isprintable()):
            text = ascii(text)[1:-1][:LONGEST]
        with self._lock:
            self._total += 1
            count, over = self._held.get(text, (0, 0))
            if not count and len(self._held) >= self._most:
                rarest = min(self._held, key=lambda held: self._held[held][0])
                count = over = self._held.pop(rarest)[0]
            self._held[text] = count + 1, over

    def top(self, most: int) -> list[Counted]:
        """The `most` origins that were surely noted most often, most first."""
        with self._lock:
            found = [Counted(origin, *counts) for origin, counts in self._held.items()]
        return sorted(found, key=lambda each: (each.over - each.at_most, each.origin))[:most]
