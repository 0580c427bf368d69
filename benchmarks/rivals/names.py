"""Every way Python has to ask which of many suffixes (".name": the name and everything below) covers a name.

Each builder takes the names and returns what answers one: the number of the longest covering name, or as much of that
as the library can say. A builder whose library is missing raises ImportError; google-re2 shares its module name with
pyre2, so it and hyperscan are measured in an environment of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import distribution

Ask = Callable[[str], object]
Builder = Callable[[list[str]], Ask]


def gobanfast(names: list[str]) -> Ask:
    from gobanfast._names import NameTable

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


def google_re2_set(names: list[str]) -> Ask:
    import re2

    if not hasattr(re2, "Set"):
        raise ImportError(f"module re2 is pyre2 {distribution('pyre2').version} here, which has no Set")
    options = re2.Options()
    options.max_mem = 1 << 30
    rules = re2.Set.FullMatchSet(options)
    for name in names:
        rules.Add(rf"(?:.*\.)?{re2.escape(name)}")
    rules.Compile()
    return rules.Match  # type: ignore[no-any-return]


def hyperscan(names: list[str]) -> Ask:
    import re

    from hyperscan import HS_FLAG_SINGLEMATCH, Database

    database = Database()
    expressions = [rf"(?:^|\.){re.escape(name)}$".encode() for name in names]
    database.compile(expressions=expressions, ids=list(range(len(names))), flags=[HS_FLAG_SINGLEMATCH] * len(names))

    def ask(name: str) -> list[int]:
        found: list[int] = []
        database.scan(name.encode(), match_event_handler=lambda number, *_: found.append(number))
        return found

    return ask


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
