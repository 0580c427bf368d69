"""Decides a combined log the slow way: every distinct address against every rule, with `ipaddress` and `re`.

It knows the conditions prefix, prefix_file, asn, asn_name and no other, and shares no code with the package.
As a script: python tests/oracle/scan.py LOG RULES ASN_CSV [NAMES_CSV] prints what it counts.
"""

from __future__ import annotations

import csv
import gzip
import ipaddress
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Prefixes:
    """Value of the longest prefix that covers an address: one dict per version and length, longest first."""

    def __init__(self, items: Iterable[tuple[str, int]]) -> None:
        self._values: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
        for text, value in items:
            address, _, length = text.partition("/")
            version, width = (6, 128) if ":" in address else (4, 32)
            bits = int(length) if length else width
            self._values[version, bits][number(address) >> (width - bits)] = value
        self._order = sorted(self._values, reverse=True)

    def lookup(self, address: Address) -> int | None:
        for version, bits in self._order:
            if version == address.version:
                value = self._values[version, bits].get(int(address) >> (address.max_prefixlen - bits))
                if value is not None:
                    return value
        return None


def number(text: str) -> int:
    """An address as an integer; IPv4 by hand, which is a whole routing table in a second."""
    return int(ipaddress.IPv6Address(text)) if ":" in text else int.from_bytes(map(int, text.split(".")), "big")


@dataclass
class Asns:
    """AS numbers of addresses, and AS names."""

    prefixes: Prefixes
    names: dict[int, str]

    def text(self, asn: int) -> str:
        return f"AS{asn} {self.names.get(asn, '')}"


@dataclass
class Counts:
    """What a scan counts. `rules` and `asns` have (key, action); a bad line has no address in front."""

    lines: int = 0
    bad: list[int] = field(default_factory=list)
    actions: Counter[str] = field(default_factory=Counter)
    rules: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    asns: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    logged: Counter[str] = field(default_factory=Counter)
    shadow: Counter[str] = field(default_factory=Counter)


def opened(path: Path) -> Iterator[str]:
    """Lines of a text file, plain or gzip by its name."""
    with gzip.open(path, "rt", encoding="latin-1") if path.suffix == ".gz" else path.open(encoding="latin-1") as file:
        yield from file


def read_asns(table: Path, names: Path | None = None) -> Asns:
    """AS numbers from a CSV of prefix,asn[,name]; names from there, or from a CSV of asn,name."""
    rows = [row for row in csv.reader(opened(table)) if row and not row[0].startswith("#") and row[0] != "prefix"]
    if names is not None:
        called = {int(row[0]): row[1] for row in csv.reader(opened(names)) if row[0].isdigit()}
    else:
        called = {int(row[1]): row[2] for row in rows}
    return Asns(Prefixes((row[0], int(row[1])) for row in rows), called)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def read_rules(path: Path) -> list[dict[str, Any]]:
    """Rules in decision order: allow first, then the others, each by priority and place in the file."""
    rules = [rule for rule in yaml.safe_load(path.read_text("utf-8"))["rules"] if rule.get("mode") != "off"]
    rules.sort(key=lambda rule: (rule["action"] != "allow", rule.get("priority", 100)))
    for rule in rules:
        when = rule["when"]
        texts = list(map(str, listed(when.get("prefix", []))))
        for name in listed(when.get("prefix_file", [])):
            texts += [line.partition("#")[0].strip() for line in opened(path.parent / name)]
        rule["prefixes"] = Prefixes((text, 1) for text in texts if text)
    return rules


def matches(rule: dict[str, Any], address: Address, asn: int | None, asns: Asns) -> bool:
    """Whether every condition of the rule holds; within a condition one value is enough."""
    when = rule["when"]
    held = []
    if "prefix" in when or "prefix_file" in when:
        held.append(rule["prefixes"].lookup(address) is not None)
    if "asn" in when:
        held.append(asn in {int(str(number).removeprefix("AS")) for number in listed(when["asn"])})
    if "asn_name" in when:
        text = None if asn is None else asns.text(asn)
        held.append(text is not None and any(re.search(p, text, re.IGNORECASE) for p in listed(when["asn_name"])))
    return all(held)


def decide(
    rules: list[dict[str, Any]], asns: Asns, text: str
) -> tuple[str, str | None, int | None, list[str], list[str]] | None:
    """(action, rule, asn, logged, shadow rules in front of the winner), or None when `text` is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    asn = asns.prefixes.lookup(address)
    logged, shadow = [], []
    for rule in rules:
        if not matches(rule, address, asn, asns):
            continue
        if rule.get("mode") == "shadow":
            shadow.append(rule["id"])
        elif rule["action"] == "log":
            logged.append(rule["id"])
        else:
            later = rules[rules.index(rule) + 1 :]
            logged += [
                r["id"]
                for r in later
                if r["action"] == "log" and r.get("mode") != "shadow" and matches(r, address, asn, asns)
            ]
            return rule["action"], rule["id"], asn, logged, shadow
    return "allow", None, asn, logged, shadow


def count(log: Path, rules: list[dict[str, Any]], asns: Asns) -> Counts:
    """Counts over the lines of a combined log, whose first field is the address."""
    counts = Counts()
    seen: dict[str, Any] = {}
    for line in opened(log):
        counts.lines += 1
        address = line.split(" ")[0].strip()
        if address not in seen:
            seen[address] = decide(rules, asns, address)
        if seen[address] is None:
            counts.bad.append(counts.lines)
            continue
        action, rule, asn, logged, shadow = seen[address]
        counts.actions[action] += 1
        counts.rules[rule, action] += 1
        counts.asns[asn, action] += 1
        counts.logged.update(logged)
        counts.shadow.update(shadow)
    return counts


if __name__ == "__main__":
    log, rules, *tables = map(Path, sys.argv[1:])
    print(count(log, read_rules(rules), read_asns(*tables)))  # noqa: T201
