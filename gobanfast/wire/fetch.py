"""CORS protocol as a browser runs it: safelists, CORS-preflight fetch, CORS check, header names that a page may see.

Header lists are pairs of text, one a line, bytes as Latin-1 (the standard's isomorphic decoding). Names compare without
case. A step that fails is named as `gobanfast cors` shows it: `acao-missing`, `acao-mismatch`, `acac`, `status`,
`parse`, `method`, `header:<name>`.
Source: Fetch Standard (fetch.spec.whatwg.org), sections "Methods", "Headers", "CORS check", "CORS-preflight fetch" and
"HTTP extensions"; MIME Sniffing Standard, "Parsing a MIME type"; HTML Standard, "Server-sent events".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple
from urllib.parse import urlsplit

Pairs = Sequence[tuple[str, str]]

SAFELISTED_METHODS = frozenset({"GET", "HEAD", "POST"})
"""CORS-safelisted methods: no preflight because of them, no listing in Access-Control-Allow-Methods."""
FORBIDDEN_METHODS = frozenset({"CONNECT", "TRACE", "TRACK"})
"""Forbidden methods, in upper case; compared without case."""
NORMALIZED_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"})
"""Methods that a page may write in any case; others (`patch`) go out as written."""
FORBIDDEN_REQUEST_HEADERS = frozenset({
    "accept-charset", "accept-encoding", "access-control-request-headers", "access-control-request-method",
    "connection",
    "content-length", "cookie", "cookie2", "date", "dnt", "expect", "host", "keep-alive", "origin", "referer",
    "set-cookie",
    "te", "trailer", "transfer-encoding", "upgrade", "via",
})  # fmt: skip
"""Forbidden request-header names: a page's script cannot set them, nor any that begins with `proxy-` or `sec-`."""
METHOD_OVERRIDES = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})
"""Names that are forbidden when their value lists a forbidden method."""
SAFELISTED_RESPONSE_HEADERS = frozenset({
    "cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma",
})  # fmt: skip
"""CORS-safelisted response-header names: a page sees them without Access-Control-Expose-Headers."""
FORBIDDEN_RESPONSE_HEADERS = frozenset({"set-cookie", "set-cookie2"})
"""Forbidden response-header names: no script ever sees them."""
NON_WILDCARD_HEADERS = frozenset({"authorization"})
"""CORS non-wildcard request-header names: `*` in Access-Control-Allow-Headers does not cover them."""

VALUE_BYTES = 128
"""Longest value of a safelisted request header."""
TOTAL_BYTES = 1024
"""Bytes of all safelisted values together; above, none of them is safelisted."""

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_BLANKS = "\t\n\r "  # HTTP whitespace
_UNSAFE = re.compile(r'[\x00-\x08\x0a-\x1f"():<>?@\[\\\]{}\x7f]')
_LANGUAGE = re.compile(r"[0-9A-Za-z *,.;=-]*", re.ASCII)
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)", re.ASCII)
_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def get(headers: Pairs, name: str) -> str | None:
    """Value of a header, its lines joined with `, `; None without one. Source: Headers, "get"."""
    values = [value.strip(_BLANKS) for key, value in headers if key.lower() == name]
    return ", ".join(values) if values else None


def listed_values(headers: Pairs, name: str) -> tuple[str, ...] | None:
    """Elements of a list of tokens over all lines of a header, `()` without one; None when one of them is no token.
    Source: Headers, "extract header list values"; RFC 9110, section 5.6.1 (empty elements are none)."""
    found: list[str] = []
    for key, value in headers:
        if key.lower() == name:
            found += filter(None, (element.strip("\t ") for element in value.strip(_BLANKS).split(",")))
    return tuple(found) if all(map(TOKEN.fullmatch, found)) else None


# ---- what a page may send


def normalized_method(method: str) -> str:
    """The method as it goes out. Source: Methods, "normalize"."""
    return method.upper() if method.upper() in NORMALIZED_METHODS else method


def is_forbidden_method(method: str) -> bool:
    """Whether `fetch` throws at this method."""
    return method.upper() in FORBIDDEN_METHODS


def is_forbidden_header(name: str, value: str = "") -> bool:
    """Whether a page's script cannot set this header. Source: Headers, "forbidden request-header"."""
    key = name.lower()
    if key in FORBIDDEN_REQUEST_HEADERS or key.startswith(("proxy-", "sec-")):
        return True
    return key in METHOD_OVERRIDES and any(map(is_forbidden_method, (part.strip(_BLANKS) for part in value.split(","))))


def is_safelisted(name: str, value: str) -> bool:
    """Whether a request header makes no browser ask first, alone. Source: Headers, "CORS-safelisted request-header"."""
    value = value.strip(_BLANKS)
    if len(value) > VALUE_BYTES:
        return False
    match name.lower():
        case "accept":
            return _UNSAFE.search(value) is None
        case "accept-language" | "content-language":
            return _LANGUAGE.fullmatch(value) is not None
        case "content-type":
            return _UNSAFE.search(value) is None and media_type(value) in _FORM_TYPES
        case "range":
            span = _RANGE.fullmatch(value)
            return span is not None and (not span[2] or int(span[1]) <= int(span[2]))
        case _:
            return False


def preflight_headers(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Names of Access-Control-Request-Headers for the headers that a script sets: sorted, in lower case, each once;
    `[]` when none makes the browser ask first. Source: Headers, "CORS-unsafe request-header names"."""
    unsafe: set[str] = set()
    safe: set[str] = set()
    total = 0
    for name, value in headers:
        if is_safelisted(name, value):
            safe.add(name.lower())
            total += len(value.strip(_BLANKS))
        else:
            unsafe.add(name.lower())
    return sorted(unsafe | safe if total > TOTAL_BYTES else unsafe)


def needs_preflight(method: str, names: Sequence[str]) -> bool:
    """Whether the browser asks first, for a method and what `preflight_headers` gives. Source: "main fetch"."""
    return bool(names) or normalized_method(method) not in SAFELISTED_METHODS


# ---- what it does with an answer


def cors_check(origin: str, headers: Pairs, *, credentials: bool) -> str | None:
    """The step at which the CORS check of an answer fails; None when it passes. Source: "CORS check".

    Args:
        origin: of the page, serialized, or `null`.
        credentials: the request's credentials mode is `include`.
    """
    allowed = get(headers, "access-control-allow-origin")
    if allowed is None:
        return "acao-missing"
    if not credentials and allowed == "*":
        return None
    if allowed != origin:
        return "acao-mismatch"
    if not credentials or get(headers, "access-control-allow-credentials") == "true":
        return None
    return "acac"


def preflight_check(
    origin: str, method: str, names: Sequence[str], status: int, headers: Pairs, *, credentials: bool
) -> str | None:
    """The step at which the answer to a preflight fails; None when the request goes out.
    Source: "CORS-preflight fetch".

    Args:
        names: what `preflight_headers` gives for the request.
    """
    step = cors_check(origin, headers, credentials=credentials)
    if step is not None:
        return step
    if not 200 <= status <= 299:  # an ok status; redirects are not followed
        return "status"
    methods = listed_values(headers, "access-control-allow-methods")
    allowed = listed_values(headers, "access-control-allow-headers")
    if methods is None or allowed is None:
        return "parse"
    if method not in methods and method not in SAFELISTED_METHODS and (credentials or "*" not in methods):
        return "method"
    covered = {name.lower() for name in allowed}
    missing = [name for name in names if name.lower() not in covered]
    for name in missing:
        if name.lower() in NON_WILDCARD_HEADERS:
            return f"header:{name}"
    return None if not missing or ("*" in covered and not credentials) else f"header:{missing[0]}"


def visible_headers(headers: Pairs, *, credentials: bool) -> list[str]:
    """Names of the answer's headers that a page's script sees, sorted. Source: Responses, "CORS filtered response"."""
    present = {name.lower() for name, _ in headers} - FORBIDDEN_RESPONSE_HEADERS
    exposed = {name.lower() for name in listed_values(headers, "access-control-expose-headers") or ()}
    if "*" in exposed and not credentials:
        return sorted(present)
    return sorted(present & (SAFELISTED_RESPONSE_HEADERS | exposed))


# ---- media types, origins


def media_type(value: str) -> str | None:
    """Essence (`text/plain`) of a Content-Type; None when it is none. Source: MIME Sniffing, "parse a MIME type"."""
    kind, slash, rest = value.strip(_BLANKS).partition("/")
    subtype = rest.partition(";")[0].rstrip(_BLANKS)
    if not slash or not TOKEN.fullmatch(kind) or not TOKEN.fullmatch(subtype):
        return None
    return f"{kind}/{subtype}".lower()


def charset(value: str) -> str | None:
    """The parameter `charset` of a Content-Type, in lower case; None without one."""
    for parameter in value.split(";")[1:]:
        name, _, text = parameter.partition("=")
        if name.strip(_BLANKS).lower() == "charset":
            return text.strip(_BLANKS).strip('"').lower()
    return None


class Site(NamedTuple):
    """Scheme, host and port of a URL, as an origin has them."""

    scheme: str
    host: str
    port: int | None

    @property
    def origin(self) -> str:
        """The serialized origin."""
        return f"{self.scheme}://{self.host}{'' if self.port is None else f':{self.port}'}"

    @property
    def loopback(self) -> bool:
        """Whether browsers trust it without TLS. Source: Secure Contexts, "Is origin potentially trustworthy?"."""
        if self.host in {"localhost", "[::1]"} or self.host.endswith(".localhost"):
            return True
        try:
            return IPv4Address(self.host).is_loopback
        except ValueError:
            return False


def site_of(url: str) -> Site | None:
    """Scheme, host (A-labels, canonical IPv6) and port (None for the scheme's own) of a URL; None without them."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if not host or not parts.scheme:
            return None
        if ":" in host:
            host = f"[{IPv6Address(host).compressed}]"
        elif not host.isascii():
            import idna

            host = idna.encode(host, uts46=True).decode()
    except ValueError:  # idna's errors are
        return None
    if re.fullmatch(r"[a-z0-9_.\[\]:-]+", host) is None:
        return None
    return Site(parts.scheme, host, None if port == _DEFAULT_PORTS.get(parts.scheme) else port)
