"""What a list of rules says about an address, found by asking every condition of every rule."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class OracleRule:
    """A rule in the words of its file."""

    id: str
    action: str
    mode: str = "enforce"
    priority: int = 100
    prefix: tuple[str, ...] | None = None
    prefix_file: tuple[str, ...] | None = None
    asn: tuple[tuple[int, int], ...] | None = None
    asn_name: tuple[str, ...] | None = None


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


def holds(rule: OracleRule, address: str | None, networks: OracleNetworks) -> bool:
    """Whether every condition of the rule holds for the address; None is an absent or malformed one."""
    if address is None:
        return rule.prefix is rule.prefix_file is rule.asn is rule.asn_name is None
    for prefixes in (rule.prefix, rule.prefix_file):
        if prefixes is not None and not any(covers(prefix, address) for prefix in prefixes):
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
    rules: list[OracleRule], address: str | None, networks: OracleNetworks
) -> tuple[str | None, list[str], list[str]]:
    """Id of the winner, ids of the shadow rules that hold, ids of the `log` rules that hold."""
    holding = [rule for rule in in_order(rules) if holds(rule, address, networks)]
    enforced = [rule for rule in holding if rule.mode == "enforce"]
    winners = [rule.id for rule in enforced if rule.action != "log"]
    shadow = [rule.id for rule in holding if rule.mode == "shadow"]
    logged = [rule.id for rule in enforced if rule.action == "log"]
    return (winners[0] if winners else None), shadow, logged
