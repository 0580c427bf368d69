"""Published shapes of prefix lists besides a prefix a line: JSON of clouds, JSON lines, ranges, Tor, DShield, CSV."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from gobanfast._core.address import parse_prefixes
from gobanfast._errors import Problem

MOST_OF_RANGE = 64  # prefixes that one range may need; the longest IPv4 range needs 62
_KEYS = ("cidr", "prefix", "network", "ip_prefix", "ipv6_prefix", "ipv4Prefix", "ipv6Prefix", "ip")

SHAPES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("prefixes", ("prefixes[].ip_prefix", "ipv6_prefixes[].ipv6_prefix")),  # AWS
    ("addresses", ("addresses[]", "ipv6_addresses[]")),  # Fastly
    ("result", ("result.ipv4_cidrs[]", "result.ipv6_cidrs[]")),  # Cloudflare
    ("regions", ("regions[].cidrs[].cidr",)),  # Oracle
    ("values", ("values[].properties.addressPrefixes[]",)),  # Azure
)
"""Key at the top of what clouds publish, and where the prefixes are below it."""

_RANGE = re.compile(r"([0-9A-Fa-f.:]+)\s*-\s*([0-9A-Fa-f.:]+)")
_RELAY = re.compile(r"([0-9A-Fa-f.:]+/[0-9]+),[A-Z]{2},[A-Z0-9-]*,[^,]*,?")  # Apple: prefix,country,region,city,
_TOR = re.compile(r"(?:ExitNode|Published|LastStatus) .*")
_TOR_ADDRESS = re.compile(r"ExitAddress (\S+) [0-9-]+ [0-9:]+")
_DSHIELD = re.compile(r"([0-9.]+)\t([0-9.]+)\t([0-9]{1,2})(?:\t.*)?")


def steps(data: Any, path: str) -> Iterator[Any]:
    """The values at `path` in JSON data: `a.b` steps into mappings, `[]` over the items of a list or a mapping.

    Where a step is missing there is nothing. `steps(data, "prefixes[].ip_prefix")` gives what AWS publishes.
    """
    found = [data]
    for step in path.split("."):
        name = step.rstrip("[]") if step.endswith("[]") else step
        depth = (len(step) - len(name)) // 2
        if name:
            found = [item[name] for item in found if isinstance(item, dict) and name in item]
        for _ in range(depth):
            found = [
                value
                for item in found
                if isinstance(item, (list, dict))
                for value in (item.values() if isinstance(item, dict) else item)
            ]
    yield from found


def shape_of(data: Any) -> tuple[str, ...] | None:
    """Paths of the prefixes in JSON of a known shape; None for another."""
    if isinstance(data, list):
        return ("[]", *(f"[].{key}" for key in _KEYS))
    for key, paths in SHAPES:
        if isinstance(data, dict) and key in data and any(True for path in paths for _ in steps(data, path)):
            return paths
    return None


def json_hint(data: Any) -> str:
    """What to write for JSON whose prefixes cannot be told from other things in it."""
    several = [key for key, value in data.items() if isinstance(value, list)] if isinstance(data, dict) else []
    if several:
        which = ", ".join(several[:6])
        return f"its lists are {which}; name one in a feed: {{file: FILE, format: json, path: '{several[0]}[]'}}"
    return "say where the prefixes are in a feed: {file: FILE, format: json, path: 'items[].cidr'}"


def json_lines(text: str) -> tuple[list[str], list[int], list[tuple[int, str]]]:
    """Prefixes of JSON lines with their line numbers, and (line, message) of lines that have none; Spamhaus DROP.

    A line with `"type": "metadata"` says something about the list, and is passed over.
    """
    entries, numbers, problems = [], [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            problems.append((number, "line is not JSON"))
            continue
        if isinstance(entry, dict) and entry.get("type") == "metadata":
            continue
        found = [entry[key] for key in _KEYS if isinstance(entry, dict) and isinstance(entry.get(key), str)]
        if not found:
            problems.append((number, "line has no cidr, prefix or network"))
        entries += found
        numbers += [number] * len(found)
    return entries, numbers, problems


def other_forms(line: str) -> list[str] | None:
    """Prefixes of a line that is no prefix: a range, of a relay's CSV, of Tor's exit list or DShield's; None: of none.

    Lines of those lists that hold no address give an empty list.
    """
    if match := _RANGE.fullmatch(line):
        return range_prefixes(match[1], match[2])
    if match := _RELAY.fullmatch(line):
        return [match[1]]
    if match := _TOR_ADDRESS.fullmatch(line):
        return [match[1]]
    if match := _DSHIELD.fullmatch(line):
        return [f"{match[1]}/{match[3]}"]
    return [] if _TOR.fullmatch(line) or line.startswith("Start\tEnd\tNetmask") else None


def range_prefixes(first: str, last: str) -> list[str] | None:
    """The prefixes that a range of addresses is made of; None for one that is none, or has too many."""
    try:
        low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
        found = []
        for network in ipaddress.summarize_address_range(low, high):
            found.append(str(network))
            if len(found) > MOST_OF_RANGE:
                return None
    except (ValueError, TypeError):
        return None
    return found


def checked(entries: Sequence[str], numbers: Sequence[int], source: str) -> tuple[bytes, bytes, list[Problem]]:
    """Packed addresses and lengths of entries that stand on these lines, and a problem for each that is none."""
    addresses, lengths, bad = parse_prefixes(list(entries))
    problems = []
    for index, message in bad:
        what, _, hint = message[:256].partition("; ")
        problems.append(Problem(source, numbers[index], 1, what, hint))
    return addresses, lengths, problems
