"""Name lists for `sni_file`: a million entries as one condition.

The format is detected for each line, so formats may be mixed; gzip is recognised by its first bytes:

- plain, a pattern as `sni` takes it: what the pattern covers ("example.com" covers that name only);
- hosts file, `0.0.0.0 example.com www.example.com`: these names and nothing below them, as in /etc/hosts;
- AdBlock domain rule, `||example.com^`: the name and everything below it;
- dnsmasq, `address=/example.com/example.net/0.0.0.0`, `server=/example.com/`, `local=/example.com/`: the same.

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
_COMMENT = re.compile(r"(?:^|\s)#.*")
_HEADER = re.compile(r"\[(?:adblock|adguard|ublock)[^\]]*\]", re.IGNORECASE)  # "[ab]*" is a pattern
_DNSMASQ = re.compile(r"(?:address|server|local)=(.*)")


def read_names(path: Path) -> tuple[NameList, list[Problem]]:
    """The patterns in a list file, and every entry that is none.

    Raises:
        ListError: the file is missing, unreadable, damaged, or larger than MAX_LIST_BYTES.
    Cost: O(bytes); about a microsecond a line.
    """
    text = read_bytes(path).decode("utf-8-sig", "replace")
    found: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), 1):
        literal = literal_pattern(line)  # most lines of most lists, and what no other format looks like
        if literal is not None:
            found.append(literal[1])
            continue
        entry = (_COMMENT.sub("", line) if "#" in line else line).strip()
        if not entry or entry[0] in "!;" or _HEADER.fullmatch(entry):
            continue
        try:
            found += _patterns(entry)
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            if len(entry) > MAX_ENTRY:
                message, hint = f"entry '{entry[:60]}...' is {len(entry)} characters long", "one name a line"
            problems.append(Problem(str(path), number, line.index(entry) + 1, message, hint))
    return NameList("\n".join(found)), problems


def _patterns(entry: str) -> Iterable[str]:
    """Canonical patterns of one entry. Raises ValueError, "what; hint"."""
    words = entry.split()
    if len(words) > 1:
        if parse_address(words[0].partition("%")[0]) is None:
            raise ValueError(f"entry '{entry}' has no known format; write one pattern a line, or address and names")
        return [_exact(name) for name in words[1:] if name.lower() not in _MACHINE]
    if entry.startswith("||"):
        name, end, rest = entry[2:].partition("^")
        if not end or rest:
            raise ValueError(f"AdBlock rule '{entry}' does not block whole domains; only ||name^ is read")
        return (_below(name),)
    if entry.startswith("@@"):
        raise ValueError(f"AdBlock exception '{entry}' cannot be part of a list; write an allow rule for the name")
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
