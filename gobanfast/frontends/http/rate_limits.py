"""RateLimit header fields (draft-ietf-httpapi-ratelimit-headers), Retry-After, and the older X-RateLimit-* on request.

A client gets the fields of one limit: of the one that did not let it in, or else of the one with least left.
"""

from __future__ import annotations

import math
import time
from random import random
from typing import TYPE_CHECKING, Literal

from gobanfast.rules.settings import Limit, Surge

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast._core.limits import LimitState
    from gobanfast.rules.settings import Settings

Headers = list[tuple[bytes, bytes]]
When = Literal["refused", "all", "never"]

WHEN: tuple[When, ...] = ("refused", "all", "never")
FIELDS = (b"retry-after", b"ratelimit", b"ratelimit-policy")
OLD_FIELDS = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
JITTER = 0.1  # of the wait is added at random, so that those who wait do not come back at once


def limit_fields(state: LimitState, *, old: bool = False) -> Headers:
    """The fields that say where a client stands with a limit; none where only shadow limits are about it.

    Args:
        old: X-RateLimit-* beside them, with the reset in Unix seconds.
    """
    if state.id is None:
        return []
    left = 0 if state.over else state.left
    seconds = math.ceil(state.wait if state.over else state.reset)
    name = quoted(state.id)
    fields = [
        (b"ratelimit-policy", b"%s;q=%d;w=%d" % (name, state.limit, max(1, round(state.window)))),
        (b"ratelimit", b"%s;r=%d;t=%d" % (name, left, seconds)),
    ]
    if old:
        values = state.limit, left, math.ceil(time.time()) + seconds
        fields += [(field, b"%d" % value) for field, value in zip(OLD_FIELDS, values, strict=True)]
    return fields


def quoted(name: str) -> bytes:
    """A String of structured fields (RFC 9651), which has printable ASCII alone."""
    text = name.encode("ascii", "replace").replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"%s"' % text


def wait_of(decision: Decision, settings: Settings) -> int:
    """Whole seconds until a client that is over a limit may come again, jittered upwards.

    Args:
        settings: of the rules, for trackers: they have forgotten what they counted after a window.
    """
    if decision.limit is not None and decision.limit.over:
        wait = decision.limit.wait
    else:
        found = getattr(settings.trackers, decision.rule or "", None)
        wait = found.window if isinstance(found, Limit) else found.baseline / 10 if isinstance(found, Surge) else 60.0
    return max(1, math.ceil(wait + wait * JITTER * random()))


def exposed(fields: tuple[tuple[bytes, bytes], ...], old: bool) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of a grant, with which the page that asked can read those above, too."""
    names = b", ".join(FIELDS + (OLD_FIELDS if old else ()))
    made, found = [], False
    for name, value in fields:
        exposes = name == b"access-control-expose-headers"
        found = found or exposes
        made.append((name, b"%s, %s" % (value, names) if exposes and value != b"*" else value))
    if not found:
        made.append((b"access-control-expose-headers", names))
    return tuple(made)
