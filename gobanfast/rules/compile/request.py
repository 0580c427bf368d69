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

from gobanfast._dataclass import dataclass
from gobanfast._digest import blake2b
from gobanfast.rules.regex import LONGEST, Regexes, Texts, compile_regex
from gobanfast.rules.rule import PERMISSIVE, HeaderTest, Negation, Rule, Test
from gobanfast.wire.target import readings

if TYPE_CHECKING:
    from gobanfast._core.headers import HeaderPlan
    from gobanfast._core.request_table import RequestTable
    from gobanfast.rules.settings import FingerprintSettings, SessionSettings

CASE_SENSITIVE = (":method", ":path", ":origin")
COMPOSED = {
    ":names": ("host",),
    ":origin": ("origin",),
    ":host": ("host",),
    ":cross_origin_write": ("origin", "host", "sec-fetch-site"),
}
"""Tests by the headers that they read."""

SHARE_HEADERS = ("origin", "host", "access-control-request-method", "access-control-request-headers")
"""What carrying a share rule out reads."""

READINGS = b"readings 1"  # the meaning of a path, which is part of the content hash

Holds = Callable[[str], bool]


def header_plan(
    rules: Iterable[Rule], settings: FingerprintSettings, session: SessionSettings | None = None
) -> HeaderPlan:
    """What finds the headers that `rules` require, and where a session is, and makes fingerprints as `settings` say.

    Raises:
        ValueError: more names than there are slots.
    """
    from gobanfast._core.headers import HeaderPlan

    asked = {name: None for rule in rules for test in rule.when.request_tests for name in headers_of(test.name)}
    if any(rule.effect == "share" for rule in rules):
        asked |= dict.fromkeys(SHARE_HEADERS)
    if session is not None:
        sources = [name if kind == "header" else "cookie" for kind, name in session.sources if kind != "query"]
        asked |= dict.fromkeys(sources if session.uid is None else [*sources, session.uid])
    key = None if settings.key is None else settings.key.encode()
    return HeaderPlan(asked, settings.fields, key=key)


def headers_of(name: str) -> tuple[str, ...]:
    """The headers that a test of this name reads, which need slots."""
    return COMPOSED.get(name, () if name.startswith(":") else (name,))


def request_table(rules: Sequence[Rule], plan: HeaderPlan) -> RequestTable | None:
    """The matchers of `rules`, which are in the order of their bits; None when no rule requires any of this, and none
    is about sharing."""
    from gobanfast._core.request_table import RequestTable

    words = len(rules) // 64 + 1
    asked: dict[str, dict[Test, int]] = {}
    of_admit: set[str] = set()
    digest = blake2b(digest_size=16)
    kinds = Kinds.of(rules)
    for index, rule in enumerate(rules):
        for test in rule.when.request_tests:
            masks = asked.setdefault(test.name, {})
            masks[test] = masks.get(test, 0) | 1 << index
            digest.update(repr((index, test)).encode("utf-8", "surrogatepass"))
            if rule.effect == "admit":
                of_admit.add(test.name)
    if not asked and not any(rule.effect == "share" for rule in rules):
        return None
    digest.update(repr((plan.fields, plan.keyed)).encode())
    if ":path" in asked:
        digest.update(READINGS)
    matchers = [
        (PathMatcher if name == ":path" else OriginRows if name in (":origin", ":host") else Matcher)(
            masks, words, kinds
        )
        for name, masks in asked.items()
    ]
    return RequestTable(
        plan,
        words,
        [
            (name, matcher.unknown(), matcher.row("absent"), matcher.row("malformed"), matcher.favour(), matcher,
             name in of_admit)
            for name, matcher in zip(asked, matchers, strict=True)
        ],
        digest.hexdigest(),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kinds:
    """Masks of the rules that are permissive, that a preflight is to be favoured by, and that are about admission.

    What owns a resource is restrictive, but favours a preflight where it is a grant: else nobody would answer it.
    """

    permissive: int
    favouring: int
    admit: int

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> Kinds:
        def mask(chosen: Iterable[bool]) -> int:
            return sum(holds << index for index, holds in enumerate(chosen))

        permissive = mask(rule.action in PERMISSIVE for rule in rules)
        return cls(
            permissive,
            permissive | mask(rule.grant is not None for rule in rules),
            mask(rule.effect == "admit" for rule in rules),
        )


class Matcher:
    """Rows of the values of one header: bit i is set where every test that rule i has on it holds.

    `longest` is how many bytes of a value the tests of rules about admission read, None: all. Of one longer than
    LONGEST no `regex` and no `contains` holds.
    """

    def __init__(self, masks: dict[Test, int], words: int, kinds: Kinds) -> None:
        self._masks, self._nbytes = masks, 8 * words
        self._full = (1 << 8 * self._nbytes) - 1
        self._permissive, self._favouring = kinds.permissive, kinds.favouring
        self._fold = next(iter(masks)).name not in CASE_SENSITIVE
        plain = {test: mask for test, mask in masks.items() if isinstance(test, HeaderTest)}
        exact = {test for test in plain if test.operator == "equals" and "present" not in test.words}
        self._exact = [(frozenset(map(self._same, test.values)), masks[test]) for test in exact]
        self._listed: frozenset[str] = frozenset().union(*(values for values, _ in self._exact))
        self._unlisted = self._full  # what the exact tests leave of rules where a value is in none of them
        for _, mask in self._exact:
            self._unlisted &= ~mask
        regexes = [(test, mask) for test, mask in plain.items() if test not in exact and test.operator == "regex"]
        contains = [(test, mask) for test, mask in plain.items() if test not in exact and test.operator == "contains"]
        self._regexes = Regexes([alternation(test.values) for test, _ in regexes], ignore_case=self._fold)
        self._texts = Texts((text.lower(), number) for number, (test, _) in enumerate(contains) for text in test.values)
        self._regex_masks, self._text_masks = [mask for _, mask in regexes], [mask for _, mask in contains]
        self._sought = 0
        for mask in self._regex_masks + self._text_masks:
            self._sought |= mask
        self._doubtful = 0  # permissive rules that a value too long for patterns keeps from holding
        for test, mask in masks.items():
            if _of_parts(test):
                self._doubtful |= mask
        self.longest = LONGEST if (self._sought | self._doubtful) & kinds.admit else None
        self._doubtful &= kinds.permissive
        others = masks.keys() - exact - {test for test, _ in regexes} - {test for test, _ in contains}
        self._asked = [(holds(test), mask, _of_parts(test)) for test, mask in masks.items() if test in others]

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
        for test_holds, mask, of_parts in self._asked:
            if not (long and of_parts) and not test_holds(text):
                row &= ~mask
        if self._sought:
            row &= ~(self._sought if long else self._missing(text))
        return row & ~self._doubtful if long else row

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

    def row(self, word: str) -> bytes:
        """The row of a header that has no value to look at, being "absent" or "malformed"."""
        row = self._full
        for test, mask in self._masks.items():
            if isinstance(test, HeaderTest):
                unread = word == "malformed" and test.name == ":cross_origin_write" and "1" in test.values
                row &= ~(mask & self._permissive if unread else mask) if word not in test.words else self._full
            elif all(word in part.words for part in test.tests):
                row &= ~mask
            elif word == "malformed":
                row &= ~(mask & self._permissive)
        return row.to_bytes(self._nbytes, "little")

    def unknown(self) -> bytes:
        """The row of a header of which nobody knows whether it is there: no test holds, and no negation."""
        return self._without(self._full).to_bytes(self._nbytes, "little")

    def favour(self) -> bytes:
        """The row that speaks for a preflight, which carries none of this: permissive rules hold, restrictive ones do
        not."""
        return self._without(self._full & ~self._favouring).to_bytes(self._nbytes, "little")

    def _without(self, mask: int) -> int:
        """All rules but those of `mask` that have a test."""
        return self._full & ~(functools.reduce(operator.or_, self._masks.values(), 0) & mask)


class PathMatcher(Matcher):
    """Rows of paths. A rule is asked as a whole under one reading: a restrictive one holds when any reading satisfies
    it, a permissive one (bits of `permissive`) when all do, with the mount or without it."""

    def __init__(self, masks: dict[Test, int], words: int, kinds: Kinds) -> None:
        super().__init__(masks, words, kinds)
        self._rules = self._full >> 1

    def __call__(self, value: bytes, mount: bytes = b"") -> bytes:
        found = readings(value, mount)
        if found is None:  # the last bit says so
            return self.row("malformed")
        rows = {text: self.bits(text, len(value) > LONGEST) for text in found.every}
        row = functools.reduce(operator.or_, rows.values())
        if len(rows) > 1:
            full = functools.reduce(operator.and_, [rows[text] for text in found.full])
            inner = functools.reduce(operator.and_, [rows[text] for text in found.inner])
            row = row & ~self._permissive | (full | inner) & self._permissive
        return (row & self._rules).to_bytes(self._nbytes, "little")


class OriginRows(Matcher):
    """Rows of origins, or of hosts: a value is read by its grammar, and one that is none is malformed.

    Every test is a group of patterns, and a value has the class of all groups that match it; without regexes the table
    needs no more than `native` and `class_rows`.
    """

    longest = None

    def __init__(self, masks: dict[Test, int], words: int, kinds: Kinds) -> None:
        from gobanfast._core.origin_set import OriginMatcher

        self._masks, self._nbytes = masks, 8 * words
        self._permissive, self._favouring = kinds.permissive, kinds.favouring
        self._full = (1 << 8 * self._nbytes) - 1
        self._hosts = next(iter(masks)).name == ":host"
        listed = [values_of(test) for test in masks]
        self.native = OriginMatcher(
            [[text for text in values if not text.startswith("re:")] for values in listed], self._hosts
        )
        self._patterns = [
            (group, compile_regex(f"^(?:{text[3:]})$", ignore_case=False))
            for group, values in enumerate(listed)
            for text in values
            if text.startswith("re:")
        ]
        self._groups = [(mask, isinstance(test, Negation)) for test, mask in masks.items()]
        self._positive = several = 0  # what needs a match; what needs more than one
        for mask, negated in self._groups:
            if not negated:
                several |= self._positive & mask
                self._positive |= mask
        self._several = [(group, mask) for group, (mask, negated) in enumerate(self._groups)
                         if not negated and mask & several]  # fmt: skip
        rows = [self.row("malformed"), *(self._of_groups(frozenset(groups)) for groups in self.native.sets[1:])]
        self.class_rows = None if self._patterns else b"".join(rows)

    def __call__(self, value: bytes) -> bytes:
        port, _, host = value.partition(b"\n") if self._hosts else (b"", b"", value)
        text = text_of(host)
        number = self.native.find_text(text, int(port or 0))
        if number == 0:
            return self.row("malformed")
        asked = () if text == "null" else self._patterns  # what every sandboxed page sends is nobody's
        matched = {group for group, regex in asked if regex.search(text) is not None}
        return self._of_groups(matched.union(self.native.sets[number]))

    def _of_groups(self, matched: frozenset[int] | set[int]) -> bytes:
        """The row of a value that patterns of these groups match."""
        met = lost = 0  # thousands of groups have as many classes: only those that match are looked at
        for group in matched:
            mask, negated = self._groups[group]
            if negated:
                lost |= mask
            else:
                met |= mask
        for group, mask in self._several:
            if group not in matched:
                lost |= mask
        return (self._full & ~(self._positive & ~met | lost)).to_bytes(self._nbytes, "little")


def _of_parts(test: Test) -> bool:
    """Whether this is the negation of a test that reads no long values; of those it does not hold."""
    return isinstance(test, Negation) and any(part.operator in ("regex", "contains") for part in test.tests)


def values_of(test: Test) -> tuple[str, ...]:
    """The values that a test lists, or those of the one test that must not hold."""
    return test.tests[0].values if isinstance(test, Negation) else test.values


def reading_of(rule: Rule, value: bytes, mount: bytes = b"") -> str | None:
    """The reading of a path under which the conditions of `rule` on it hold, one of all where all do; None: none."""
    found = readings(value, mount)
    tests = [holds(test) for test in rule.when.request_tests if test.name == ":path"]
    return None if found is None else next((text for text in found.every if all(test(text) for test in tests)), None)


def always_holds(rule: Rule, value: bytes, mount: bytes = b"") -> bool:
    """Whether the conditions of `rule` on a path hold under all its readings, with the mount or without it."""
    tests = [holds(test) for test in rule.when.request_tests if test.name == ":path"]
    found = readings(value, mount) if tests else None
    return not tests or (found is not None and any(all(test(text) for test in tests for text in texts)
                                                   for texts in (found.full, found.inner)))  # fmt: skip


def alternation(patterns: Iterable[str]) -> str:
    """The regex that any of `patterns` matches."""
    return "|".join(f"(?:{text})" for text in patterns)


def text_of(value: bytes) -> str:
    """A value as text: UTF-8 where it is that, else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def holds(test: Test) -> Holds:
    """Whether the test holds for a text."""
    if isinstance(test, Negation):
        parts = [holds(part) for part in test.tests]
        return lambda text: not all(part(text) for part in parts)
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
