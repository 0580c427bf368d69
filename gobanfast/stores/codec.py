"""Codec of stored bans and labels: one versioned line of JSON under a readable name."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import replace

from gobanfast._core.enums import MAKERS
from gobanfast.bans import Ban, record_key

VERSION = 1
NUMBERS = (float, int)
MOST = 1e15  # seconds either way that a time may be
LONGEST_KEY = 128
LABELS = "label:"  # keys of the records of labels begin with it
QUIET = 60.0  # seconds between log lines about what is passed over

log = logging.getLogger("gobanfast.stores")
_encode = json.JSONEncoder(ensure_ascii=False).encode
_decode = json.JSONDecoder().raw_decode


def encode_ban(ban: Ban) -> str:
    """The JSON object of a ban, version 1: `v key reason rule created expires count by`; times in Unix seconds.

    Raises:
        ValueError: a time that is no finite number.
    """
    created, expires = ban.created, ban.expires
    if not math.isfinite(created) or (expires is not None and not math.isfinite(expires)):
        raise ValueError(f"ban of {ban.key!r} has created={created!r}, expires={expires!r}; write numbers, or None")
    if type(ban.count) is not int:
        raise ValueError(f"ban of {ban.key!r} has count={ban.count!r}; write a whole number")
    # Written out, because a dict and the general encoder take three times as long, and imports are long.
    return (
        f'{{"v":{VERSION},"key":{_text(ban.key)},"reason":{_text(ban.reason)},'
        f'"rule":{"null" if ban.rule is None else _text(ban.rule)},"created":{created!r},'
        f'"expires":{"null" if expires is None else repr(expires)},"count":{ban.count},"by":{_text(ban.by)}}}'
    )


def _text(text: str) -> str:
    """JSON of a text; halves of surrogate pairs, which no store takes, become question marks."""
    return _encode(text if text.isascii() else _whole(text))


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def decode_ban(text: str) -> Ban:
    """The ban in a record. Members that version 1 does not have are passed over.

    Raises:
        ValueError: not a record, or one of a later version; says what is wrong.
    """
    if not isinstance(text, str):
        raise ValueError(f"record {str(text)[:80]} is not text")
    try:
        found, _ = _decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"record {text[:80]!r} is not JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("key"), str):
        raise ValueError(f"record {text[:80]!r} has no key; write an object with v, key and expires")
    get = found.get
    if get("v", VERSION) != VERSION:
        raise ValueError(f"record of {found['key']!r} has version {found['v']!r}; this release reads {VERSION}")
    created, expires, count = get("created", 0.0), get("expires"), get("count", 1)
    for name, value in (("created", created), ("expires", 0.0 if expires is None else expires), ("count", count)):
        if type(value) not in NUMBERS or not -MOST <= value <= MOST:
            raise ValueError(f"record of {found['key']!r} has {name} {value!r}; write a number")
    reason, rule, by = get("reason") or "", get("rule"), get("by") or "store"
    for name, value in (("reason", reason), ("rule", rule or ""), ("by", by)):
        if type(value) is not str:
            raise ValueError(f"record of {found['key']!r} has {name} {value!r}; write a text or null")
    if not (reason.isascii() and (rule is None or rule.isascii())):
        reason, rule = _whole(reason), None if rule is None else _whole(rule)
    return Ban(found["key"], reason, rule, created, expires, int(count), by if by in MAKERS else "store")


def read_record(key: str, text: str) -> Ban:
    """The ban that is stored under `key`.

    Raises:
        ValueError: not a record, one of another key, or a key that is none.
    """
    ban = decode_ban(text)
    if ban.key != key:
        raise ValueError(f"record of {ban.key[:80]!r} stands in the place of {key[:80]!r}")
    check_key(key)
    return ban


def write_record(key: str, ban: Ban) -> str:
    """The record of a ban, fit to be read again.

    Raises:
        ValueError: a ban of another key, a key that is none, a time that is no number.
    """
    if ban.key != key:
        raise ValueError(f"ban of {ban.key[:80]!r} is to stand in the place of {key[:80]!r}")
    check_key(key)
    return encode_ban(ban)


def check_key(key: str) -> None:
    """Raises ValueError for a key that is none, of a ban or a label's record, or not in its one form."""
    if not isinstance(key, str) or len(key) > LONGEST_KEY:
        raise ValueError(f"ban key {str(key)[:80]!r} is not text of at most {LONGEST_KEY} characters")
    if (canonical := record_key(key)) != key:
        raise ValueError(f"ban key {key!r} is not in its one form; write {canonical}")


class PassedOver:
    """Counts what a store cannot read or take, record by record, and logs it: the first, then one line a minute."""

    def __init__(self, uri: str) -> None:
        self.uri, self.count = uri, 0
        self._told, self._again = 0, float("-inf")

    def note(self, what: object) -> None:
        """One more is passed over, because of `what`."""
        self.count += 1
        if time.monotonic() >= self._again:
            more = self.count - self._told - 1
            log.warning(
                "%s: passed over: %s%s", self.uri, what, f" (and {more} others since the last line)" if more else ""
            )
            self._told, self._again = self.count, time.monotonic() + QUIET


def store_name(key: str) -> str:
    """The name of a key in a store: `ban:<ip>`, `ban:net:<prefix>`, `ban:asn:<n>`, `ban:fp:<id>[@<client>]`,
    `ban:uid:<name>`; of a label the key of its record, `label:<word>:<key>`."""
    if key.startswith("label:"):
        return key
    if key.startswith("uid:"):
        return f"ban:{key}"
    if key.startswith("gh2:"):
        return f"ban:fp:{key}"
    if key.startswith("AS"):
        return f"ban:asn:{key[2:]}"
    return f"ban:net:{key}" if "/" in key else f"ban:{key}"


def key_of_name(name: str) -> str:
    """The key whose name in a store this is.

    Raises:
        ValueError: it is no such name.
    """
    rest = name.removeprefix("ban:")
    key = f"AS{rest[4:]}" if rest.startswith("asn:") else rest.removeprefix("net:").removeprefix("fp:")
    if rest.startswith(("uid:", "label:")):
        key = rest
    check_key(key)
    if store_name(key) != name:
        raise ValueError(f"name {name[:80]!r} is not {store_name(key)!r}")
    return key


def shifted(ban: Ban, seconds: float) -> Ban:
    """The ban with all its times `seconds` later."""
    if not seconds:
        return ban
    expires = None if ban.expires is None else ban.expires + seconds
    return replace(ban, created=ban.created + seconds, expires=expires)


def belongs(key: str, prefix: str) -> bool:
    """Whether a scan for `prefix` is about this key: labels are, where it begins with "label:"."""
    return key.startswith(prefix) and (prefix.startswith(LABELS) or not key.startswith(LABELS))


def in_force(ban: Ban, now: float) -> bool:
    """Whether the ban has not expired at `now`, in Unix seconds."""
    return ban.expires is None or ban.expires > now


def later(ban: Ban, other: Ban) -> bool:
    """Whether `ban` lasts longer than `other`."""
    return other.expires is not None and (ban.expires is None or ban.expires > other.expires)
