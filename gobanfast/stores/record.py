"""A ban as stores keep it: one line of JSON with a version, under a name that people can read."""

from __future__ import annotations

import json
import math
from typing import Any

from gobanfast.bans import Ban

VERSION = 1

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().raw_decode


def encode_ban(ban: Ban) -> str:
    """The JSON object of a ban, version 1: `v key reason rule created expires count by`; times in Unix seconds."""
    return _encode(
        {
            "v": VERSION,
            "key": ban.key,
            "reason": ban.reason,
            "rule": ban.rule,
            "created": ban.created,
            "expires": ban.expires,
            "count": ban.count,
            "by": ban.by,
        }
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
    if found.get("v", VERSION) != VERSION:
        raise ValueError(f"record of {found['key']!r} has version {found['v']!r}; this release reads {VERSION}")
    expires = found.get("expires")
    return Ban(
        found["key"],
        str(found.get("reason") or ""),
        _text(found, "rule"),
        _number(found, "created", 0.0),
        None if expires is None else _number(found, "expires", 0.0),
        int(_number(found, "count", 1)),
        _text(found, "by") or "store",
    )


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


def _text(found: dict[str, Any], member: str) -> str | None:
    value = found.get(member)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"record of {found['key']!r} has {member} {value!r}; write a text or null")
    return value


def _number(found: dict[str, Any], member: str, default: float) -> float:
    value = found.get(member, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"record of {found['key']!r} has {member} {value!r}; write a number")
    return value
