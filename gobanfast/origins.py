"""Parser of origin and host patterns, with errors that name the fault."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from gobanfast._core.address import parse_address
from gobanfast._core.origin_set import read_pattern
from gobanfast.names import compile_regex

__all__ = ["HostPattern", "OriginPattern", "PatternError", "Reason", "parse_host_pattern", "parse_origin_pattern"]

#: Why something that a grant or a pattern says is refused.
Reason = Literal["missing", "invalid", "prohibited", "wildcard", "insecure", "psl", "forbidden", "bounds"]
Kind = Literal["any", "exact", "one", "many", "regex"]
Port = int | Literal["*"] | None

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}
_LEADS = {"exact": "", "one": "*.", "many": "**."}
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


class PatternError(ValueError):
    """A text that is no pattern; `reason` is its kind, the message says what is wrong, then what would be right."""

    def __init__(self, reason: Reason, what: str, hint: str) -> None:
        self.reason, self.what, self.hint = reason, what, hint
        super().__init__(f"{what}; {hint}")


@dataclass(frozen=True, slots=True)
class OriginPattern:
    """One parsed origin pattern.

    `host` has no wildcard ("" for `*` and for a regex), an IPv6 address has its brackets. `port` is None (none but the
    default one of the scheme), a number, or "*" (any or none).
    """

    kind: Kind
    text: str
    scheme: str = ""
    host: str = ""
    port: Port = None


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One parsed host pattern; `text` is in lower case, the rest as in OriginPattern."""

    kind: Kind
    text: str
    host: str
    port: Port = None


def parse_origin_pattern(text: str) -> OriginPattern:
    """The origin pattern that `text` stands for.

    Raises:
        PatternError: it stands for none.
    Source: csrc/DESIGN.md, "Origins and hosts".
    """
    if text.startswith("re:"):
        try:
            compile_regex(text.removeprefix("re:"))
        except ValueError as error:
            what, _, hint = str(error).partition("; ")
            raise PatternError("invalid", what, hint or "write an expression of RE2 after re:") from None
        return OriginPattern("regex", text)
    found = read_pattern(text, False)
    if found is None:
        _explain(text, _Words("origin pattern", text, "https://example.com"))
    kind, scheme, host, port = found
    if scheme == "file":
        raise PatternError(
            "prohibited", f"origin pattern {text!r} is of files, whose origin is null", "serve the page over http"
        )
    _check_a_labels(host, f"origin pattern {text!r}")
    return OriginPattern(kind, text, scheme, host, port)


def parse_host_pattern(text: str) -> HostPattern:
    """The host pattern that `text` stands for. PatternError when it stands for none."""
    found = read_pattern(text, True)
    if found is None:
        say = _Words("host pattern", text, "example.com")
        if text.startswith("re:"):
            say.refuse("invalid", "is a regex, which only origins have", "write *.example.com or **.example.com")
        _explain_host(text, say)
    kind, _, host, port = found
    _check_a_labels(host, f"host pattern {text!r}")
    return HostPattern(kind, _LEADS[kind] + host + ("" if port is None else f":{port}"), host, port)


def canonical(text: str, hosts: bool, *, regex: bool = False) -> str:
    """The text of a pattern that is one, fit for a table. PatternError; TypeError when it is no text."""
    if not isinstance(text, str):
        raise TypeError(f"expected str, got {type(text).__name__}")
    if hosts:
        return parse_host_pattern(text).text
    if read_pattern(text, False) is not None and "xn--" not in text and not text.startswith("file:"):
        return text  # most are fine, and there may be many
    pattern = parse_origin_pattern(text)
    if pattern.kind == "regex" and not regex:
        raise PatternError("invalid", f"origin pattern {text!r} is a regex", "tables of groups have none")
    return pattern.text


def specificity(text: str) -> tuple[bool, bool, int, bool, bool]:
    """Sort key of an origin pattern: the most specific one comes first."""
    kind, _, host, port = read_pattern(text, False) or ("any", "", "", "*")
    return kind == "any", kind != "exact", -host.count("."), kind == "many", port == "*"


def sample(text: str) -> str | None:
    """An origin that the pattern covers, no regex; None when all such are too long."""
    kind, scheme, host, port = read_pattern(text, False) or ("any", "", "", "*")
    if kind == "any":
        return "https://example.com"
    origin = f"{scheme}://{'' if kind == 'exact' else 'x.'}{host}" + ("" if port in (None, "*") else f":{port}")
    return origin if read_pattern(origin, False) is not None else None


def pack(patterns: list[str], regexes: list[str]) -> bytes:
    """What a saved set keeps of its patterns as text."""
    return json.dumps([patterns, regexes]).encode()


def unpack(data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The (patterns, regexes) that `pack` packed. ValueError when `data` is not its work."""
    try:
        patterns, regexes = json.loads(data)
    except (ValueError, TypeError, RecursionError):
        raise ValueError("pattern texts are damaged") from None
    good = isinstance(patterns, list) and all(isinstance(text, str) for text in patterns)
    good = good and isinstance(regexes, list) and all(isinstance(text, str) and text[:3] == "re:" for text in regexes)
    if not good:
        raise ValueError("pattern texts are damaged")
    return tuple(patterns), tuple(regexes)


@dataclass(frozen=True, slots=True)
class _Words:
    """What messages about one text say."""

    noun: str
    text: str
    example: str
    scheme: str = ""

    def refuse(self, reason: Reason, what: str, hint: str) -> NoReturn:
        raise PatternError(reason, f"{self.noun} {self.text[:300]!r} {what}", hint)

    def write(self, host: str) -> str:
        return f"write {f'{self.scheme}://' if self.scheme else ''}{host}"


def _explain(text: str, say: _Words) -> NoReturn:
    """Says why `text` is no origin pattern."""
    if not text:
        say.refuse("invalid", "is empty", f"write {say.example}")
    if text == "null":
        say.refuse("prohibited", "is what every sandboxed page and local file sends", "leave it out")
    scheme, colon, rest = text.partition("://")
    if not colon:
        whole = f"https://{text}"
        say.refuse("invalid", "has no scheme", f"write {say.example if read_pattern(whole, False) is None else whole}")
    if not _SCHEME.fullmatch(scheme):
        lower = scheme.lower()
        hint = f"write {lower}://{rest}" if _SCHEME.fullmatch(lower) else "write one such as https"
        say.refuse("invalid", f"has no valid scheme: {scheme[:80]!r}", hint)
    if len(scheme) > 63:
        say.refuse("invalid", "has a scheme longer than 63 bytes", "write the scheme that browsers send")
    if scheme == "file":
        say.refuse("prohibited", "is of files, whose origin is null", "serve the page over http")
    _explain_host(rest, _Words(say.noun, text, f"{scheme}://example.com", scheme))


def _explain_host(text: str, say: _Words) -> NoReturn:
    """Says why `text`, a host pattern or what is behind the scheme of an origin pattern, is none."""
    if not text:
        say.refuse("invalid", "has no host", f"write {say.example}")
    if "://" in text and not say.scheme:
        say.refuse("invalid", "is an origin", f"write the host alone: {text.partition('://')[2]}")
    if found := re.search(r"[\s,;]", text):
        say.refuse("invalid", f"has {found[0]!r} in it", "write patterns as items of a list")
    if found := re.search(r"[/?#\\]", text):
        part = {"/": "a slash or a path", "?": "a query", "#": "a fragment", "\\": "a backslash"}[found[0]]
        say.refuse("invalid", f"has {part}", say.write(text[: found.start()] or "example.com"))
    if "@" in text:
        say.refuse("invalid", "has user information", say.write(text.rpartition("@")[2] or "example.com"))
    if not text.isascii():
        say.refuse("invalid", "is not in ASCII", say.write(_a_labels(text) or "the A-labels of its name"))
    lead = "**." if text.startswith("**.") else "*." if text.startswith("*.") else ""
    rest = text[len(lead) :]
    if rest.startswith("["):
        _explain_address6(rest, lead, say)
    if ":" in rest and not lead and (packed := parse_address(rest)) is not None:
        say.refuse("invalid", "has an IPv6 address without brackets", say.write(f"[{_ipv6_text(packed)}]"))
    host, colon, port = rest.rpartition(":") if ":" in rest else (rest, "", "")
    if not host:
        say.refuse("invalid", "has no host", f"write {say.example}")
    if ":" in host:
        say.refuse(
            "invalid", "has more than one port, or an IPv6 address without brackets", f"write {say.example}:8443"
        )
    if host != host.lower() and say.scheme:
        say.refuse("invalid", "has upper case, which no browser sends", say.write((lead + rest).lower()))
    if "*" in host:
        say.refuse(
            "invalid", "has a wildcard that is not its first label before a name",
            f"{say.write('*.example.com')} for one label, {say.write('**.example.com')[6:]} for one or more",
        )  # fmt: skip
    _explain_name(host.lower(), lead, say)
    _explain_port(host, colon, port, lead, say)
    say.refuse("invalid", "is none", f"write {say.example}")


def _explain_name(host: str, lead: str, say: _Words) -> None:
    """Refuses what is wrong with a name or an IPv4 address; returns when nothing is."""
    if found := re.search(r"[^a-z0-9._-]", host):
        say.refuse("invalid", f"has {found[0]!r} in its host", "write letters, digits, '-', '_' and dots")
    name = host.removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        if parse_address(host) is None:
            say.refuse("invalid", "has a host that ends in a number and is no IPv4 address", say.write("192.0.2.1"))
        if lead:
            say.refuse("invalid", "has a wildcard before an address", say.write(host))
        return
    if "" in labels:
        say.refuse("prohibited", "has an empty label", "write single dots")
    if any(len(label) > 63 for label in labels):
        say.refuse("prohibited", "has a label longer than 63 bytes", "write a name that DNS can have")
    if len(name) > 253:
        say.refuse("prohibited", "has a name longer than 253 bytes", "write a name that DNS can have")
    if any(label[0] == "-" or label[-1] == "-" for label in labels):
        say.refuse("prohibited", "has a label that starts or ends with a hyphen", "write a name that DNS can have")


def _explain_port(host: str, colon: str, port: str, lead: str, say: _Words) -> None:
    """Refuses what is wrong with a port; returns when nothing is."""
    if not colon or port == "*":
        return
    bare = say.write(lead + host)
    if not port.isdecimal():
        say.refuse("invalid", f"has the port {port[:80]!r}", f"write a number, {bare[6:]}:*, or none")
    if port[0] == "0" or int(port[:6]) > 65535:
        say.refuse("invalid", f"has the port {port[:80]}", "write 1 to 65535 without leading zeros")
    if int(port) in ({_DEFAULT_PORTS.get(say.scheme)} if say.scheme else {80, 443}):
        sent = "browsers leave it out" if say.scheme else "no port means none or the default one"
        say.refuse("prohibited", f"has a default port; {sent}", bare)


def _explain_address6(rest: str, lead: str, say: _Words) -> None:
    """Refuses what is wrong with an address in brackets; returns when only its port can be."""
    inside, bracket, port = rest[1:].partition("]")
    packed = parse_address(inside) if ":" in inside and "%" not in inside else None
    if not bracket or packed is None or (port and port[0] != ":"):
        say.refuse("invalid", "has no IPv6 address in its brackets", say.write("[2001:db8::1]:8443"))
    if lead:
        say.refuse("invalid", "has a wildcard before an address", say.write(rest))
    known = f"[{_ipv6_text(packed)}]"
    if say.scheme and known != f"[{inside}]":
        say.refuse("prohibited", "has an IPv6 address that no browser writes like this", say.write(known + port))
    _explain_port(known, port[:1], port[1:], lead, say)
    say.refuse("invalid", "has no port after its colon", say.write(known))


def _ipv6_text(packed: bytes) -> str:
    """As browsers write it: a mapped address has no dots."""
    import ipaddress

    if packed[:12] == bytes(10) + b"\xff\xff":
        return f"::ffff:{int.from_bytes(packed[12:14]):x}:{int.from_bytes(packed[14:]):x}"
    return str(ipaddress.IPv6Address(packed))


def _a_labels(text: str) -> str:
    """`text` with its Unicode labels as A-labels; "" when they are none."""
    import idna

    host, colon, port = text.partition(":")
    lead = "**." if host.startswith("**.") else "*." if host.startswith("*.") else ""
    try:
        return lead + idna.encode(host[len(lead) :], uts46=True).decode("ascii") + colon + port
    except (idna.IDNAError, UnicodeError):
        return ""


def _check_a_labels(host: str, what: str) -> None:
    """PatternError for a label that starts like an A-label and is none: no browser sends it."""
    for label in host.split("."):
        if not label.startswith("xn--"):
            continue
        try:
            good = not label[4:].encode().decode("punycode").isascii()
        except UnicodeError:
            good = False
        if not good:
            raise PatternError(
                "prohibited", f"{what} has the label {label!r}, which is no A-label", "write the name's own"
            )
