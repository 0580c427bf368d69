"""Store protocol, and the values that pass through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from gobanfast._errors import GobanError
from gobanfast.bans import Ban

Gap = Literal["", "first", "trimmed", "replaced"]


class StoreError(GobanError, RuntimeError):
    """A store that cannot do what was asked of it now: down, slow, full, locked or read-only. Says which and why."""


class StoreAddressError(StoreError, ValueError):
    """A store that no waiting brings: a folder that is not there, a missing package, a server of another kind."""


class RecordError(StoreError, ValueError):
    """Changes that a store cannot take, however often they are tried. All others of the same call are written.

    `problems` says what is wrong by key, `position` is that of the first change which was written.
    """

    def __init__(self, uri: str, problems: Mapping[str, str], position: int = 0) -> None:
        self.problems, self.position = dict(problems), position
        lines = [f"{uri}: {str(key)[:80]!r} is not stored: {what}" for key, what in problems.items()]
        super().__init__("\n".join(lines))


class Cursor(NamedTuple):
    """A place in a store's history: which store (it has a name of its own from its creation on), and how far."""

    store: str
    position: int


class Change(NamedTuple):
    """What a store now says about a key: the ban, or None once it was lifted. Positions grow with time."""

    position: int
    key: str
    ban: Ban | None


class Changes(NamedTuple):
    """What happened after a cursor, and the cursor to go on from.

    `gap` is not empty when the history in between is not known, so that the whole store has to be read: "first" (there
    was no cursor), "trimmed" (the store forgot), "replaced" (it is another store: emptied, or an older copy).
    """

    changes: Sequence[Change]
    cursor: Cursor
    gap: Gap = ""


class Store(Protocol):
    """Where bans and labels outlive the process. Every time is in Unix seconds; every read leaves out what has expired.

    A label is a record like a ban, under the key `label:<word>:<key>` (`gobanfast.bans.Label.record`).

    A ban that is set over another one of the same key never shortens it: of two the one that expires later stays. What
    `set`, `extend`, `delete` and `apply` have returned from is durable: it survives the process being killed.

    One record that cannot be read is counted (`unreadable`), logged and passed over; changes that cannot be written
    are a RecordError once the others are. Methods raise StoreError when the store cannot answer. They block, for at
    most the store's own timeouts, and `AsyncStore` awaits them. Any number of threads. A child made by fork opens its
    own connections.
    """

    uri: str  # without a password
    shared: bool  # whether other processes see what this one writes
    ahead: float  # seconds that its clock is ahead of this host's, 0.0 where it is the same

    @property
    def unreadable(self) -> int:
        """How often a record was passed over."""

    def check(self) -> None:
        """Raises StoreAddressError for what no waiting mends; a store that is down now is no error here."""

    def apply(self, writes: Iterable[tuple[str, Ban | None]], *, now: float | None = None) -> int:
        """Sets bans and lifts keys (None), in this order and in one step; position of the first of these changes."""

    def set(self, ban: Ban, *, now: float | None = None) -> None:
        """Stores a ban. `expires` None is for good; one that has expired is not stored."""

    def get(self, key: str, *, now: float | None = None) -> Ban | None:
        """The ban of this key."""

    def exists(self, key: str, *, now: float | None = None) -> bool:
        """Whether this key is banned."""

    def delete(self, key: str, *, now: float | None = None) -> bool:
        """Lifts the ban of this key; False if there was none."""

    def extend(self, key: str, expires: float | None, *, now: float | None = None) -> Ban | None:
        """Makes a ban last at least until `expires`; the ban as it is then, or None if there is none."""

    def scan(self, prefix: str = "", *, now: float | None = None) -> Iterator[Ban]:
        """All bans whose key begins with `prefix`, in no order; with "label:", all labels. What changes meanwhile may
        be in it or not."""

    def watch(self, cursor: Cursor | None, *, timeout: float) -> Changes:
        """What changed after `cursor`; waits up to `timeout` seconds for something to. At once without a cursor."""

    def purge(self, *, now: float | None = None) -> int:
        """Removes what has expired; how many bans. Reads never depend on it."""

    def health(self) -> dict[str, Any]:
        """What the store says of itself; asks it, so it raises StoreError when it cannot answer."""

    def close(self) -> None:
        """Closes connections. A later call opens them again."""
