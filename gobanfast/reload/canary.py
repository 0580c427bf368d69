"""Canary evaluation: live requests decided by the rules in force and by a candidate, differences counted."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

from gobanfast._core.engine_core import EngineCore
from gobanfast.reload.decision_diff import Budget, Differences
from gobanfast.rules.settings import Settings

if TYPE_CHECKING:
    from gobanfast.rules.ruleset import Ruleset


class Trial:
    """Canary of a candidate ruleset, `Engine.candidate` while it runs. Only rules are compared, not bans and trackers.

    Args:
        old: the rules in force.
        new: the candidate.
        budget: how much may differ, and how long the trial lasts.
    Threads: `observe` may be called by any number.
    """

    def __init__(self, old: Ruleset, new: Ruleset, budget: Budget) -> None:
        self.budget = budget
        self.differences = Differences()
        self.full = threading.Event()  # enough requests were compared
        self.errors = 0
        self._old, self._new = EngineCore(old.compiled, Settings()), EngineCore(new.compiled, Settings())
        self._lock = threading.Lock()
        self._turn = itertools.count()

    def observe(self, address: str | None, **signals: Any) -> None:
        """Compares the answers to one request, given as to `peek`. Never raises: it runs inside `decide`."""
        if next(self._turn) % self.budget.sample or self.full.is_set():
            return
        try:
            old, new = self._old.peek(address, **signals), self._new.peek(address, **signals)
            with self._lock:
                self.differences.add(old, new)
                if self.differences.compared >= self.budget.requests:
                    self.full.set()
        except Exception:  # noqa: BLE001 - the decision that was asked for must not fail with its shadow
            self.errors += 1
