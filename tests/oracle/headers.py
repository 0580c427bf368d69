"""What headers say and what their fingerprint is, step by step from the definition."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass, field

import xxhash

from oracle import xxh3

FIELDS = (
    "user-agent", "accept", "accept-language", "accept-encoding", "sec-ch-ua", "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
)  # fmt: skip
PRESENCE = (
    "user-agent", "accept", "accept-language", "accept-encoding", "accept-charset", "sec-ch-ua", "sec-ch-ua-mobile",
    "sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-gpc", "dnt", "save-data",
    "upgrade-insecure-requests", "from",
)  # fmt: skip
LEFT_OUT = re.compile(
    r"x-.*|cf-.*|cloudfront-.*|fastly-.*|fly-.*|akamai-.*|if-.*|proxy-.*|access-control-request-.*"
    r"|sec-ch-(?!ua$|ua-mobile$|ua-platform$).*|sec-websocket-.*"
    r"|host|cookie2?|connection|keep-alive|te|trailer|transfer-encoding|upgrade|http2-settings|expect|priority"
    r"|early-data|alt-used|max-forwards|content-(length|type|encoding)|authorization|referer|origin|range"
    r"|cache-control|pragma|date|sec-fetch-user|(sec-)?purpose|last-event-id|idempotency-key"
    r"|(request|correlation)-id|service-worker(-navigation-preload)?|device-memory|dpr|(viewport-)?width|downlink"
    r"|ect|rtt|forwarded|via|(true-)?client-ip|cdn-loop|traceparent|tracestate|baggage|uber-trace-id|b3"
    r"|sentry-trace",
    re.DOTALL,
)
PSEUDO = (":authority", ":method", ":path", ":scheme", ":protocol")
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass
class Read:
    """What the pairs come to; `problem` is a word for the first thing that is wrong, or None."""

    problem: str | None = None
    values: dict[str, list[bytes]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)  # in order, pseudo headers left out

    def value(self, name: str) -> bytes | None:
        """Repeated values as one."""
        found = self.values.get(name)
        return None if found is None else (b"; " if name == "cookie" else b", ").join(found)


def read(pairs: list[tuple[bytes, bytes]], http: str | None = None) -> Read:
    """The pairs one by one; nothing is looked at behind the first problem."""
    result, seen = Read(), 0
    if len(pairs) > 256:
        return Read("many")
    for raw, value in pairs:
        seen += len(raw) + len(value)
        if seen > 65536:
            return Read("long")
        if CONTROL.search(value):
            return Read("value")
        name = raw.lower().decode("latin-1")
        pseudo = name.startswith(":")
        if not TOKEN.fullmatch(raw[1:] if pseudo else raw):
            return Read("name")
        if raw != raw.lower() and http in ("2", "3"):
            return Read("case")
        if pseudo and (name not in PSEUDO or name in result.values or result.names or http in ("1.0", "1.1")):
            return Read("pseudo")
        if not pseudo:
            result.names.append(name)
        result.values.setdefault(name, []).append(value.strip(b" \t"))
    hosts = [value.lower() for value in result.values.get("host", [])]
    authority = result.values.get(":authority")
    if len(hosts) > 1 or (authority and hosts and hosts[0] != authority[0].lower()):
        return Read("host")
    if authority:
        result.values["host"] = authority
    return result


def canonical(found: Read, *, order: bool = True, fields: tuple[str, ...] = FIELDS) -> bytes:
    """The bytes whose XXH3-128 is the fingerprint."""
    tag = xxhash.xxh3_64_intdigest("".join(name + "\n" for name in fields).encode()) & 0xFFFFFFFF
    parts = [b"gh1", bytes([order]), struct.pack("<I", tag)]
    if order:
        parts += [name.encode() + b"\n" for name in found.names if not LEFT_OUT.fullmatch(name)]
    present = sum(1 << bit for bit, name in enumerate(PRESENCE) if name in found.values)
    parts += [b"\n", struct.pack("<I", present)]
    for name in fields:
        value = found.value(name)
        parts.append(struct.pack("<I", 0xFFFFFFFF) if value is None else struct.pack("<I", len(value)) + value)
    return b"".join(parts)


def gh1(
    pairs: list[tuple[bytes, bytes]],
    *,
    order: bool = True,
    fields: tuple[str, ...] = FIELDS,
    key: bytes | None = None,
    http: str | None = None,
) -> str | None:
    """The fingerprint's text, None when there is a problem."""
    found = read(pairs, http)
    if found.problem is not None:
        return None
    data = canonical(found, order=order, fields=fields)
    if key is None:
        return f"gh1:{xxhash.xxh3_128_hexdigest(data)}"
    secret = hashlib.shake_256(b"gobanfast gh1\0" + key).digest(192)
    return f"gh1:{xxh3.xxh3_128(data, 0, secret):032x}"


def environ(pairs: list[tuple[bytes, bytes]]) -> dict[str, object]:
    """What a WSGI server makes of them (names with an underscore are dropped, repeated values joined)."""
    found: dict[str, object] = {"wsgi.version": (1, 0), "REMOTE_ADDR": "192.0.2.1", "CONTENT_LENGTH": ""}
    for name, value in pairs:
        text = name.decode("latin-1").upper().replace("-", "_")
        key = text if text in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{text}"
        parts = [str(found[key])] if key in found and key not in ("CONTENT_TYPE", "CONTENT_LENGTH") else []
        found[key] = ("; " if key == "HTTP_COOKIE" else ", ").join([*parts, value.strip(b" \t").decode("latin-1")])
    return found


def ua_family(agent: str) -> str:
    """The family of a user agent: the first of these that some product token is of."""
    tokens = re.findall(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]*)/", agent) or re.findall(
        r"[!#$%&'*+\-.^_`|~0-9A-Za-z]*\Z", agent
    )
    lowered = [token.lower() for token in tokens]
    if any(
        re.search(r"(bot|crawler|spider|slurp|externalhit|externalagent|scrapy|headlesschrome)$", t) for t in lowered
    ):
        return "bot"
    for family, names in {
        "edge": ("edg", "edge", "edga", "edgios"), "opera": ("opr", "opera"), "firefox": ("firefox", "fxios"),
        "chrome": ("chrome", "chromium", "crios"), "safari": ("safari",), "curl": ("curl", "libcurl"),
        "wget": ("wget",),
        "python": ("python", "python-requests", "python-urllib", "python-httpx", "aiohttp", "urllib3"),
        "go": ("go-http-client",), "java": ("java", "okhttp", "apache-httpclient", "java-http-client"),
    }.items():  # fmt: skip
        if any(token in names for token in lowered):
            return family
    return "other"
