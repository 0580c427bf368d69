"""Compiler of conditions on headers, method, path, fingerprint, shape and names into the request table.

A test is one operator on one header. For a value, every distinct test is worked out once, whatever the number of
rules that have it; the row of the value is the AND of what each test leaves of all rules. `_requests` remembers rows
by value.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from gobanfast._digest import blake2b
from gobanfast.rules.regex import LONGEST, Regexes, Texts, compile_regex
from gobanfast.rules.rule import HeaderTest, Rule
from gobanfast.wire.target import readings

if TYPE_CHECKING:
    from gobanfast._core.headers import HeaderPlan
    from gobanfast._core.request_table import RequestTable
    from gobanfast.rules.settings import FingerprintSettings

CASE_SENSITIVE = (":method", ":path")

READINGS = b"readings 1"  # the meaning of a path, which is part of the content hash

Holds = Callable[[str], bool]


def header_plan(rules: Iterable[Rule], settings: FingerprintSettings) -> HeaderPlan:
    """What finds the headers that `rules` require, and makes fingerprints as `settings` say.

    Raises:
        ValueError: more names than there are slots.
    """
    from gobanfast._core.headers import HeaderPlan

    asked = {test.name: None for rule in rules for test in rule.when.header or ()}
    if any(rule.when.on_names for rule in rules):
        asked["host"] = None
    key = None if settings.key is None else settings.key.encode()
    return HeaderPlan(asked, settings.fields, key=key)


def request_table(rules: Sequence[Rule], plan: HeaderPlan) -> RequestTable | None:
    """The matchers of `rules`, which are in decision order; None when no rule requires any of this."""
    from gobanfast._core.request_table import RequestTable

    words = len(rules) // 64 + 1
    asked: dict[str, dict[HeaderTest, int]] = {}
    digest = blake2b(digest_size=16)
    permissive = 0
    for index, rule in enumerate(rules):
        permissive |= (rule.action == "allow") << index
        for test in rule.when.request_tests:
            masks = asked.setdefault(test.name, {})
            masks[test] = masks.get(test, 0) | 1 << index
            digest.update(repr((index, test)).encode("utf-8", "surrogatepass"))
    if not asked:
        return None
    digest.update(repr((plan.fields, plan.keyed)).encode())
    if ":path" in asked:
        digest.update(READINGS)
    matchers = [
        PathMatcher(masks, words, permissive) if name == ":path" else Matcher(masks, words)
        for name, masks in asked.items()
    ]
    return RequestTable(
        plan,
        words,
        [
            (name, matcher.row(lambda _: False), matcher.row(_has_word("absent")), matcher.row(_has_word("malformed")),
             matcher)
            for name, matcher in zip(asked, matchers, strict=True)
        ],
        digest.hexdigest(),
    )  # fmt: skip


class Matcher:
    """Rows of the values of one header: bit i is set where every test that rule i has on it holds.

    `longest` is how many bytes of a value the tests read; of one that is longer no `regex` and no `contains` holds.
    """

    def __init__(self, masks: dict[HeaderTest, int], words: int) -> None:
        self._masks, self._nbytes = masks, 8 * words
        self._full = (1 << 8 * self._nbytes) - 1
        self._fold = next(iter(masks)).name not in CASE_SENSITIVE
        exact = {test for test in masks if test.operator == "equals" and "present" not in test.words}
        self._exact = [(frozenset(map(self._same, test.values)), masks[test]) for test in exact]
        self._listed: frozenset[str] = frozenset().union(*(values for values, _ in self._exact))
        self._unlisted = self._full  # what the exact tests leave of rules where a value is in none of them
        for _, mask in self._exact:
            self._unlisted &= ~mask
        regexes = [(test, mask) for test, mask in masks.items() if test not in exact and test.operator == "regex"]
        contains = [(test, mask) for test, mask in masks.items() if test not in exact and test.operator == "contains"]
        self._regexes = Regexes([alternation(test.values) for test, _ in regexes], ignore_case=self._fold)
        self._texts = Texts((text.lower(), number) for number, (test, _) in enumerate(contains) for text in test.values)
        self._regex_masks, self._text_masks = [mask for _, mask in regexes], [mask for _, mask in contains]
        self._sought = 0
        for mask in self._regex_masks + self._text_masks:
            self._sought |= mask
        self.longest = LONGEST if self._sought else None
        plain = masks.keys() - exact - {test for test, _ in regexes} - {test for test, _ in contains}
        self._asked = [(holds(test), mask) for test, mask in masks.items() if test in plain]

    def __call__(self, value: bytes) -> bytes:
        return self.bits(text_of(value), len(value) > LONGEST).to_bytes(self._nbytes, "little")

    def bits(self, text: str, long: bool) -> int:
        """The row of a text as a number; of a `long` one patterns are not sought."""
        same = self._same(text)
        row = self._unlisted
        if same in self._listed:
            row = self._full
            for values, mask in self._exact:
                if same not in values:
                    row &= ~mask
        for test_holds, mask in self._asked:
            if not test_holds(text):
                row &= ~mask
        if self._sought:
            row &= ~(self._sought if long else self._missing(text))
        return row

    def _missing(self, text: str) -> int:
        """The rules with a `regex` or a `contains` that does not hold."""
        missing = 0
        for masks, found in (
            (self._regex_masks, self._regexes.found(text) if self._regex_masks else ()),
            (self._text_masks, self._texts.found(text.lower()) if self._text_masks else ()),
        ):
            for number, mask in enumerate(masks):
                if number not in found:
                    missing |= mask
        return missing

    def _same(self, text: str) -> str:
        return text.lower() if self._fold else text

    def row(self, holds_without_value: Callable[[HeaderTest], bool]) -> bytes:
        """The row of a header that has no value to look at."""
        row = self._full
        for test, mask in self._masks.items():
            if not holds_without_value(test):
                row &= ~mask
        return row.to_bytes(self._nbytes, "little")


class PathMatcher(Matcher):
    """Rows of paths. A rule is asked as a whole under one reading: a restrictive one holds when any reading satisfies
    it, a permissive one (bits of `permissive`) when all do, with the mount or without it."""

    def __init__(self, masks: dict[HeaderTest, int], words: int, permissive: int) -> None:
        super().__init__(masks, words)
        self._permissive, self._rules = permissive, self._full >> 1
        self._unasked = self._full & ~functools.reduce(operator.or_, masks.values())

    def __call__(self, value: bytes, mount: bytes = b"") -> bytes:
        found = readings(value, mount)
        if found is None:  # the last bit says so
            return (self._unasked | self._full ^ self._rules).to_bytes(self._nbytes, "little")
        rows = {text: self.bits(text, len(value) > LONGEST) for text in found.every}
        row = functools.reduce(operator.or_, rows.values())
        if len(rows) > 1:
            full = functools.reduce(operator.and_, [rows[text] for text in found.full])
            inner = functools.reduce(operator.and_, [rows[text] for text in found.inner])
            row = row & ~self._permissive | (full | inner) & self._permissive
        return (row & self._rules).to_bytes(self._nbytes, "little")


def reading_of(rule: Rule, value: bytes, mount: bytes = b"") -> str | None:
    """The reading of a path under which the conditions of `rule` on it hold, one of all where all do; None: none."""
    found = readings(value, mount)
    tests = [holds(test) for test in rule.when.path or ()]
    return None if found is None else next((text for text in found.every if all(test(text) for test in tests)), None)


def _has_word(word: str) -> Callable[[HeaderTest], bool]:
    return lambda test: word in test.words


def alternation(patterns: Iterable[str]) -> str:
    """The regex that any of `patterns` matches."""
    return "|".join(f"(?:{text})" for text in patterns)


def text_of(value: bytes) -> str:
    """A value as text: UTF-8 where it is that, else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def holds(test: HeaderTest) -> Holds:
    """Whether the test holds for a text."""
    if "present" in test.words:
        return lambda _: True
    if test.operator == "regex":
        ignore_case = test.name not in CASE_SENSITIVE
        search = compile_regex(alternation(test.values), ignore_case=ignore_case).search
        return lambda text: search(text) is not None
    if test.operator == "glob":
        match = compile_regex("|".join(map(glob_regex, test.values)), ignore_case=False).search
        return lambda text: match(text) is not None
    if test.operator == "family":
        from gobanfast._core.headers import user_agent_family

        return lambda text: user_agent_family(text.encode()) in test.values
    if test.operator == "crawler":
        return _claims(frozenset(test.values))
    if test.operator == "lookalike":
        return _looks_like(test.values)
    if test.operator == "sni_host":
        return _agrees(frozenset(test.values), test.names)
    if test.name in CASE_SENSITIVE:
        return _compare(test.operator, test.values)
    compare = _compare(test.operator, tuple(text.lower() for text in test.values))
    return lambda text: compare(text.lower())


def _claims(names: frozenset[str]) -> Holds:
    from gobanfast.wire.crawlers import claimed_crawler

    def claimed(text: str) -> bool:
        found = claimed_crawler(text)
        return found is not None and ("any" in names or found.name in names)

    return claimed


def _looks_like(protected: tuple[str, ...]) -> Holds:
    from gobanfast.wire.lookalikes import Lookalikes

    lookup = Lookalikes(protected).lookup
    return lambda text: any(lookup(name) is not None for name in names_in(text))


def _agrees(wanted: frozenset[str], certificate: tuple[str, ...]) -> Holds:
    from gobanfast.wire.hosts import agreement

    def agrees(text: str) -> bool:
        sni, known, host = text.partition("\n")
        return bool(known) and agreement(sni, host, certificate) in wanted

    return agrees


def names_in(text: str) -> tuple[str, ...]:
    """The distinct names in a value of ":names": server name, line feed, host; addresses are none."""
    from gobanfast._core.address import parse_address
    from gobanfast.wire.hosts import host_name

    sni, _, authority = text.partition("\n")
    found = dict.fromkeys((sni, host_name(authority)))
    return tuple(name for name in found if name and parse_address(name) is None)


def _compare(operator: str, values: tuple[str, ...]) -> Holds:
    if operator == "prefix":
        return lambda text: text.startswith(values)
    if operator == "suffix":
        return lambda text: text.endswith(values)
    if operator == "contains":
        return lambda text: any(value in text for value in values)
    wanted = frozenset(values)
    return lambda text: text in wanted


def glob_regex(pattern: str) -> str:
    """The regex of a path pattern: `**` is anything, `*` and `?` anything but a slash, the rest stands for itself."""
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    meant = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return f"^(?s:{''.join(meant.get(part) or re.escape(part) for part in parts)})$"
