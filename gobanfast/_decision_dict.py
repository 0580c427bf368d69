"""A decision as plain values: names of its members, its signals, headers as text, credentials hidden."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast._core.live_table import LiveTable

Headers = Sequence[Sequence[bytes]] | Mapping[str, Any]

SECRET = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token"})
NAME = 256  # characters of a header's name
DECIDED = (
    "action", "cause", "rule", "reason", "duration", "asn", "shadow", "logged", "ban", "expires", "score", "threshold",
    "coverage", "fingerprint", "shape", "share", "share_rule", "share_shadow", "preflight",
    "record", "record_rule", "record_shadow", "sampling_probability", "trace_id", "span_id", "trace_flags",
    "labels", "session",
)  # fmt: skip
"""What was decided: names of attributes, and of members of a line."""


def environ_pairs(environ: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Header names and values of a WSGI environ."""
    for name, value in environ.items():
        if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            yield name.removeprefix("HTTP_").replace("_", "-").lower(), str(value)


def dict_of(decision: Decision) -> dict[str, Any]:
    """The members of a line that are the decision's own, whole, as plain values: what `Decision.to_dict` returns."""
    headers: Any = getattr(decision.headers, "pairs", decision.headers)  # of PartialHeaders
    found = {name: getattr(decision, name) for name in DECIDED}
    signals = signals_of(decision, headers, None, lambda _, text: text, sys.maxsize, sys.maxsize, {})
    if signals["headers"] is not None:
        signals["headers"] = [list(pair) for pair in signals["headers"]]
    return {
        **{name: list(value) if isinstance(value, tuple) else value for name, value in found.items()},
        "ruleset": decision.compiled.content_hash,
        "signals": signals,
    }


def signals_of(
    decision: Any,
    headers: Headers | None,
    hidden: Callable[[str | None], str | None] | None,
    short: Callable[[str, str | None], str | None],
    room: int,
    hello_bytes: int,
    cut: dict[str, int],
) -> dict[str, Any]:
    """What the decision was made of; with pseudonyms, without what could name a client."""
    hello = decision.hello
    found: dict[str, Any] = {
        "address": short("address", decision.address) if hidden is None else hidden(decision.address),
        "sni": short("sni", decision.sni),
        "ja4": short("ja4", decision.ja4),
        "method": short("method", decision.method),
        "http": short("http", decision.http),
        "scheme": short("scheme", decision.scheme),
        "host": short("host", decision.host),
        "origin": short("origin", decision.origin),
    }
    if hidden is None:
        message = None if hello is None else hello.message
        if message is not None and len(message) > hello_bytes:
            cut["hello"], message = len(message), None
        found["hello"] = None if message is None else base64.b64encode(message).decode()
        found["path"] = short("path", decision.path)
        found["mount"] = short("mount", getattr(decision, "mount", None) or None)
        live = getattr(decision.compiled, "live", None) if hasattr(decision, "compiled") else None
        found["headers"] = None if headers is None else header_pairs(headers, short, room, cut, live)
        found["environ"] = getattr(decision, "environ", isinstance(headers, Mapping))
    return found


def header_pairs(
    headers: Headers, short: Callable[[str, str | None], str | None], room: int, cut: dict[str, int],
    live: LiveTable | None = None,
) -> list[tuple[str, str]]:  # fmt: skip
    """Names and values as text, a character for each byte, while there is room; `live` says where a session is."""
    secret = SECRET if live is None else SECRET.union(name.lower() for name in live.varies)
    pairs: list[tuple[str, str]] = []
    given: Iterable[Sequence[Any]] = environ_pairs(headers) if isinstance(headers, Mapping) else headers
    for pair in given:
        if len(pair[0]) > NAME:
            cut["header name"] = len(pair[0])
        name, value = [text if isinstance(text, str) else text.decode("latin-1") for text in (pair[0][:NAME], pair[1])]
        if live is not None and live.queries and name.lower() == "referer":
            value = value.partition("?")[0] + "?***" * ("?" in value)
        shown = "***" if name.lower() in secret else short(f"header {name.lower()}", value) or ""
        room -= len(name) + len(shown) + 8
        if room < 0:
            cut["headers"] = cut.get("headers", 0) + 1
            continue
        pairs.append((name, shown))
    return pairs
