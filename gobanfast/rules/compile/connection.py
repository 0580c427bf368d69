"""Compiler of conditions on the server name and the ClientHello into the connection table.

Every condition is one bit of a row. What satisfies conditions (a name pattern, a fingerprint, a protocol) gets the
number of a row, and equal sets of bits share one; a list of a million names is one bit and one row.
`_core.connection_table` reads the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from gobanfast.rules.rule import Rule
from gobanfast.rules.text.fields import SNI_WORDS, TLS_VERSIONS

if TYPE_CHECKING:
    from gobanfast._core.connection_table import ConnectionTable
    from gobanfast._core.name_table import NameTable

Key = TypeVar("Key", str, bytes)
Words = NDArray[np.uint64]

ASKS_NAME, ASKS_HELLO, ASKS_JA4, ASKS_ALPN = 1, 2, 4, 8
QUIET = 4  # bits from each of the first three to the flag that no rule about admission asks for it
_VERSIONS = (0x0300, *TLS_VERSIONS.values())
_ECHS = ("none", "outer", "inner")


def connection_table(rules: Sequence[Rule]) -> ConnectionTable | None:
    """The rows of `rules`, which are in decision order; None when no rule requires either.

    Raises:
        ValueError: name patterns that do not compile together; the message names one.
    Cost: about a microsecond for each name pattern.
    """
    if not any(rule.when.on_connection for rule in rules):
        return None
    from gobanfast._core.connection_table import ConnectionTable

    words = len(rules) // 64 + 1
    names, names_digest, name_rows = _names(rules, words)
    hello_rows = _hello_rows(rules, words)
    ja4_terms, ja4_rows, text = _terms(_ja4s(rules), _indexes(not rule.when.on_ja4 for rule in rules), words, b"")
    alpn_terms, alpn_rows, text = _terms(_alpns(rules), _indexes(rule.when.alpn is None for rule in rules), words, text)
    asks = _asks(rules)
    quiet = asks & ~_asks(rule for rule in rules if rule.effect == "admit") & ~ASKS_ALPN
    return ConnectionTable(
        words=words,
        asks=asks | quiet << QUIET,
        absent=(name_rows[0, :words] & name_rows[0, words:] & hello_rows[0]).data,
        names=names,
        names_digest=names_digest,
        name_rows=name_rows.data,
        hello_rows=hello_rows.data,
        ja4_terms=ja4_terms.data,
        ja4_rows=ja4_rows.data,
        alpn_terms=alpn_terms.data,
        alpn_rows=alpn_rows.data,
        text=text,
    )


def _asks(rules: Iterable[Rule]) -> int:
    """What some rule requires."""
    asks = 0
    for rule in rules:
        when = rule.when
        asks |= ASKS_NAME * when.on_sni | ASKS_HELLO * when.on_hello | ASKS_JA4 * when.on_ja4
        asks |= ASKS_ALPN * (when.alpn is not None)
    return asks


def _names(rules: Sequence[Rule], words: int) -> tuple[NameTable, bytes, Words]:
    """Table of all patterns, a digest of them, and rows: absent, malformed, then one a set of conditions.

    `sni` conditions are the first half of a row, `sni_file` conditions the second: those of one rule are ANDed.
    """
    from gobanfast._core.name_table import NameTable

    second = 64 * words
    silent = _indexes(rule.when.sni is None for rule in rules)
    silent += [second + index for index in _indexes(rule.when.sni_file is None for rule in rules)]
    sets: list[Collection[int]] = [_indexes(word in (rule.when.sni or ()) for rule in rules) for word in SNI_WORDS]
    numbers = _gather(_name_conditions(rules, second), sets)
    digest = hashlib.blake2b("\n".join(numbers).encode(), digest_size=16)
    digest.update(np.fromiter(numbers.values(), np.uint32, len(numbers)).tobytes())
    return NameTable(numbers.items()), digest.digest(), _rows(sets, silent, 2 * words)


def _name_conditions(rules: Sequence[Rule], second: int) -> Iterator[tuple[int, Iterable[str]]]:
    for index, rule in enumerate(rules):
        if rule.when.sni is not None:
            yield index, (pattern for pattern in rule.when.sni if pattern not in SNI_WORDS)
        if rule.when.sni_file is not None:
            yield second + index, rule.when.sni_file


def _hello_rows(rules: Sequence[Rule], words: int) -> Words:
    """Rows: no hello, a malformed one, by version and ECH what rules say of those, and a JA4 without a hello."""
    without = _indexes(not rule.when.on_hello for rule in rules)
    sets = [without, without]
    for version in _VERSIONS:
        for ech in _ECHS:
            holds = []
            for index, rule in enumerate(rules):
                below, echs = rule.when.tls_version_below, rule.when.ech
                if (below is None or version < below) and (echs is None or ech in echs):
                    holds.append(index)
            sets.append(holds)
    sets.append(_indexes(not rule.when.on_whole_hello for rule in rules))
    return _rows(sets, [], words)


def _ja4s(rules: Sequence[Rule]) -> Iterator[tuple[int, Iterable[bytes]]]:
    """Per rule the texts of which its JA4 must begin with one; a whole fingerprint begins with itself only."""
    for index, rule in enumerate(rules):
        exact, prefixes = rule.when.ja4, rule.when.ja4_prefix
        if exact is not None and prefixes is not None:
            exact = tuple(text for text in exact if text.startswith(prefixes))
        yield index, (text.encode() for text in (exact if exact is not None else prefixes or ()))


def _alpns(rules: Sequence[Rule]) -> Iterator[tuple[int, Iterable[bytes]]]:
    for index, rule in enumerate(rules):
        yield index, (text.encode("latin-1") for text in rule.when.alpn or ())


def _terms(
    conditions: Iterable[tuple[int, Iterable[bytes]]], silent: list[int], words: int, text: bytes
) -> tuple[NDArray[np.uint32], Words, bytes]:
    """Terms in order, their rows, and `text` with their texts behind it."""
    sets: list[Collection[int]] = []
    numbers = _gather(conditions, sets)
    terms = []
    for key in sorted(numbers, key=lambda key: (len(key), key)):
        terms.append((len(text), len(key), numbers[key]))
        text += key
    return np.array(terms, np.uint32).reshape(-1, 3), _rows(sets, silent, words), text


def _gather(conditions: Iterable[tuple[int, Iterable[Key]]], sets: list[Collection[int]]) -> dict[Key, int]:
    """For every key the index in `sets` of the conditions (bits) that list it; an empty set and these go to `sets`."""
    empty: frozenset[int] = frozenset()
    first = len(sets)
    members, numbers = {first: empty}, {empty: first}
    sets.append(empty)
    found: dict[Key, int] = {}
    for bit, keys in conditions:
        grown: dict[int, int] = {}  # index of a set -> index of the set with `bit` in it
        for key in keys:
            before = found.get(key, first)
            if before not in grown:
                wanted = members[before] | {bit}
                grown[before] = numbers.setdefault(wanted, len(sets))
                if grown[before] == len(sets):
                    members[len(sets)] = wanted
                    sets.append(wanted)
            found[key] = grown[before]
    return found


def _indexes(flags: Iterable[bool]) -> list[int]:
    """Where the flags are set."""
    return [index for index, flag in enumerate(flags) if flag]


def _rows(sets: Sequence[Collection[int]], always: list[int], words: int) -> Words:
    """Bit vectors of the sets, each with the bits `always`."""
    rows = np.zeros((len(sets), words), np.uint64)
    for bit in always:
        rows[:, bit // 64] |= np.uint64(1 << bit % 64)
    for row, members in zip(rows, sets, strict=True):
        for bit in members:
            row[bit // 64] |= np.uint64(1 << bit % 64)
    return rows
