"""Name lists for `sni_file`: a million entries as one condition.

The format is detected for each line, so formats may be mixed; gzip is recognised by its first bytes:

- plain, a pattern as `sni` takes it: what the pattern covers ("example.com" covers that name only);
- hosts file, `0.0.0.0 example.com www.example.com`: these names and nothing below them, as in /etc/hosts;
- AdBlock domain rule, `||example.com^`: the name and everything below it;
- dnsmasq, `address=/example.com/example.net/0.0.0.0`, `server=/example.com/`, `local=/example.com/`: the same;
- unbound, `local-zone: "example.com" always_nxdomain`: the same; `local-data: "example.com A 0.0.0.0"`: this name;
- response policy zone, `example.com CNAME .`: this name; `*.example.com CNAME .`: those below it.

Comments start with `#` at the start of a line or after a blank, or are lines that start with `!` or `;`, or headers
like `[Adblock Plus 2.0]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from gobanfast._core.address import parse_address
from gobanfast._core.name_text import literal_pattern
from gobanfast._errors import Problem
from gobanfast.names import parse_pattern
from gobanfast.rules.rule import NameList
from gobanfast.rules.text.prefix_lists import read_bytes

MAX_ENTRY = 300  # characters of an entry that messages show; a name has at most 253

# What every hosts file says about the machine itself; nobody means to list these.
_MACHINE = (
    "localhost", "localhost.localdomain", "local", "broadcasthost", "ip6-localhost", "ip6-loopback", "ip6-localnet",
    "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts", "0.0.0.0",  # noqa: S104 (no socket is bound)
)  # fmt: skip
_FEED = "a feed of kind: name passes over the rest"
_COMMENT = re.compile(r"(?:^|\s)#.*")
_HEADER = re.compile(r"\[(?:adblock|adguard|ublock)[^\]]*\]", re.IGNORECASE)  # "[ab]*" is a pattern
_PASSED_OVER = re.compile(r"@@|\|\|[^^]*\^(?!\$(?:important|all|doc|document)$).|\S*#[@?$%]?#|/|\|?https?:")
_UNBOUND = re.compile(r'(local-zone|local-data):\s*"([^"\s]+)(?:\s+(?:IN\s+)?(?:A|AAAA)\s+\S+)?"(?:\s+[a-z_]+)?')
_POLICY = re.compile(r"(\S+)(?:\s+[0-9]+)?(?:\s+IN)?\s+(?:CNAME\s+(?:\.|\*\.|rpz-drop\.|rpz-\S+)|A\s+[0-9.]+)")
_ZONE = re.compile(r"\$(?:TTL|ORIGIN)\s.*|(?:server|local-zone-end):|(?:\S+\s+)?(?:[0-9]+\s+)?(?:IN\s+)?(?:SOA|NS)\s.*")
_DNSMASQ = re.compile(r"(?:address|server|local)=(.*)")


def read_names(path: Path) -> tuple[NameList, list[Problem]]:
    """The patterns in a list file, and every entry that is none.

    Raises:
        ListError: the file is missing, unreadable, damaged, or larger than MAX_LIST_BYTES.
    Cost: O(bytes); about a microsecond a line.
    """
    names, problems, _ = parse_names(read_bytes(path), str(path), strict=True)
    return names, problems


def parse_names(data: bytes, source: str, *, strict: bool = False) -> tuple[NameList, list[Problem], int]:
    """The patterns in a list, every entry that is none, and how many were passed over because they block no domain.

    Those are AdBlock exceptions and rules for parts of pages; with `strict` they are problems.
    """
    text = data.decode("utf-8-sig", "replace")
    found: list[str] = []
    problems: list[Problem] = []
    skipped = 0
    for number, line in enumerate(text.split("\n"), 1):
        literal = literal_pattern(line)  # most lines of most lists, and what no other format looks like
        if literal is not None:
            found.append(literal[1])
            continue
        entry = (_COMMENT.sub("", line) if "#" in line and "##" not in line else line).strip()
        if not entry or entry[0] in "!;" or _HEADER.fullmatch(entry) or _ZONE.fullmatch(entry):
            continue
        if not strict and _PASSED_OVER.match(entry):
            skipped += 1
            continue
        try:
            found += _patterns(entry)
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            if len(entry) > MAX_ENTRY:
                message, hint = f"entry '{entry[:60]}...' is {len(entry)} characters long", "one name a line"
            problems.append(Problem(source, number, line.index(entry) + 1, message, hint))
    return NameList("\n".join(found)), problems, skipped


def _patterns(entry: str) -> Iterable[str]:
    """Canonical patterns of one entry. Raises ValueError, "what; hint"."""
    words = entry.split()
    if unbound := _UNBOUND.fullmatch(entry):
        return (_below(unbound[2].rstrip(".")) if unbound[1] == "local-zone" else _exact(unbound[2].rstrip(".")),)
    if policy := _POLICY.fullmatch(entry):
        name = policy[1].rstrip(".")
        return (parse_pattern("*" + name).text if name.startswith("*.") else _exact(name),)
    if len(words) > 1:
        if parse_address(words[0].partition("%")[0]) is None:
            raise ValueError(f"entry '{entry}' has no known format; write one pattern a line, or address and names")
        return [_exact(name) for name in words[1:] if name.lower() not in _MACHINE]
    if entry.startswith("||"):
        name, end, rest = entry[2:].partition("^")
        if not end or rest not in {"", "$important", "$all", "$doc", "$document"}:
            raise ValueError(f"AdBlock rule '{entry}' does not block whole domains; only ||name^ is read, {_FEED}")
        return (_below(name),)
    if entry.startswith("@@"):
        raise ValueError(
            f"AdBlock exception '{entry}' cannot be part of a list; write an allow rule for the name; {_FEED}"
        )
    dnsmasq = _DNSMASQ.fullmatch(entry)
    if dnsmasq is not None:
        steps = dnsmasq[1].split("/")
        if len(steps) < 3 or steps[0] or not all(steps[1:-1]):
            raise ValueError(f"dnsmasq line '{entry}' names no domain; write address=/name/")
        return [_below(name) for name in steps[1:-1]]
    return (parse_pattern(entry).text,)


def _below(name: str) -> str:
    pattern = "." + name.removeprefix(".")
    literal = literal_pattern(pattern)
    return parse_pattern(pattern).text if literal is None else literal[1]


def _exact(name: str) -> str:
    literal = literal_pattern(name)
    if literal is not None and literal[0] == "exact":
        return literal[1]
    parsed = parse_pattern(name)
    if parsed.kind != "exact":
        raise ValueError(
            f"pattern '{name}' in a hosts line; such lines hold names, write the pattern alone on its line"
        )
    return parsed.text
