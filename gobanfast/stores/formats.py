"""Import and export formats of bans: JSON lines, plain keys, fail2ban, CrowdSec."""

from __future__ import annotations

import ast
import csv
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from gobanfast._errors import FormatError, Problem
from gobanfast._values import parse_duration
from gobanfast.bans import DEFAULT_DURATION, Ban, ban_key, too_wide, without_host_bits
from gobanfast.stores.codec import decode_ban, encode_ban, in_force

SQLITE_MAGIC = b"SQLite format 3\0"
SHOWN = 1000  # problems that are kept; more are counted
_DURATION = re.compile(r"(-?)((?:[0-9.]+(?:ns|us|\u00b5s|ms|s|m|h|d))+)")
_BANIP = re.compile(r"(?P<key>\S+)\s+(?P<since>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \+ (?P<seconds>-?\d+) = ")
_JAIL = re.compile(r"Status for the jail: (\S+)")
_LISTED = re.compile(r"Banned IP list:\s*(.*)")


@dataclass
class Imported:
    """How to read a list, and what reading it came to. `skipped` counts entries that are no bans (captchas, simulated,
    expired).

    `lasts` is for how many seconds those are banned of whom the list does not say until when; None: for good. `wide`
    True takes keys that keep out more than clients, which are refused otherwise: see `gobanfast.bans.too_wide`.
    """

    lasts: float | None = parse_duration(DEFAULT_DURATION)
    wide: bool = False
    bans: int = 0
    skipped: int = 0
    wrong: int = 0
    problems: list[Problem] = field(default_factory=list)

    def key(self, text: str) -> str:
        """The canonical key; ValueError for one that is none, or wide."""
        key = ban_key(text)
        if not self.wide and (problem := too_wide(key)) is not None:
            raise ValueError(f"{problem}; if that is meant, say --wide")
        return key

    def end(self, now: float) -> float | None:
        """When a ban ends of which the list does not say it."""
        return None if self.lasts is None else now + self.lasts

    def refuse(self, source: str, line: int, message: str) -> None:
        """Notes an entry that cannot be used."""
        self.wrong += 1
        if len(self.problems) < SHOWN:
            self.problems.append(Problem(source, line, 1, message))


def read_bans(path: Path, form: str, found: Imported, *, now: float) -> Iterator[Ban]:
    """The bans of a file that are in force at `now`; counts into `found`, which also gets what cannot be read.

    Args:
        form: of READERS, or "auto": by what the file begins with.
    Raises:
        ValueError: another format. FormatError: with "auto", a file that is no list of any.
        OSError: the file cannot be read.
    Cost: 100,000 bans a second and more.
    """
    if form == "auto":
        form = guess(path)
    reader = READERS.get(form)
    if reader is None:
        raise ValueError(f"format {form!r} is not one of auto, {', '.join(READERS)}")
    for ban in reader(path, found, now):
        if in_force(ban, now):
            found.bans += 1
            yield ban
        else:
            found.skipped += 1


def write_bans(bans: Iterable[Ban], to: TextIO, form: str, *, now: float) -> int:
    """Writes bans that are in force at `now`; how many.

    Raises:
        ValueError: another format than jsonl, plain or crowdsec.
    """
    if form not in WRITERS:
        raise ValueError(f"format {form!r} is not one of {', '.join(WRITERS)}")
    written = 0
    if form == "crowdsec":
        to.write("[")
    for ban in bans:
        if not in_force(ban, now):
            continue
        text = WRITERS[form](ban, now)
        if text is not None:
            to.write((",\n" if written else "\n") + text if form == "crowdsec" else text + "\n")
            written += 1
    if form == "crowdsec":
        to.write("\n]\n")
    return written


def guess(path: Path) -> str:
    """The format of a list by its first bytes. FormatError for what is packed, or neither text nor a database."""
    with path.open("rb") as file:
        head = file.read(4096)
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if head.startswith(SQLITE_MAGIC) or text.startswith(("Status for the jail", "[{'")) or _BANIP.match(text):
        return "fail2ban"
    if text.startswith(("[", '{"new"', '{"deleted"', "id,source,ip,")) or text.strip() == "null":
        return "crowdsec"
    if head.startswith(b"\x1f\x8b") or b"\0" in head:
        what = (
            "it is packed by gzip; unpack it first" if head.startswith(b"\x1f\x8b") else "it is no text and no database"
        )
        raise FormatError(str(path), 0, what)
    return "jsonl" if text.startswith("{") else "plain"


# ---- readers: each gives a ban for each entry it understands


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                yield number, text


def _read_jsonl(path: Path, found: Imported, now: float) -> Iterator[Ban]:
    source = str(path)
    for number, text in _lines(path):
        try:
            ban = decode_ban(text)
            key = found.key(ban.key)
            ends = ban.expires if ban.expires is not None or "expires" in json.loads(text) else found.end(now)
        except ValueError as error:
            found.refuse(source, number, str(error))
            continue
        yield Ban(key, ban.reason, ban.rule, ban.created, ends, ban.count, ban.by)


def _read_plain(path: Path, found: Imported, now: float) -> Iterator[Ban]:
    source = str(path)
    for number, text in _lines(path):
        word = text.partition("#")[0].partition(";")[0].strip()
        if not word:
            continue
        try:
            yield Ban(found.key(word), "", None, now, found.end(now), 1, "import")
        except ValueError as error:
            found.refuse(source, number, str(error))


def _read_fail2ban(path: Path, found: Imported, now: float) -> Iterator[Ban]:
    """Its database, or what `fail2ban-client` prints: `banned`, `status JAIL`, `get JAIL banip --with-time`."""
    with path.open("rb") as file:
        if file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC:
            yield from _read_fail2ban_database(path, found)
            return
    source, jail = str(path), ""
    for number, text in _lines(path):
        if match := _JAIL.search(text):
            jail = match[1]
        elif match := _LISTED.search(text):
            for word in match[1].split():
                yield from _fail2ban(word, jail, now, found.end(now), 1, found, source, number)
        elif match := _BANIP.match(text):
            since = datetime.strptime(match["since"], "%Y-%m-%d %H:%M:%S").astimezone().timestamp()
            seconds = float(match["seconds"])
            ends = None if seconds < 0 else since + seconds
            yield from _fail2ban(match["key"], jail, since, ends, 1, found, source, number)
        elif text.startswith("["):
            try:
                listed = [(name, words) for jails in ast.literal_eval(text) for name, words in jails.items()]
            except (ValueError, SyntaxError, AttributeError, TypeError):
                found.refuse(source, number, f"{text[:80]!r} is not what `fail2ban-client banned` prints")
                continue
            for name, words in listed:
                for word in words:
                    yield from _fail2ban(str(word), str(name), now, found.end(now), 1, found, source, number)


def _read_fail2ban_database(path: Path, found: Imported) -> Iterator[Ban]:
    source = str(path)
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        try:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
            table = "bips" if "bips" in tables else "bans"
            columns = {column for _, column, *_ in db.execute(f"PRAGMA table_info({table})")}
            if "bantime" not in columns:  # before 0.11: how long a ban lasts is in the configuration alone
                yield from _read_old_fail2ban(db, found, source)
                return
            rows = db.execute(f"SELECT ip, jail, timeofban, bantime, bancount FROM {table}")  # noqa: S608 - of the two
            for number, (word, jail, since, seconds, count) in enumerate(rows, 1):
                ends = None if seconds < 0 else float(since) + seconds
                yield from _fail2ban(str(word), str(jail), float(since), ends, int(count), found, source, number)
        except (sqlite3.Error, TypeError, ValueError) as error:
            found.refuse(source, 0, f"fail2ban database cannot be read: {error}")


def _read_old_fail2ban(db: sqlite3.Connection, found: Imported, source: str) -> Iterator[Ban]:
    """The latest ban of each address in a database before 0.11; it ends when the list's default says, from then on."""
    rows = db.execute("SELECT ip, jail, MAX(timeofban), COUNT(*) FROM bans GROUP BY ip, jail")
    for number, (word, jail, since, count) in enumerate(rows, 1):
        yield from _fail2ban(
            str(word), str(jail), float(since), found.end(float(since)), int(count), found, source, number
        )


def _fail2ban(
    word: str, jail: str, since: float, ends: float | None, count: int, found: Imported, source: str, line: int
) -> Iterator[Ban]:
    try:
        key = found.key(word)
    except ValueError as error:
        found.refuse(source, line, str(error))
        return
    yield Ban(key, f"fail2ban {jail}".rstrip(), None, since, ends, max(1, count), "import")


def _read_crowdsec(path: Path, found: Imported, now: float) -> Iterator[Ban]:
    """`cscli decisions list -o json` (alerts with decisions) or `-o raw`, a list, or `/v1/decisions/stream`."""
    source = str(path)
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        if file.readline().startswith("id,source,ip,"):
            yield from _read_crowdsec_raw(file, source, found, now)
            return
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        found.refuse(source, getattr(error, "lineno", 0), f"not JSON: {error}")
        return
    if isinstance(data, dict):
        data = data.get("new")
    for number, entry in enumerate(data or (), 1):
        decisions = entry.get("decisions") if isinstance(entry, dict) and "decisions" in entry else [entry]
        for decision in decisions or ():
            try:
                ban = _crowdsec_ban(decision, now, found)
            except ValueError as error:
                found.refuse(source, 0, f"entry {number}: {error}")
                continue
            if ban is None:
                found.skipped += 1
            else:
                yield ban


def _read_crowdsec_raw(file: TextIO, source: str, found: Imported, now: float) -> Iterator[Ban]:
    """Lines of `cscli decisions list -o raw`: id,source,ip,reason,action,country,as,events_count,expiration,..."""
    for number, row in enumerate(csv.reader(file), 2):
        if not row:
            continue
        scope, colon, value = row[2].partition(":") if len(row) > 8 else ("", "", "")
        simulated = len(row) > 9 and row[9] == "true"
        kind, duration, reason = (row[4], row[8], row[3]) if colon else ("", "", "")
        decision = {"scope": scope, "value": value, "type": kind, "duration": duration, "reason": reason,
                    "simulated": simulated}  # fmt: skip
        try:
            if not colon:
                raise ValueError(f"row {','.join(row)[:80]!r} is none of cscli's")
            ban = _crowdsec_ban(decision, now, found)
        except ValueError as error:
            found.refuse(source, number, str(error))
            continue
        if ban is None:
            found.skipped += 1
        else:
            yield ban


def _crowdsec_ban(decision: Any, now: float, found: Imported) -> Ban | None:
    """The ban of a decision; None for one that is simulated, of another type, or of a country."""
    if not isinstance(decision, dict) or not isinstance(decision.get("value"), str):
        raise ValueError(f"decision {str(decision)[:80]!r} has no value")
    if decision.get("simulated") or str(decision.get("type", "ban")).lower() != "ban":
        return None
    value, scope = decision["value"], str(decision.get("scope", "ip")).lower()
    if scope == "as":
        value = f"AS{value.upper().removeprefix('AS')}"
    elif scope == "range":
        value = without_host_bits(value)
    elif scope == "country":
        return None  # no key stands for one
    elif scope != "ip":
        raise ValueError(f"scope {scope!r} of {value!r} is not one of ip, range, as")
    until, duration = decision.get("until"), decision.get("duration")
    ends: float | None
    if until:
        try:
            ends = datetime.fromisoformat(str(until)).astimezone(UTC).timestamp()
        except ValueError:
            raise ValueError(f"until {until!r} of {value!r} is not an ISO 8601 time") from None
    elif duration is None:
        ends = found.end(now)
    else:
        match = _DURATION.fullmatch(str(duration))
        if match is None:
            raise ValueError(f"duration {duration!r} of {value!r} is not valid; write it like 4h or 3h59m10.5s")
        ends = now + (-1 if match[1] else 1) * (_seconds(match[2]))
    reason = decision.get("scenario") or decision.get("reason") or "crowdsec"
    return Ban(found.key(value), str(reason), None, now, ends, 1, "import")


def _seconds(duration: str) -> float:
    try:
        return parse_duration(duration) or 0.0
    except ValueError:
        return 0.0  # 0s: over


READERS: dict[str, Callable[[Path, Imported, float], Iterator[Ban]]] = {
    "jsonl": _read_jsonl,
    "plain": _read_plain,
    "fail2ban": _read_fail2ban,
    "crowdsec": _read_crowdsec,
}


# ---- writers: the text of a ban, or None for one that the format cannot say


def _write_crowdsec(ban: Ban, now: float) -> str | None:
    if ban.key.startswith(("gh2:", "uid:")):
        return None
    scope, value = ("range" if "/" in ban.key else "ip"), ban.key
    if ban.key.startswith("AS"):
        scope, value = "as", ban.key[2:]
    seconds = 100 * 366 * 86400 if ban.expires is None else max(1, round(ban.expires - now))
    duration = f"{seconds // 3600}h{seconds // 60 % 60}m{seconds % 60}s"
    entry = {"duration": duration, "reason": ban.reason or ban.rule or "gobanfast", "scope": scope, "type": "ban"}
    return json.dumps({**entry, "value": value})


WRITERS: dict[str, Callable[[Ban, float], str | None]] = {
    "jsonl": lambda ban, now: encode_ban(ban),  # noqa: ARG005
    "plain": lambda ban, now: ban.key,  # noqa: ARG005
    "crowdsec": _write_crowdsec,
}
