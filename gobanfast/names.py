"""Parser of name patterns (exact, suffix, glob, re:), with errors that name the fault."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from gobanfast._core.enums import NONE
from gobanfast._core.name_text import literal_pattern, normalize_name

__all__ = ["Pattern", "normalize_name", "parse_pattern"]

Kind = Literal["exact", "one", "many", "tree", "glob", "regex"]

_SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123456789-_."
_BIT = {symbol: 1 << index for index, symbol in enumerate(_SYMBOLS, start=1)}  # as gbf_symbol in csrc/name/gbf_name.c
_ANY = sum(_BIT.values())
_IN_LABEL = _ANY ^ _BIT["."]
_META = re.compile(r"[*?\[\]{}+^!]")
_REPEAT = re.compile(r"\{(\d{1,2})(?:(,)(\d{1,2})?)?\}")
_MAX_ITEMS = 512
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]|[*+?]\??|\{[^}]*\}\??|.", re.DOTALL)  # of a regular expression
_PLAIN = frozenset(_SYMBOLS[:-1] + _SYMBOLS[:26].upper())

# One step of a glob: the symbols it takes, whether it may be skipped, whether it may be taken again.
_Item = tuple[int, bool, bool]
_SEPARATOR: _Item = (_BIT["."], False, False)
_LABELS: _Item = (_ANY, True, True)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One parsed pattern.

    `text` is its canonical form: lower case, A-labels, no trailing dot; equal patterns have equal texts. `anchor` is
    the literal right end of a glob ("" when there is none) and `ways` the one or two ways to match what is left of it,
    as the table builder wants them. `literal` is text that every name matched by a regex contains ("": none is known).
    """

    kind: Kind
    text: str
    anchor: str = ""
    ways: tuple[bytes, ...] = ()
    literal: str = ""


def parse_pattern(text: str) -> Pattern:
    """The pattern that `text` stands for.

    Raises:
        ValueError: it stands for none; the message has the text and a hint, no place.
    Source: csrc/DESIGN.md, "Names: what a pattern means".
    """
    if text.startswith("re:"):
        return _parse_regex(text)
    ascii_text = text if text.isascii() else _to_a_labels(text)
    literal = literal_pattern(ascii_text)
    if literal is not None:
        return Pattern(*literal)
    if _META.search(re.sub(r"^\*\*?\.", "", ascii_text)):
        return _parse_glob(text, ascii_text)
    raise ValueError(f"pattern {text!r} is not a name: {_name_problem(ascii_text)}")


def _name_problem(text: str) -> str:
    """Why `text` (a name, perhaps behind a leading form) is refused; the rules of normalize_name one by one."""
    name = re.sub(r"^(\*\*?\.|\.)", "", text).removesuffix(".")
    labels = name.split(".")
    if not name:
        return "nothing is left of it; write a name like example.com"
    if bad := re.search(r"[^A-Za-z0-9._-]", name):
        return f"{bad[0]!r} does not occur in names; write letters, digits, '-' and '_'"
    if "" in labels:
        return "it has an empty label; write single dots"
    if any(len(label) > 63 for label in labels):
        return "a label is longer than 63 bytes"
    if len(name) > 253:
        return "it is longer than 253 bytes"
    return f"its last label {labels[-1]!r} is a number, as in an address; use an address condition"


def _to_a_labels(text: str) -> str:
    """`text` with every non-ASCII label as an A-label (IDNA 2008 after UTS 46 mapping)."""
    import idna

    labels = re.split("[.\u3002\uff0e\uff61]", text)
    for index, label in enumerate(labels):
        if label.isascii():
            continue
        if _META.search(label):
            raise ValueError(
                f"pattern {text!r}: label {label!r} mixes a glob and non-ASCII characters; write its A-label"
            )
        try:
            labels[index] = idna.encode(label, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"pattern {text!r}: label {label!r} is not an internationalised name: {error}") from None
    return ".".join(labels)


def _parse_glob(text: str, ascii_text: str) -> Pattern:
    labels = ascii_text.lower().removesuffix(".").split(".")
    tree = labels[0] == "" and len(labels) > 1
    body = labels[1:] if tree else labels
    if not tree and body[0] == "*" and re.search(r"[\[{+]", ascii_text):
        body[0] = "**"  # with classes or quantifiers, a leading "*." means any number of labels
    if "" in body:
        raise ValueError(f"pattern {text!r} has an empty label; write single dots")
    split = len(body)
    while split > 0 and not _META.search(body[split - 1]):
        split -= 1
    anchor = ".".join(body[split:])
    if anchor and normalize_name(anchor) is None:
        raise ValueError(f"pattern {text!r} is not a name: {_name_problem(anchor)}")
    items: list[_Item] = []
    for label in body[:split]:
        if items:
            items.append(_SEPARATOR)
        items.extend(_label_items(text, label))
    if len(items) > _MAX_ITEMS - 2:
        raise ValueError(f"pattern {text!r} stands for {len(items)} characters; at most {_MAX_ITEMS - 2} are possible")
    ways = [items, [_LABELS, _SEPARATOR, *items]] if tree else [items]
    return Pattern("glob", ("." if tree else "") + ".".join(body), anchor, tuple(_packed(way) for way in ways))


def _packed(items: list[_Item]) -> bytes:
    """Items from right to left, as gbf_glob_item."""
    return b"".join(struct.pack("<QII", *item) for item in reversed(items))


def _label_items(text: str, label: str) -> list[_Item]:
    if label == "**":
        return [_LABELS]
    items: list[_Item] = []
    at = 0
    repeatable = False
    while at < len(label):
        char = label[at]
        if char in "*?" and at > 0 and label[at - 1] in "]+":
            raise ValueError(
                f"pattern {text!r}: {char!r} after {label[at - 1]!r} has two readings; write {{0,}} or {{0,1}} for "
                f"repetition, or {{1}}{char} for any text after it"
            )
        at += 1
        if char == "*":
            if label[at : at + 1] == "*":
                raise ValueError(f"pattern {text!r}: '**' is not a label of its own; write '*' inside a label")
            items.append((_IN_LABEL, True, True))
            repeatable = False
            continue
        if char in "+{":
            low, high, at = _repeat(text, label, at - 1)
            if not repeatable:
                raise ValueError(f"pattern {text!r}: nothing to repeat before {label[at - 1]!r}")
            symbols = items.pop()[0]
            items += [(symbols, False, False)] * low
            items += [(symbols, True, True)] if high is None else [(symbols, True, False)] * (high - low)
            repeatable = False
            continue
        if char == "[":
            symbols, at = _class(text, label, at)
        elif char == "?":
            symbols = _IN_LABEL
        elif char in _BIT:
            symbols = _BIT[char]
        else:
            raise ValueError(
                f"pattern {text!r}: {char!r} does not occur in names; for a full regular expression write 're:'"
            )
        items.append((symbols, False, False))
        repeatable = True
    return items


def _repeat(text: str, label: str, at: int) -> tuple[int, int | None, int]:
    """(least, most or None, index after it) of the quantifier at label[at]."""
    if label[at] == "+":
        return 1, None, at + 1
    found = _REPEAT.match(label, at)
    if found is None:
        raise ValueError(f"pattern {text!r}: bad quantifier in {label[at:]!r}; write {{2}}, {{2,}} or {{2,5}}")
    low = int(found[1])
    high = low if found[2] is None else None if found[3] is None else int(found[3])
    if high is not None and not max(low, 1) <= high <= 63:
        raise ValueError(f"pattern {text!r}: quantifier {found[0]!r} has invalid bounds; a label has 1 to 63 bytes")
    return low, high, found.end()


def _class(text: str, label: str, at: int) -> tuple[int, int]:
    """(symbols, index after "]") of the class whose content starts at label[at]."""
    end = label.find("]", at)
    if end < 0:
        raise ValueError(f"pattern {text!r}: '[' is not closed in its label; a class cannot hold a dot")
    content = label[at:end]
    negated = content[:1] in ("^", "!")
    content = content[negated:]
    symbols = 0
    index = 0
    while index < len(content):
        first = content[index]
        last = first
        if content[index + 1 : index + 2] == "-" and index + 2 < len(content):
            last = content[index + 2]
            index += 2
        index += 1
        same = any(first in letters and last in letters for letters in (_SYMBOLS[:26], _SYMBOLS[26:36]))
        if first not in _BIT or (first != last and (not same or first > last)):
            raise ValueError(
                f"pattern {text!r}: {first + '-' + last if first != last else first!r} in a class is no range of names"
            )
        symbols |= sum(_BIT[chr(code)] for code in range(ord(first), ord(last) + 1))
    symbols = _IN_LABEL & ~symbols if negated else symbols
    if symbols == 0:
        raise ValueError(f"pattern {text!r}: class {label[at - 1 : end + 1]!r} matches nothing")
    return symbols, end + 1


def _parse_regex(text: str) -> Pattern:
    source = text.removeprefix("re:")
    compile_regex(source)
    return Pattern("regex", text, literal=required_literal(source))


def compile_regex(source: str) -> Callable[[str], Any]:
    """The fullmatch method of RE2 for `source`, case-insensitive. ValueError when RE2 cannot run it in linear time."""
    import re2

    if not source:
        raise ValueError("pattern 're:' is empty; write the expression after it")
    re2.set_fallback_notification(re2.FALLBACK_EXCEPTION)
    try:
        pattern = re2.compile(source, re2.IGNORECASE)
    except re.error as error:
        raise ValueError(f"pattern {'re:' + source!r} is not a regular expression RE2 can run: {error}") from None
    if not isinstance(pattern, re2.Pattern):  # another user of the module may have reset the flag or filled its cache
        raise ValueError(f"pattern {'re:' + source!r} is not a regular expression RE2 can run")
    return pattern.fullmatch  # type: ignore[no-any-return]


def required_literal(source: str) -> str:
    """The longest text that every match of the regex contains, groups not looked into; "" when none is certain."""
    if re.search(r"\\[xpPQ0-9]", source):
        return ""
    best = run = ""
    depth = 0
    for part in _TOKEN.findall(source):
        char = part.removeprefix("\\").lower()
        if depth == 0 and (part in (r"\.", r"\-", r"\_") or part in _PLAIN):
            run += char
            continue
        if part[0] in "*?{":
            run = run[:-1]
        best, run = max(best, run, key=len), ""
        depth += (part == "(") - (part == ")")
        if part == "|" and depth == 0:
            return ""
    return max(best, run, key=len)


class Regexes:
    """The `re:` patterns of a table with their values, in order; each is tried only on names that hold its literal."""

    def __init__(self, items: list[tuple[str, int]]) -> None:
        self.items = tuple(items)
        self._steps = [(required_literal(text[3:]), compile_regex(text[3:]), value) for text, value in items]

    def first(self, name: str) -> int:
        """Value of the first regex that matches the normalised `name`, or 0xFFFFFFFF."""
        return next((value for literal, fullmatch, value in self._steps if literal in name and fullmatch(name)), NONE)

    def all(self, name: str) -> list[int]:
        """Values of every regex that matches the normalised `name`."""
        return [value for literal, fullmatch, value in self._steps if literal in name and fullmatch(name)]


def sample(pattern: str) -> str | None:
    """A name that the canonical literal `pattern` covers; None for others and for patterns too long to cover one."""
    literal = literal_pattern(pattern)
    if literal is None:
        return None
    lead = {"one": 2, "many": 3, "tree": 1, "exact": 0}[literal[0]]
    return normalize_name(("x." if lead > 1 else "") + pattern[lead:])


def expand_key(key: bytes | None) -> list[int]:
    """The ten secret numbers of a name table, from `key` or, when that is None, from the system's randomness."""
    if key is None:
        import secrets

        key = secrets.token_bytes(32)
    words = struct.unpack("<10Q", hashlib.shake_256(b"gobanfast names 1" + key).digest(80))
    return [words[0] & (2**59 - 1) or 1, *(word & (2**61 - 1) for word in words[1:])]


def pack_slow(globs: list[str], regexes: list[tuple[str, int]]) -> bytes:
    """What a saved table keeps of globs and regexes besides its automata; nothing when there are none."""
    return json.dumps({"globs": globs, "regexes": regexes}).encode() if globs or regexes else b""


def unpack_slow(data: bytes) -> tuple[list[str], list[tuple[str, int]]]:
    """The (globs, regexes) that pack_slow packed. ValueError when `data` is not its work."""
    if not data:
        return [], []
    try:
        found = json.loads(data)
        globs, regexes = found["globs"], [(text, value) for text, value in found["regexes"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("glob and regex texts are damaged") from None
    good = isinstance(globs, list) and all(isinstance(text, str) for text in globs)
    good = good and all(isinstance(text, str) and type(value) is int and 0 <= value < NONE for text, value in regexes)
    if not good:
        raise ValueError("glob and regex texts are damaged")
    return globs, regexes
