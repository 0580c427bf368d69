"""A ban as stores keep it: one line of JSON with a version, under a name that people can read."""

from __future__ import annotations

import json
import math

from gobanfast.bans import Ban

VERSION = 1
NUMBERS = (float, int)

_text = json.JSONEncoder(ensure_ascii=False).encode
_decode = json.JSONDecoder().raw_decode


def encode_ban(ban: Ban) -> str:
    """The JSON object of a ban, version 1: `v key reason rule created expires count by`; times in Unix seconds.

    Raises:
        ValueError: a time that is no finite number.
    """
    created, expires = ban.created, ban.expires
    if not math.isfinite(created) or (expires is not None and not math.isfinite(expires)):
        raise ValueError(f"ban of {ban.key!r} has created={created!r}, expires={expires!r}; write numbers, or None")
    # Written out, because a dict and the general encoder take three times as long, and imports are long.
    return (
        f'{{"v":{VERSION},"key":{_text(ban.key)},"reason":{_text(ban.reason)},'
        f'"rule":{"null" if ban.rule is None else _text(ban.rule)},"created":{created!r},'
        f'"expires":{"null" if expires is None else repr(expires)},"count":{ban.count},"by":{_text(ban.by)}}}'
    )


def decode_ban(text: str) -> Ban:
    """The ban in a record. Members that version 1 does not have are passed over.

    Raises:
        ValueError: not a record, or one of a later version; says what is wrong.
    """
    try:
        found, _ = _decode(text)
    except ValueError as error:
        raise ValueError(f"record {text[:80]!r} is not JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("key"), str):
        raise ValueError(f"record {text[:80]!r} has no key; write an object with v, key and expires")
    get = found.get
    if get("v", VERSION) != VERSION:
        raise ValueError(f"record of {found['key']!r} has version {found['v']!r}; this release reads {VERSION}")
    created, expires, count = get("created", 0.0), get("expires"), get("count", 1)
    for name, value in (("created", created), ("expires", 0.0 if expires is None else expires), ("count", count)):
        if type(value) not in NUMBERS or not math.isfinite(value):
            raise ValueError(f"record of {found['key']!r} has {name} {value!r}; write a number")
    reason, rule, by = get("reason") or "", get("rule"), get("by") or "store"
    for name, value in (("reason", reason), ("rule", rule or ""), ("by", by)):
        if type(value) is not str:
            raise ValueError(f"record of {found['key']!r} has {name} {value!r}; write a text or null")
    return Ban(found["key"], reason, rule, created, expires, int(count), by)


def store_name(key: str) -> str:
    """The name of a ban key in a store: `ban:<ip>`, `ban:net:<prefix>`, `ban:asn:<n>`, `ban:fp:<id>[@<client>]`."""
    if key.startswith("gh1:"):
        return f"ban:fp:{key}"
    if key.startswith("AS"):
        return f"ban:asn:{key[2:]}"
    return f"ban:net:{key}" if "/" in key else f"ban:{key}"


def in_force(ban: Ban, now: float) -> bool:
    """Whether the ban has not expired at `now`, in Unix seconds."""
    return ban.expires is None or ban.expires > now


def later(ban: Ban, other: Ban) -> bool:
    """Whether `ban` lasts longer than `other`."""
    return other.expires is not None and (ban.expires is None or ban.expires > other.expires)
