"""Lines of the decision log: the copy of a request that a queued decision holds, and its JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gobanfast._core.log_queue import weigh
from gobanfast._decision_dict import DECIDED, NAME, SECRET, Headers, environ_pairs, signals_of

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision

Outcome = Literal["challenged", "solved", "passed", "refused"]

VERSION = 1
KEEP = 16384  # bytes of memory up to which a request is queued as it is
VALUE = 4096  # characters of a value in a line
LINE = 16384  # bytes of a line
FACTS = (*DECIDED, "compiled", "address", "sni", "ja4", "hello", "method", "http", "path", "mount", "scheme", "host",
         "origin")  # fmt: skip
# What a line has at most: characters of a value, characters of all headers, bytes of a hello, ids of rules.
LEVELS = ((VALUE, 12288, VALUE, 1000), (1024, 4096, 2048, 100), (256, 1024, 0, 20), (64, 0, 0, 4))
# C1 controls and separators, which some readers take for the end of a line, and marks that turn text around.
ODD = re.compile("[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Entry(NamedTuple):
    """A decision on its way to the log; `decision` may be Facts."""

    number: int
    wall: float
    now: float
    decision: Decision
    headers: Headers | None
    request_id: str | None
    weight: int
    outcome: Outcome | None
    nbytes: int


class Facts:
    """What a line says of a decision, without the request that it holds. `cut`: what is shorter than it was."""

    __slots__ = (*FACTS, "cut", "environ")


def short_copy(decision: Any, headers: Headers | None, request_id: str | None) -> tuple[Any, Headers | None, int]:
    """(facts, headers, bytes of memory they keep alive) of a decision, with long values cut.

    Of a WSGI environ that is the headers; of others whatever is over KEEP bytes. A value is cut to VALUE characters,
    and headers are left out once KEEP bytes are full. Values that are hidden are left out here.
    """
    facts = Facts()
    cut: dict[str, int] = {}
    for name in FACTS:
        setattr(facts, name, getattr(decision, name, None))
    for name in ("address", "sni", "path", "mount", "ja4", "method", "http", "scheme", "host", "origin"):
        text = getattr(facts, name)
        if text is not None and len(text) > VALUE:
            cut[name], text = len(text), text[:VALUE]
            setattr(facts, name, text)
    hello = facts.hello  # type: ignore[attr-defined]
    if hello is not None and hello.message is not None and len(hello.message) > VALUE:
        cut["hello"] = len(hello.message)
        facts.hello = None  # type: ignore[attr-defined]
    facts.cut, facts.environ = cut, isinstance(headers, Mapping)  # type: ignore[attr-defined]
    pairs: list[tuple[Any, Any]] | None = None
    if headers is not None:
        pairs, room = [], KEEP
        left_out = 0
        given: Iterable[Any] = environ_pairs(headers) if isinstance(headers, Mapping) else headers
        for name, value in given:
            if room <= 0:
                left_out += 1
                continue
            if len(name) > NAME:
                cut["header name"], name = len(name), name[:NAME]  # noqa: PLW2901
            known = name if isinstance(name, str) else name.decode("latin-1")
            if known.lower() in SECRET:
                value = value[:0]  # noqa: PLW2901
            elif len(value) > VALUE:
                cut[f"header {known.lower()}"], value = len(value), value[:VALUE]  # noqa: PLW2901
            pairs.append((name, value))
            room -= 144 + len(name) + len(value)
        if left_out:
            cut["headers"] = left_out
    texts = [getattr(facts, name) for name in ("address", "sni", "path", "host", "origin")]
    return facts, pairs, 1024 + weigh(pairs, (*texts, request_id), 1 << 20) + (0 if facts.hello is None else VALUE)  # type: ignore[attr-defined]


def line_of(entry: Entry, worker: str, pseudonyms: Pseudonyms | None, level: int) -> tuple[bytes, int]:
    """(the line of an entry, the level of LEVELS at which it fits LINE bytes), from `level` on."""
    while True:
        text = encode(members(entry, worker, pseudonyms, *LEVELS[level]))
        text = ODD.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        data = text.encode("utf-8", "backslashreplace")
        if len(data) <= LINE or level + 1 == len(LEVELS):
            return data, level
        level += 1


def members(
    entry: Entry, worker: str, pseudonyms: Pseudonyms | None, value: int, room: int, hello_bytes: int, ids: int
) -> dict[str, Any]:
    """The members of a line, none longer than these limits."""
    decision = entry.decision
    hidden = None if pseudonyms is None else pseudonyms.of(entry.wall)
    ban, fingerprint = decision.ban, decision.fingerprint
    if hidden is not None:
        ban, fingerprint = hidden(ban), hidden(fingerprint)
    cut: dict[str, int] = dict(getattr(decision, "cut", ()))

    def short(name: str, text: str | None) -> str | None:
        if text is not None and len(text) > value:
            cut.setdefault(name, len(text))
            return text[:value]
        return text

    signals = signals_of(decision, entry.headers, hidden, short, room, hello_bytes, cut)
    reason, request_id = short("reason", decision.reason), short("request", entry.request_id)
    listed = {name: getattr(decision, name) for name in ("shadow", "logged", "share_shadow", "record_shadow")}
    for name, found in listed.items():
        if len(found) > ids:
            cut[name] = len(found)
    if cut:
        signals["cut"] = cut
    shown = {"reason": reason, "ban": ban, "fingerprint": fingerprint}
    shown |= {name: found[:ids] for name, found in listed.items()}
    return {
        "v": VERSION,
        "kind": "decision",
        "id": f"{worker}{entry.number:x}",
        "request": request_id,
        "time": iso(entry.wall),
        "now": entry.now,
        "pid": os.getpid(),
        **{name: shown[name] if name in shown else getattr(decision, name) for name in DECIDED},
        "outcome": entry.outcome,
        "ruleset": decision.compiled.content_hash,
        "sampled": entry.weight,
        "pseudonyms": None if hidden is None else iso(entry.wall)[:10],
        "signals": signals,
    }


class Pseudonyms:
    """Keyed hashes of client data, with a key of its own for each UTC day."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, person=b"gobanfast-log").digest()
        self._day, self._day_key = "", b""

    def of(self, wall: float) -> Callable[[str | None], str | None]:
        """The function that hides a text written at `wall`."""
        day = iso(wall)[:10]
        if day != self._day:
            self._day, self._day_key = day, hashlib.blake2b(day.encode(), key=self._key).digest()
        return self._hide

    def _hide(self, text: str | None) -> str | None:
        if text is None:
            return None
        return (
            "p:" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._day_key, digest_size=12).hexdigest()
        )


def iso(wall: float) -> str:
    """UTC, to the microsecond."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
