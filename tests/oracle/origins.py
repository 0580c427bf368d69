"""Origins and hosts, read and matched one pattern at a time by the words of their grammars."""

from __future__ import annotations

import ipaddress
import re

DEFAULT = {"http": "80", "https": "443", "ws": "80", "wss": "443", "ftp": "21"}
LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"


def authority(text: str) -> tuple[str, str] | None:
    """(host, port) of a lower-case authority with canonical addresses; None when it is none."""
    found = re.fullmatch(r"(\[[0-9a-f:]+\]|[^:\[\]]+)(?::([1-9][0-9]{0,4}))?", text)
    if found is None or int(found[2] or 0) > 65535:
        return None
    host = found[1]
    if host[0] == "[":
        number = int(ipaddress.IPv6Address(host[1:-1])) if valid(host[1:-1], 6) else None
        return (host, found[2] or "") if number is not None and host == f"[{ipv6(number)}]" else None
    last = host.removesuffix(".").rpartition(".")[2]
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):
        return (host, found[2] or "") if valid(host, 4) else None
    name = host.removesuffix(".")
    good = len(name) <= 253 and all(re.fullmatch(LABEL, label, re.ASCII) for label in name.split("."))
    return (host, found[2] or "") if good else None


def valid(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def ipv6(number: int) -> str:
    if number >> 32 == 0xFFFF:
        return f"::ffff:{number >> 16 & 0xFFFF:x}:{number & 0xFFFF:x}"
    return str(ipaddress.IPv6Address(number))


def origin(text: str) -> tuple[str, str, str] | None:
    """(scheme, host, port) of a serialized origin; None when it is none. `null` has no scheme."""
    scheme, found, rest = text.partition("://")
    if text == "null":
        return "", "", ""
    parts = authority(rest) if found and re.fullmatch(r"[a-z][a-z0-9+.-]{0,62}", scheme, re.ASCII) else None
    return None if parts is None or parts[1] == DEFAULT.get(scheme) else (scheme, *parts)


def host(text: str, default_port: int) -> tuple[str, str] | None:
    """(host, port) of a Host header; the default port is none. IPv6 in any spelling."""
    text = text.lower() if text.isascii() else text
    if (found := re.match(r"\[([0-9a-f:.]+)\]", text)) and valid(found[1], 6):
        text = f"[{ipv6(int(ipaddress.IPv6Address(found[1])))}]{text[found.end() :]}"
    parts = authority(text)
    ports = {str(default_port)} if default_port else {"80", "443"}
    return parts if parts is None or parts[1] not in ports else (parts[0], "")


def covers(pattern: str, host: str, port: str) -> bool:
    """Whether the pattern (without a scheme) covers a host and port that were read."""
    rest, wanted = re.fullmatch(r"(\[.*\]|[^:]*)(?::(.*))?", pattern).groups()  # type: ignore[union-attr]
    if wanted != "*" and (wanted or "") != port:
        return False
    above, _, below = rest.partition(".")
    if above not in ("*", "**"):
        return rest == host
    left = host.removesuffix("." + below)
    return left != host and (above == "**" or "." not in left)


def matches(pattern: str, text: str) -> bool | None:
    """Whether an origin pattern covers an origin; None when the text is no origin."""
    parts = origin(text)
    if parts is None:
        return None
    if pattern == "*":
        return True
    scheme, _, rest = pattern.partition("://")
    return scheme == parts[0] and covers(rest, parts[1], parts[2])
