"""Every way Python has to ask which of many suffixes (".name": the name and everything below) covers a name.

Each builder takes the names and returns what answers one: the number of the longest covering name, or as much of that
as the library can say. A builder whose library is missing raises ImportError. google-re2 shares its module name with
pyre2, which the rules import: it is installed in a folder of its own and loaded under another name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

Ask = Callable[[str], object]
Builder = Callable[[list[str]], Ask]

GOOGLE_RE2 = Path(__file__).parents[2] / "build" / "rivals" / "re2"  # `make bench` installs it there


def gobanfast(names: list[str]) -> Ask:
    from gobanfast._core.name_table import NameTable

    return NameTable(("." + name, number) for number, name in enumerate(names)).lookup


def dict_parents(names: list[str]) -> Ask:
    numbers = {name: number for number, name in enumerate(names)}
    get = numbers.get

    def ask(name: str) -> int | None:
        while True:
            number = get(name)
            if number is not None:
                return number
            _, dot, name = name.partition(".")
            if not dot:
                return None

    return ask


def set_of_parents(names: list[str]) -> Ask:
    known = set(names)

    def ask(name: str) -> bool:
        labels = name.split(".")
        return any(".".join(labels[first:]) in known for first in range(len(labels)))

    return ask


def dict_label_walk(names: list[str]) -> Ask:
    root: dict[str, dict[str, object]] = {}
    for number, name in enumerate(names):
        at = root
        for label in reversed(name.split(".")):
            at = at.setdefault(label, {})  # type: ignore[assignment]
        at[""] = number  # type: ignore[assignment]

    def ask(name: str) -> object:
        at, best = root, None
        for label in reversed(name.split(".")):
            below = at.get(label)
            if below is None:
                break
            at = below  # type: ignore[assignment]
            best = at.get("", best)
        return best

    return ask


def _key(name: str) -> str:
    return name[::-1] + "."


def marisa_trie(names: list[str]) -> Ask:
    from marisa_trie import Trie

    trie = Trie([_key(name) for name in names])
    return lambda name: trie.prefixes(name[::-1] + ".")


def dawg2(names: list[str]) -> Ask:
    from dawg import IntDAWG

    dawg = IntDAWG([(_key(name), number) for number, name in enumerate(names)])
    return lambda name: dawg.prefixes(name[::-1] + ".")


def pyahocorasick(names: list[str]) -> Ask:
    from ahocorasick import Automaton

    automaton = Automaton()
    for number, name in enumerate(names):
        automaton.add_word(f".{name}$", number)
    automaton.make_automaton()
    return lambda name: [number for _, number in automaton.iter(f".{name}$")]


def ahocorasick_rs(names: list[str]) -> Ask:
    from ahocorasick_rs import AhoCorasick

    automaton = AhoCorasick([f".{name}$" for name in names])
    return lambda name: automaton.find_matches_as_indexes(f".{name}$")


def adblock(names: list[str]) -> Ask:
    from adblock import Engine, FilterSet

    rules = FilterSet()
    rules.add_filters([f"||{name}^" for name in names])
    check = Engine(rules).check_network_urls
    return lambda name: check(f"https://{name}/", "https://page.test/", "script").matched


@cache
def google_re2() -> Any:
    """The module of google-re2, under a name that does not hide pyre2's."""
    spec = spec_from_file_location(
        "google_re2", GOOGLE_RE2 / "__init__.py", submodule_search_locations=[str(GOOGLE_RE2)]
    )
    if spec is None or spec.loader is None or not GOOGLE_RE2.is_dir():
        raise ImportError("google-re2 is not in build/rivals: pip install --no-deps --target build/rivals google-re2")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def re2_set(expressions: list[str]) -> Ask:
    re2 = google_re2()
    options = re2.Options()
    options.max_mem = 1 << 30
    rules = re2.Set.FullMatchSet(options)
    for expression in expressions:
        rules.Add(expression)
    rules.Compile()
    return rules.Match  # type: ignore[no-any-return]


def hyperscan_database(expressions: list[str]) -> Ask:
    from hyperscan import HS_FLAG_SINGLEMATCH, Database

    database = Database()
    count = len(expressions)
    encoded = [expression.encode() for expression in expressions]
    database.compile(expressions=encoded, ids=list(range(count)), flags=[HS_FLAG_SINGLEMATCH] * count)

    def ask(name: str) -> list[int]:
        found: list[int] = []
        database.scan(name.encode(), match_event_handler=lambda number, *_: found.append(number))
        return found

    return ask


def google_re2_set(names: list[str]) -> Ask:
    return re2_set([rf"(?:.*\.)?{re.escape(name)}" for name in names])


def hyperscan(names: list[str]) -> Ask:
    return hyperscan_database([rf"(?:^|\.){re.escape(name)}$" for name in names])


# ---- mixed patterns: dicts for the literal ones, and for the globs one of the two libraries that take many expressions

CHARACTER = "[a-z0-9_-]"
ANY_LABELS = rf"{CHARACTER}+(?:\.{CHARACTER}+)*"


def expression_of(glob: str) -> str:
    """A regular expression for one glob, as csrc/DESIGN.md says what it means."""
    head, *tail = glob.split(".")
    if head == "*" and re.search(r"[\[{+]", glob):
        head = "**"
    labels = []
    for label in [head, *tail]:
        if label in {"*", "**"}:
            labels.append(ANY_LABELS if label == "**" else f"{CHARACTER}+")
        else:
            labels.append(re.sub(r"[*?]", lambda found: CHARACTER + "*" * (found[0] == "*"), label))
    if head == "":
        return rf"(?:{ANY_LABELS}\.)?" + r"\.".join(labels[1:])
    return r"\.".join(labels)


def dicts_and(many: Callable[[list[str]], Ask], items: list[tuple[str, int]], globs: set[str]) -> Ask:
    exact: dict[str, int] = {}
    below: dict[str, int] = {}
    trees: dict[str, int] = {}
    for text, number in items:
        if text not in globs:
            kind = below if text.startswith("*.") else trees if text.startswith(".") else exact
            kind[text.lstrip("*.")] = number
    ask_globs = many([expression_of(text) for text in globs])

    def ask(name: str) -> object:
        number = exact.get(name)
        if number is not None:
            return number
        number = below.get(name.partition(".")[2])
        if number is not None:
            return number
        rest = name
        while rest:
            number = trees.get(rest)
            if number is not None:
                return number
            rest = rest.partition(".")[2]
        return ask_globs(name)

    return ask


def load_mixed(items: list[tuple[str, int]], globs: set[str]) -> Iterator[tuple[str, Ask | ImportError]]:
    """(rival, what answers a name of the mixed table), or why there is none."""
    anchored: dict[str, Callable[[list[str]], Ask]] = {
        "dicts, google_re2_set": re2_set,
        "dicts, hyperscan": lambda expressions: hyperscan_database([f"^{text}$" for text in expressions]),
    }
    for label, many in anchored.items():
        try:
            yield label, dicts_and(many, items, globs)
        except ImportError as error:
            yield label, error


# Builder -> the largest set it gets through in reasonable time and memory.
BUILDERS: dict[Builder, int] = {
    gobanfast: 10**7, dict_parents: 10**7, set_of_parents: 10**7, dict_label_walk: 10**7, marisa_trie: 10**7,
    dawg2: 10**7, pyahocorasick: 10**7, ahocorasick_rs: 10**7, adblock: 10**7, google_re2_set: 10**3, hyperscan: 10**3,
}  # fmt: skip


def load(names: list[str]) -> Iterator[tuple[str, Ask | ImportError]]:
    """(rival, what answers a name), or why there is none."""
    for builder, most in BUILDERS.items():
        if len(names) > most:
            continue
        label = "gobanfast NameTable.lookup" if builder is gobanfast else builder.__name__
        try:
            yield label, builder(names)
        except ImportError as error:
            yield label, error
