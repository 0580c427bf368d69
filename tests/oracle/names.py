"""Names and patterns the slow way: split at the dots, walk the labels, try every pattern on every name."""

from __future__ import annotations

import re

LABEL = re.compile(r"[a-z0-9_-]{1,63}")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
RANKS = {"exact": 0, "suffix": 1, "glob": 2, "regex": 3}


def normalize(text: str) -> str | None:
    """The name, or None when it is malformed."""
    name = text.lower() if text.isascii() else ""
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(LABEL.fullmatch(label) for label in labels) or NUMBER.fullmatch(labels[-1]):
        return None
    return name


def canonical(pattern: str) -> str:
    """One text for all ways of writing a pattern."""
    if pattern.startswith("re:"):
        return pattern
    pattern = pattern.lower().removesuffix(".")
    if pattern.startswith("*.") and re.search(r"[\[{+]", pattern):
        return "*" + pattern  # with classes and quantifiers a leading "*." means one or more labels
    return pattern


def label_regex(label: str) -> str:
    """The label as a regex: "*" and "?" as a shell has them, classes and quantifiers as a regex has them."""
    parts = re.findall(r"\[[^\]]*\]|\{[^}]*\}|.", label)
    shell = {"*": ".*", "?": ".", "-": r"\-"}
    return "".join(part.replace("[!", "[^", 1) if part[0] == "[" else shell.get(part, part) for part in parts)


def labels_match(pattern: list[str], name: list[str]) -> bool:
    if not pattern or not name:
        return not pattern and not name
    if pattern[0] == "**":
        return any(labels_match(pattern[1:], name[taken:]) for taken in range(1, len(name) + 1))
    return re.fullmatch(label_regex(pattern[0]), name[0]) is not None and labels_match(pattern[1:], name[1:])


def matches(pattern: str, name: str) -> bool:
    """Does the canonical pattern cover the normalised name?"""
    if pattern.startswith("re:"):
        return re.fullmatch(pattern[3:], name, re.IGNORECASE) is not None
    labels = name.split(".")
    if pattern.startswith("."):
        below = pattern[1:].split(".")
        return labels_match(below, labels) or labels_match(["**", *below], labels)
    return labels_match(pattern.split("."), labels)


def rank(pattern: str) -> tuple[int, int]:
    """Sorts patterns that cover one name, most specific first; equal ranks go by order."""
    if pattern.startswith("re:"):
        return RANKS["regex"], 0
    literal = re.sub(r"^(\*\*?\.|\.)", "", pattern)
    if re.search(r"[*?\[{+]", literal):
        return RANKS["glob"], 0
    return (RANKS["exact"], 0) if literal == pattern else (RANKS["suffix"], -len(literal))


def table(items: list[tuple[str, int]]) -> dict[str, int]:
    """Canonical pattern -> value; of equal patterns the first one counts."""
    found: dict[str, int] = {}
    for pattern, value in items:
        found.setdefault(canonical(pattern), value)
    return found


def lookup_all(items: list[tuple[str, int]], text: str) -> list[int]:
    """Values of every pattern that covers the name, most specific first."""
    name = normalize(text)
    if name is None:
        return []
    found = table(items)
    return [found[pattern] for pattern in sorted((p for p in found if matches(p, name)), key=rank)]


def lookup(items: list[tuple[str, int]], text: str) -> int | None:
    values = lookup_all(items, text)
    return values[0] if values else None


def lookup_suffix(parents: dict[str, int], name: str) -> int | None:
    """Value of the longest suffix of `name` among `parents`; for sets too large to try every pattern."""
    labels = name.split(".")
    for first in range(len(labels)):
        value = parents.get(".".join(labels[first:]))
        if value is not None:
            return value
    return None
