"""Fork handlers: take locks before a fork, reset them and restart threads in the child."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """An object with a lock, a connection or a thread that a forked child must not inherit as it is."""

    def before_fork(self) -> None:
        """Brings the object to rest: takes its lock, closes what must not be shared."""

    def after_fork(self, child: bool) -> None:
        """Lets it go on, in the parent (`child` False) or in the child."""


importing = threading.Lock()
"""Held by our threads while they import: a child forked meanwhile would have half a module, which it can never use."""

_known: list[weakref.ref[ForkAware]] = []  # in the order they were made: what a later one uses goes on before it
_resting: list[ForkAware] = []
_registered = False


def watch_forks(item: ForkAware) -> None:
    """Calls `item` around every fork for as long as it lives."""
    global _registered  # noqa: PLW0603 - os.register_at_fork has no way back, so it is called once
    _known[:] = [known for known in _known if known() is not None]
    _known.append(weakref.ref(item))
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def _before() -> None:
    importing.acquire()
    for known in reversed(_known):
        if (item := known()) is not None:
            item.before_fork()
            _resting.append(item)


def _after_in_parent() -> None:
    _after(child=False)


def _after_in_child() -> None:
    _after(child=True)


def _after(*, child: bool) -> None:
    importing.release()
    items = _resting[::-1]
    _resting.clear()
    for item in items:
        item.after_fork(child)
