"""Circuit breaker around a store: opens after failures or slow calls, probes again with back-off."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 3  # in a row
SLOWER = 0.3  # seconds over the baseline that count as a failure
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0


class Breaker:
    """Closed while calls succeed; open after three failures in a row; half-open while one call tries again.

    A call that succeeds but takes 300 ms longer than is usual (a moving average of the last tens of calls) counts as a
    failure; the average follows, so a store that stays slow is used again. Pauses double from 0.25 s to 5 s.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = "closed"
        self.failures = 0  # in a row
        self.opened = 0  # how often
        self.baseline: float | None = None  # seconds
        self.error = ""
        self._clock = clock
        self._pause = FIRST_PAUSE
        self._again = 0.0

    def wait(self) -> float:
        """Seconds until a call is allowed; 0.0 means now, and makes an open breaker half-open."""
        if self.state == "closed":
            return 0.0
        left = self._again - self._clock()
        if left > 0:
            return left
        self.state = "half-open"
        return 0.0

    def success(self, seconds: float) -> None:
        """A call came back after `seconds`."""
        usual = self.baseline
        self.baseline = seconds if usual is None else usual + (seconds - usual) / 16
        if usual is not None and seconds > usual + SLOWER:
            self.failure(f"took {seconds:.3f} s, usual is {usual:.3f} s")
            return
        self.state, self.failures, self._pause, self.error = "closed", 0, FIRST_PAUSE, ""

    def failure(self, error: str) -> None:
        """A call failed."""
        self.error = error
        self.failures += 1
        if self.state == "half-open" or self.failures >= FAILURES:
            self.opened += self.state == "closed"
            self.state = "open"
            self._again = self._clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
