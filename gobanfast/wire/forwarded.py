"""Forwarding headers: hops of X-Forwarded-For and Forwarded from the right, addresses with ports, X-Forwarded-Proto.

Sources: RFC 7239 (Forwarded), RFC 9110 section 5.6 (lists, tokens, quoted strings).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from gobanfast._core.address import format_address, parse_address

SCHEMES = frozenset({"http", "https", "ws", "wss"})
WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
QUOTED = r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*)"'
PAIR = re.compile(rf"({WORD})=(?:({WORD})|{QUOTED})", re.ASCII)
OBFUSCATED = re.compile(r"_[A-Za-z0-9._-]+", re.ASCII)
PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
LINE_LIMIT = 8192  # bytes of a chain that are read: of X-Forwarded-For the last ones, a longer Forwarded is malformed
CUT = "?"  # makes what is left of the element that was cut no address
SHOWN_LIMIT = 80  # characters of a malformed hop that are kept for the log


class Hop(NamedTuple):
    """One element of a chain: `address` None and `known` True is one that cannot be read."""

    text: str
    address: str | None = None
    port: int | None = None
    scheme: str | None = None
    known: bool = True


def quoted(text: str) -> str:
    """A hop that cannot be read, fit for a log and surely no address."""
    return f"hop {text[:SHOWN_LIMIT]!r}"


def near_client(value: str) -> str | None:
    """The address at the right end of X-Forwarded-For, if it stands there without a port: the common case, fast."""
    packed = parse_address(value[value.rfind(",") + 1 :].strip(" \t"))
    return None if packed is None else format_address(packed)


def read_node(text: str, *, bare: bool = True) -> Hop:
    """An address with or without port and brackets, `unknown`, or an obfuscated name.

    Args:
        bare: IPv6 may come without brackets (RFC 7239 asks for them, X-Forwarded-For has no rules).
    """
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            return Hop(quoted(text))
        port = rest
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        port = ":" + port
    elif ":" in text and not bare:
        return Hop(quoted(text))
    number = read_port(port[1:]) if port else None
    if port and number is None and not OBFUSCATED.fullmatch(port, 1):
        return Hop(quoted(text))
    packed = parse_address(host)
    if packed is not None:
        return Hop(text, format_address(packed), number)
    if host.lower() == "unknown" or OBFUSCATED.fullmatch(host):
        return Hop(text, known=False)
    return Hop(quoted(text))


def read_port(text: str) -> int | None:
    return int(text) if PORT.fullmatch(text) and int(text) <= 0xFFFF else None


def read_for(value: str) -> Iterator[Hop]:
    """The hops of X-Forwarded-For, from the right; empty elements are none."""
    if len(value) > LINE_LIMIT:
        value = CUT + value[-LINE_LIMIT:]
    for element in reversed(value.split(",")):
        text = element.strip(" \t")
        if text:
            yield read_node(text)


def read_forwarded(value: str) -> Iterator[Hop]:
    """The hops of Forwarded, from the right. One element that breaks the grammar breaks the line: a quote left open
    by the client would take in what the proxy appended."""
    elements = split_forwarded(value) if len(value) <= LINE_LIMIT else None
    if elements is None:
        yield Hop(quoted(value))
        return
    for element in reversed(elements):
        node = element.get("for")
        scheme = element.get("proto", "").lower()
        hop = Hop("", known=False) if node is None else read_node(node, bare=False)
        yield hop._replace(scheme=scheme if scheme in SCHEMES else None)


def split_forwarded(value: str) -> list[dict[str, str]] | None:
    """Parameters of each element, names in lower case; None if the grammar or the rule "once" is broken."""
    elements: list[dict[str, str]] = []
    current: dict[str, str] = {}
    at = 0
    expect_pair = True
    while at < len(value):
        character = value[at]
        if character in " \t":
            at += 1
        elif character == ",":
            if current:
                elements.append(current)
            current, expect_pair = {}, True
            at += 1
        elif character == ";":
            expect_pair = True
            at += 1
        else:
            pair = PAIR.match(value, at) if expect_pair else None
            if pair is None:
                return None
            name = pair[1].lower()
            if name in current:
                return None
            current[name] = pair[2] if pair[3] is None else re.sub(r"\\(.)", r"\1", pair[3])
            expect_pair = False
            at = pair.end()
    if current:
        elements.append(current)
    return elements


def scheme_of(proto: str, chain: str, hops: int) -> str | None:
    """Scheme in X-Forwarded-Proto: one value, or of one for each hop the client's."""
    values = [value.strip(" \t").lower() for value in proto.split(",", 64)]
    if len(set(values)) == 1:
        value = values[0]
    elif len(values) == chain.count(",") + 1:
        value = values[-1 - hops] if hops < len(values) else values[0]
    else:
        return None
    return value if value in SCHEMES else None
