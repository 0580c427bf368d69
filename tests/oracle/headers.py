"""What headers say and what their fingerprint is, step by step from the definition."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass, field

import xxhash

from oracle import xxh3

FIELDS = ("user-agent", "accept-language", "accept-encoding")
PRESENCE = (
    "user-agent", "accept", "accept-language", "accept-encoding", "accept-charset", "sec-ch-ua", "sec-ch-ua-mobile",
    "sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-gpc", "dnt", "save-data",
    "upgrade-insecure-requests", "from", "cookie", "referer", "origin", "range", "sec-fetch-user", "content-type",
    "authorization", "upgrade",
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


def one_space(value: bytes) -> bytes:
    return re.sub(rb"[ \t]+", b" ", value)


def field_bytes(value: bytes | None) -> bytes:
    return struct.pack("<I", 0xFFFFFFFF) if value is None else struct.pack("<I", len(value)) + value


def browser_coding(value: bytes) -> bool:
    """Whether a browser sends this Accept-Encoding: gzip, deflate and newer ones; or nothing but identity."""
    codings = [item.split(b";")[0].strip(b" \t") for item in value.removesuffix(b",").split(b",")]
    if codings[0] == b"identity":
        return set(codings[1:]) <= {b"*"}
    return codings[:2] == [b"gzip", b"deflate"] and set(codings[2:]) <= {b"br", b"zstd", b"dcb", b"dcz"}


def client(found: Read, fields: tuple[str, ...] = FIELDS) -> bytes:
    """The bytes whose XXH3-128 is the fingerprint."""
    tag = xxhash.xxh3_64_intdigest("".join(name + "\n" for name in fields).encode()) & 0xFFFFFFFF
    browser = "accept-language" in found.values
    parts = [b"gh2", bytes([0 if browser else 1 + 2 * ("accept" in found.values)]), struct.pack("<I", tag)]
    for name in fields:
        value = found.value(name)
        if name == "accept-encoding" and browser and value is not None and browser_coding(value):
            parts.append(struct.pack("<I", 0xFFFFFFFE))
        else:
            parts.append(field_bytes(None if value is None else one_space(value)))
    return b"".join(parts)


def request(found: Read, *, order: bool = True, http: str | None = None) -> bytes:
    """The bytes whose XXH3-128 is the shape."""
    version = 0 if http is None else 2 if http.startswith("1") else 4
    parts = [b"gs1", bytes([order + version])]
    if order:
        kept = [name for name in found.names if not LEFT_OUT.fullmatch(name)]
        parts += [struct.pack("<I", xxhash.xxh3_64_intdigest(name.encode()) & 0xFFFFFFFF) for name in kept]
    present = sum(1 << bit for bit, name in enumerate(PRESENCE) if name in found.values)
    parts.append(struct.pack("<I", present))
    for name in ("accept", "accept-encoding"):
        value = found.value(name)
        parts.append(field_bytes(None if value is None else one_space(value)))
    return b"".join(parts)


def hashed(kind: str, data: bytes, key: bytes | None) -> str:
    if key is None:
        return f"{kind}:{xxhash.xxh3_128_hexdigest(data)}"
    return f"{kind}:{xxh3.xxh3_128(data, 0, hashlib.shake_256(b'gobanfast gh2' + bytes(1) + key).digest(192)):032x}"


def gh2(
    pairs: list[tuple[bytes, bytes]],
    *,
    fields: tuple[str, ...] = FIELDS,
    key: bytes | None = None,
    http: str | None = None,
) -> str | None:
    """The fingerprint's text, None when there is a problem."""
    found = read(pairs, http)
    return None if found.problem is not None else hashed("gh2", client(found, fields), key)


def gs1(
    pairs: list[tuple[bytes, bytes]], *, order: bool = True, key: bytes | None = None, http: str | None = None
) -> str | None:
    """The shape's text, None when there is a problem."""
    found = read(pairs, http)
    return None if found.problem is not None else hashed("gs1", request(found, order=order, http=http), key)


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
