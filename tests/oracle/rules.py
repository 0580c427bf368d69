"""What a list of rules says about a request, found by asking every condition of every rule."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

from oracle import consistency, names, requests


@dataclass(frozen=True)
class OracleRule:
    """A rule in the words of its file."""

    id: str
    action: str
    mode: str = "enforce"
    priority: int = 100
    prefix: tuple[str, ...] | None = None
    prefix_file: tuple[str, ...] | None = None
    outside: tuple[str, ...] | None = None
    outside_file: tuple[str, ...] | None = None
    asn: tuple[tuple[int, int], ...] | None = None
    asn_name: tuple[str, ...] | None = None
    sni: tuple[str, ...] | None = None
    sni_file: tuple[str, ...] | None = None
    ja4: tuple[str, ...] | None = None
    ja4_prefix: tuple[str, ...] | None = None
    alpn: tuple[str, ...] | None = None
    tls_version_below: str | None = None
    ech: tuple[str, ...] | None = None
    header: dict[str, Any] | None = None
    ua_family: tuple[str, ...] | None = None
    crawler: tuple[str, ...] | None = None
    fingerprint: tuple[str, ...] | None = None
    shape: tuple[str, ...] | None = None
    method: tuple[str, ...] | None = None
    path: Any = None
    lookalike: tuple[str, ...] | None = None
    sni_host: tuple[str, ...] | None = None
    names: tuple[str, ...] = ()  # of the file's certificates
    stored: float | None = None  # seconds of the ban that a match stores
    key: str = "client"
    weigh: float | None = None
    effect: str = "admit"
    origin: tuple[str, ...] | None = None
    host: tuple[str, ...] | None = None
    fetch_site: tuple[str, ...] | None = None
    fetch_mode: tuple[str, ...] | None = None
    fetch_dest: tuple[str, ...] | None = None
    cross_origin_write: bool | None = None
    negated: OracleRule | None = None  # the conditions of `not:`; the rest of it means nothing
    credentials: bool = False
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class OracleHello:
    """What a ClientHello says; `sni` is None when it has no name."""

    sni: str | None
    ja4: str
    alpn: tuple[str, ...]
    version: int
    ech: str | None


@dataclass(frozen=True)
class OracleSignals:
    """What a request says besides its address; `hello` is "malformed" when it cannot be read. `ja4` is what a proxy
    says it was, and counts where there is no hello."""

    sni: str | None = None
    hello: OracleHello | str | None = None
    request: requests.OracleRequest = requests.NOTHING
    ja4: str | None = None


@dataclass(frozen=True)
class OracleNetworks:
    """An AS table in words: (prefix, AS number) pairs of which the longest prefix counts, and names."""

    prefixes: tuple[tuple[str, int], ...] = ()
    names: dict[int, str] = field(default_factory=dict)

    def lookup(self, address: str) -> int:
        """The origin AS, 0 for none."""
        covering = [
            (ipaddress.ip_network(prefix).prefixlen, asn) for prefix, asn in self.prefixes if covers(prefix, address)
        ]
        return max(covering, default=(0, 0))[1]

    def describe(self, asn: int) -> str:
        """The text that `asn_name` patterns are searched in."""
        return f"AS{asn} {self.names.get(asn, '')}".rstrip()


def covers(prefix: str, address: str) -> bool:
    """Whether the prefix covers the address; the families never mix."""
    network, packed = ipaddress.ip_network(prefix), ipaddress.ip_address(address)
    return network.version == packed.version and packed in network


def name_of(signals: OracleSignals) -> str:
    """The normalised name, or "absent" or "malformed" in capitals, which no name is written in."""
    text = signals.sni
    if text is None:
        if isinstance(signals.hello, str):
            return "MALFORMED"
        text = None if signals.hello is None else signals.hello.sni
    if text is None:
        return "ABSENT"
    return names.normalize(text) or "MALFORMED"


def name_holds(patterns: tuple[str, ...], name: str) -> bool:
    """Whether a pattern, or the word for what the name is, is listed."""
    if name.isupper():
        return name.lower() in patterns
    listed = [names.canonical(pattern) for pattern in patterns if pattern not in ("absent", "malformed")]
    return any(names.matches(pattern, name) for pattern in listed)


def names_hold(rule: OracleRule, sni: str | None, request: requests.OracleRequest) -> bool:
    """Whether what the rule asks of server name and host holds; `sni` is None when none can be read."""
    found = requests.read(request)
    value = None if found is None or found.problem else found.value("host")
    host = None if value is None else requests.text_of(value)
    if rule.lookalike is not None and not any(
        consistency.looks_like(name, rule.lookalike) for name in (sni, consistency.host_of(host))
    ):
        return False
    if rule.sni_host is None:
        return True
    return found is not None and consistency.agreement(sni, host, rule.names) in rule.sni_host


def is_ja4(text: str) -> bool:
    """Whether a text has the shape of a JA4, part by part."""
    if len(text) != 36 or not text.isascii() or text[10] != "_" or text[23] != "_":
        return False
    version, hexes = text[1:3], text[11:23] + text[24:]
    return (
        text[0] in "tqd"
        and (version in ("10", "11", "12", "13", "00") or (version[0] in "sd" and version[1].isdecimal()))
        and text[3] in "di"
        and text[4:8].isdecimal()
        and text[8:10].isalnum()
        and all(char in "0123456789abcdef" for char in hexes)
    )


def signals_hold(rule: OracleRule, signals: OracleSignals) -> bool:
    """Whether every condition of the rule on signals besides the address holds."""
    if not requests.hold(rule, signals.request):
        return False
    name = name_of(signals)
    if not names_hold(rule, None if name.isupper() else name, signals.request):
        return False
    if rule.sni is not None and not name_holds(rule.sni, name):
        return False
    if rule.sni_file is not None and (name.isupper() or not name_holds(rule.sni_file, name)):
        return False
    if rule.ja4 is rule.ja4_prefix is rule.alpn is rule.tls_version_below is rule.ech is None:
        return True
    hello = signals.hello
    if hello is None and signals.ja4 is not None and is_ja4(signals.ja4):
        asks_more = not rule.alpn is rule.tls_version_below is rule.ech is None
        return not asks_more and ja4_holds(rule, signals.ja4)
    if hello is None or isinstance(hello, str):
        return False
    below = {None: 1 << 16, "1.0": 0x301, "1.1": 0x302, "1.2": 0x303, "1.3": 0x304}[rule.tls_version_below]
    return (
        ja4_holds(rule, hello.ja4)
        and (rule.alpn is None or any(text in rule.alpn for text in hello.alpn))
        and hello.version < below
        and (rule.ech is None or (hello.ech or "none") in rule.ech)
    )


def ja4_holds(rule: OracleRule, ja4: str) -> bool:
    """Whether the conditions on the JA4 hold."""
    return (rule.ja4 is None or ja4 in rule.ja4) and (
        rule.ja4_prefix is None or any(ja4.startswith(text) for text in rule.ja4_prefix)
    )


def holds(
    rule: OracleRule, address: str | None, networks: OracleNetworks, signals: OracleSignals = OracleSignals()
) -> bool:
    """Whether every condition of the rule holds for the request; address None is an absent or malformed one."""
    if not signals_hold(rule, signals):
        return False
    if address is None:
        asked = (rule.prefix, rule.prefix_file, rule.outside, rule.outside_file, rule.asn, rule.asn_name)
        return all(condition is None for condition in asked)
    for prefixes in (rule.prefix, rule.prefix_file):
        if prefixes is not None and not any(covers(prefix, address) for prefix in prefixes):
            return False
    for prefixes in (rule.outside, rule.outside_file):
        if prefixes is not None and any(covers(prefix, address) for prefix in prefixes):
            return False
    asn = networks.lookup(address)
    if rule.asn is not None and not (asn and any(first <= asn <= last for first, last in rule.asn)):
        return False
    if rule.asn_name is not None:
        text = networks.describe(asn)
        if not asn or not any(re.search(pattern, text, re.IGNORECASE) for pattern in rule.asn_name):
            return False
    return True


def in_order(rules: list[OracleRule]) -> list[OracleRule]:
    """Decision order: `allow` first, then lower priority, then file order; rules that are off do not count."""
    return sorted((rule for rule in rules if rule.mode != "off"), key=lambda r: (r.action != "allow", r.priority))


def decide(
    rules: list[OracleRule],
    address: str | None,
    networks: OracleNetworks,
    signals: OracleSignals = OracleSignals(),
) -> tuple[str | None, list[str], list[str]]:
    """Id of the winner, ids of the shadow rules that hold, ids of the `log` rules that hold."""
    holding = [rule for rule in in_order(rules) if holds(rule, address, networks, signals)]
    enforced = [rule for rule in holding if rule.mode == "enforce"]
    winners = [rule.id for rule in enforced if rule.action != "log"]
    shadow = [rule.id for rule in holding if rule.mode == "shadow"]
    logged = [rule.id for rule in enforced if rule.action == "log"]
    return (winners[0] if winners else None), shadow, logged
