"""Rules and the IP-to-ASN table overlaid into one set of disjoint address ranges.

Every boundary of both families becomes a rank in one sorted order, so IPv4 and IPv6 take the same
path through plain integer arrays:

1. each condition's prefixes give +1/-1 events; a running sum per condition says where it holds (`outside`: where it is
   zero), and the same sweep over conditions says where the prefix part of a rule holds;
2. each rule owns a random 128-bit word; XOR-ing it in at every flip makes the running XOR at a cell
   the identity of the set of rules that hold there, so cost does not depend on the number of rules;
3. the ASNs of the table get identities the same way, once per AS; cells with equal (prefix set, AS set)
   are one class, and bit vectors are worked out for one representative cell of each.

Source: Lakshman and Stiliadis, "High-Speed Policy-based Packet Forwarding", SIGCOMM 1998.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gobanfast._core.enums import ACTIONS
from gobanfast.rules.regex import compile_regex
from gobanfast.rules.rule import PERMISSIVE, Conditions, NamePattern, PrefixList, Rule

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable

Array = NDArray[Any]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

ABSENT, MALFORMED, FIRST_CLASS = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """The arrays of `CompiledRules`, under the names of its arguments."""

    starts4: NDArray[np.uint32]
    leaves4: NDArray[np.uint32]
    starts6: NDArray[np.uint8]
    leaves6: NDArray[np.uint32]
    leaf_asn: NDArray[np.uint32]
    leaf_class: NDArray[np.uint32]
    vectors: Words
    enforced: Words
    shadow: Words
    logged: Words
    actions: NDArray[np.uint8]

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `CompiledRules`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def words(self) -> int:
        """64-bit words in one bit vector."""
        return len(self.enforced)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(value.nbytes for value in self.arguments().values())


def overlay(rules: Sequence[Rule], asn: AsnTable) -> Overlay:
    """The overlay of `rules`, which are in decision order, over an AS table.

    Cost: a few sorts of all boundaries: seconds for a whole-Internet table or a million-entry list.
    """
    starts4, asn4, starts6, asn6 = asn.ranges()
    lists = [(rule, item) for rule, entry in enumerate(rules) for item in entry.when.prefix_lists]
    kept_in = len(lists)
    lists += [(rule, item) for rule, entry in enumerate(rules) for item in entry.when.outside_lists]
    split = [spans(item) for _, item in lists]
    rank4 = _Ranks(np.uint64(1 << 32), [np.asarray(starts4, np.uint64)], [pair[0] for pair in split])
    rank6 = _Ranks(_LAST6, [sortable(np.ascontiguousarray(starts6))], [pair[1] for pair in split])
    cells4, cells6 = len(rank4.positions), len(rank6.positions)

    owner = np.array([rule for rule, _ in lists], np.int64)
    needed = np.bincount(owner, minlength=len(rules)) if lists else np.zeros(len(rules), np.int64)
    groups = np.concatenate([rank4.group, rank6.group])
    cells = np.concatenate([rank4.event, rank6.event + cells4])
    deltas = np.concatenate([rank4.delta, rank6.delta])
    groups, cells, holds = _flips(groups, cells, deltas, np.ones(len(lists), np.int64))
    deltas = np.where(holds == (groups < kept_in), 1, -1)
    outside = np.arange(kept_in, len(lists))  # these hold from the first to the last cell, but in their prefixes
    edges = np.array([0, cells4 - 1, cells4, cells4 + cells6 - 1])
    groups = np.concatenate([groups, np.repeat(outside, len(edges))])
    cells = np.concatenate([cells, np.tile(edges, len(outside))])
    deltas = np.concatenate([deltas, np.tile(np.array([1, -1, 1, -1]), len(outside))])
    flip_rule, flip_cell, _ = _flips(owner[groups], cells, deltas, needed)

    words = len(rules) // 64 + 1
    tokens = np.random.default_rng().integers(0, 1 << 64, (2, 2, max(1, len(rules))), np.uint64, endpoint=False)
    cell_asn = np.concatenate(
        [np.asarray(asn4, np.uint32)[rank4.asn_row()], np.asarray(asn6, np.uint32)[rank6.asn_row()]]
    )
    networks, cell_network = np.unique(cell_asn, return_inverse=True)
    names = _Names(networks, asn)
    members = [(rule, _networks(entry, networks, names)) for rule, entry in enumerate(rules) if entry.when.on_asn]

    identity = np.zeros((2, cells4 + cells6), np.uint64)
    for half in (0, 1):
        np.bitwise_xor.at(identity[half], flip_cell, tokens[0, half][flip_rule])
        np.bitwise_xor.accumulate(identity[half], out=identity[half])
        of_network = np.zeros(len(networks), np.uint64)
        for rule, rows in members:
            of_network[rows] ^= tokens[1, half][rule]
        identity[half] ^= of_network[cell_network]
    first, cell_set = _unique_pairs(identity[0], identity[1])

    vectors = _prefix_vectors(first, flip_rule, flip_cell, words)
    vectors |= _mask([not rule.when.on_prefix for rule in rules], words)
    vectors &= _network_vectors(cell_network[first], len(networks), members, words) | _mask(
        [not rule.when.on_asn for rule in rules], words
    )
    distinct, set_class = np.unique(vectors, axis=0, return_inverse=True)
    without = np.tile(_mask([not rule.when.on_address for rule in rules], words), (FIRST_CLASS, 1))
    without[MALFORMED] |= _mask([_holds_of_no_address(rule) for rule in rules], words)

    cell_class = set_class.reshape(-1)[cell_set].astype(np.uint64) + np.uint64(FIRST_CLASS)
    inside = np.ones(cells4 + cells6, bool)
    inside[[cells4 - 1, -1]] = False  # the end of each family is a boundary, not a cell
    keys = (cell_asn.astype(np.uint64) << np.uint64(32)) | cell_class
    leaves, leaf = np.unique(keys[inside], return_inverse=True)
    index: NDArray[np.uint32] = leaf.reshape(-1).astype(np.uint32)
    leaf4, leaf6 = index[: cells4 - 1], index[cells4 - 1 :]
    keep4, keep6 = _changes(leaf4), _changes(leaf6)
    return Overlay(
        starts4=rank4.positions[:-1][keep4].astype(np.uint32),
        leaves4=leaf4[keep4],
        starts6=_narrow(rank6.positions[:-1][keep6]),
        leaves6=leaf6[keep6],
        leaf_asn=(leaves >> np.uint64(32)).astype(np.uint32),
        leaf_class=leaves.astype(np.uint32),
        vectors=np.concatenate([without, distinct]).reshape(-1),
        enforced=_mask([rule.mode == "enforce" and rule.action not in ("log", "limit") for rule in rules], words),
        shadow=_mask([rule.mode == "shadow" and rule.action != "limit" for rule in rules], words),
        logged=_mask([rule.mode == "enforce" and rule.action == "log" for rule in rules], words),
        actions=np.array([ACTIONS.index(rule.action) if rule.effect == "admit" else 0 for rule in rules], np.uint8),
    )


def _holds_of_no_address(rule: Rule) -> bool:
    """Whether all that a restrictive rule asks of the address is what it is not, which a malformed one satisfies."""
    when = rule.when
    inside = when.prefix_lists or when.outside is not None or when.outside_file is not None or when.on_asn
    return when.on_prefix and not inside and rule.action not in PERMISSIVE


def held(matrix: Words, rule: int) -> NDArray[np.bool_]:
    """For every row of bit vectors, whether the bit of `rule` is set."""
    result: NDArray[np.bool_] = (matrix[:, rule // 64] >> np.uint64(rule % 64)) & np.uint64(1) != 0
    return result


# Addresses of the two families as sortable keys. IPv4: uint64. IPv6: 17 bytes, so that the end of the
# family, 2**128, is a key like any other; numpy orders fixed-width byte strings as big-endian numbers.

_LAST6 = np.array(b"\x01" + bytes(16), "S17")


def sortable(addresses: Array) -> Array:
    """IPv6 addresses, n x 16 bytes, as keys that sort."""
    wide = np.zeros((len(addresses), 17), np.uint8)
    wide[:, 1:] = addresses
    return wide.view("S17").reshape(-1)


def _narrow(keys: Array) -> NDArray[np.uint8]:
    wide = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 17)
    return np.ascontiguousarray(wide[:, 1:])


def spans(item: PrefixList) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """First key and end of every prefix, IPv4 and IPv6 apart."""
    packed = np.frombuffer(item.addresses, np.uint8).reshape(-1, 16)
    bits = np.frombuffer(item.lengths, np.uint8)
    halves = packed.view(">u8").astype(np.uint64)
    mapped = (bits >= 96) & (halves[:, 0] == 0) & (halves[:, 1] >> np.uint64(32) == np.uint64(0xFFFF))
    start4 = halves[mapped, 1] & np.uint64(0xFFFFFFFF)
    stop4 = start4 + (np.uint64(1) << (128 - bits[mapped]).astype(np.uint64))

    bits6, high, low = bits[~mapped].astype(np.uint64), halves[~mapped, 0], halves[~mapped, 1]
    in_high = bits6 <= 64
    step_low = np.where(in_high, 0, np.uint64(1) << np.where(in_high, 0, 128 - bits6)).astype(np.uint64)
    step_high = np.where(in_high & (bits6 > 0), np.uint64(1) << np.where(in_high & (bits6 > 0), 64 - bits6, 0), 0)
    stop_low = low + step_low
    carry = (stop_low < low).astype(np.uint64)
    stop_high = high + step_high.astype(np.uint64) + carry
    end = np.zeros((len(bits6), 17), np.uint8)
    end[:, 1:9] = stop_high.astype(">u8").view(np.uint8).reshape(-1, 8)
    end[:, 9:] = stop_low.astype(">u8").view(np.uint8).reshape(-1, 8)
    end[:, 0] = (bits6 == 0) | (stop_high < high) | ((stop_high == high) & (stop_low <= low))
    return (start4, stop4), (sortable(packed[~mapped]), end.view("S17").reshape(-1))


class _Ranks:
    """Every boundary of one family in order, and the events of its prefixes as ranks in that order.

    The last position is the end of the family. `group` is the index of the prefix list an event is from.
    """

    def __init__(self, end: Any, asn_starts: list[Array], spans: list[tuple[Array, Array]]) -> None:
        starts, stops = [span[0] for span in spans], [span[1] for span in spans]
        boundaries = np.concatenate([*asn_starts, np.asarray(end).reshape(1), *starts, *stops])
        self.positions, rank = np.unique(boundaries, return_inverse=True)
        rank = rank.reshape(-1).astype(np.int64)
        self._asn: Ints = rank[: len(asn_starts[0])]
        self.event: Ints = rank[len(asn_starts[0]) + 1 :]
        sizes = [len(start) for start in starts]
        groups = np.repeat(np.arange(len(spans), dtype=np.int64), sizes)
        self.group: Ints = np.concatenate([groups, groups])
        self.delta: Ints = np.repeat(np.array([1, -1], np.int64), len(groups))

    def asn_row(self) -> Ints:
        """For every position, the row of the AS table that holds there."""
        row: Ints = np.searchsorted(self._asn, np.arange(len(self.positions)), "right") - 1
        return row


def _flips(groups: Ints, cells: Ints, deltas: Ints, needed: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Where the running sum of `deltas` of a group first reaches, or falls under, what the group needs.

    The deltas of a group sum to zero. Returns (group, cell, whether it holds from here) sorted by group, cell.
    """
    if not len(groups):
        return groups, cells, np.zeros(0, bool)
    width = int(cells.max()) + 1
    keys = groups * width + cells
    order = np.argsort(keys, kind="stable")
    keys, depth = keys[order], np.cumsum(deltas[order])
    last = np.append(keys[1:] != keys[:-1], True)
    keys, depth = keys[last], depth[last]
    group = keys // width
    holds = depth >= needed[group]
    before = np.append(False, holds[:-1])
    flipped = holds != before
    return group[flipped], keys[flipped] % width, holds[flipped]


class _Names:
    """Which networks a name pattern matches; describes every AS once, and runs every distinct pattern once."""

    def __init__(self, networks: NDArray[np.uint32], asn: AsnTable) -> None:
        self._networks, self._asn = networks, asn
        self._texts: dict[str, list[str]] = {}
        self._matches: dict[NamePattern, NDArray[np.bool_]] = {}

    def matches(self, pattern: NamePattern) -> NDArray[np.bool_]:
        if pattern not in self._matches:
            search = compile_regex(pattern.regex).search
            texts = self._describe(pattern.separator)
            self._matches[pattern] = np.array([search(text) is not None for text in texts], bool)
        return self._matches[pattern]

    def _describe(self, separator: str) -> list[str]:
        if separator not in self._texts:
            texts = (self._asn.describe(number) for number in self._networks.tolist())
            self._texts[separator] = [text.replace(" ", separator, 1) for text in texts]
        return self._texts[separator]


def _networks(rule: Rule, networks: NDArray[np.uint32], names: _Names) -> Ints:
    """Rows of `networks` for which the AS conditions of a rule hold; never that of "no AS known"."""
    chosen = networks > 0
    for holds in _network_conditions(rule.when, networks, names):
        chosen &= holds
    if rule.when.negated is not None:
        for holds in _network_conditions(rule.when.negated, networks, names):
            chosen &= ~holds
    return np.flatnonzero(chosen)


def _network_conditions(
    when: Conditions, networks: NDArray[np.uint32], names: _Names
) -> Iterator[NDArray[np.bool_]]:  # fmt: skip
    """For each condition on the AS where it holds."""
    if when.asn is not None:
        listed = np.zeros(len(networks), bool)
        for first, last in when.asn:
            listed[np.searchsorted(networks, first) : np.searchsorted(networks, last, "right")] = True
        yield listed
    if when.asn_name is not None:
        yield np.logical_or.reduce([names.matches(pattern) for pattern in when.asn_name])


def _unique_pairs(high: Words, low: Words) -> tuple[Ints, Ints]:
    """First index of every distinct (high, low), ascending, and which of them each index has."""
    order = np.lexsort((low, high))
    new = np.append(True, (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1]))
    first = order[new]  # lexsort is stable, so this is the smallest index of its group
    label = np.empty(len(order), np.int64)
    label[order] = np.cumsum(new) - 1
    rank = np.argsort(first)
    place = np.empty(len(first), np.int64)
    place[rank] = np.arange(len(first))
    return first[rank], place[label]


def _prefix_vectors(first: Ints, flip_rule: Ints, flip_cell: Ints, words: int) -> Words:
    """Per representative cell, the rules whose prefix part holds there."""
    rows = np.searchsorted(first, flip_cell)
    reached = rows < len(first)
    vectors = np.zeros((len(first), words), np.uint64)
    bits = np.uint64(1) << (flip_rule[reached] % 64).astype(np.uint64)
    np.bitwise_xor.at(vectors, (rows[reached], flip_rule[reached] // 64), bits)
    np.bitwise_xor.accumulate(vectors, axis=0, out=vectors)
    return vectors


def _network_vectors(networks: Ints, count: int, members: list[tuple[int, Ints]], words: int) -> Words:
    """Per representative cell, the rules whose AS part holds for its row of networks."""
    vectors = np.zeros((len(networks), words), np.uint64)
    for rule, rows in members:
        chosen = np.zeros(count, bool)
        chosen[rows] = True
        vectors[chosen[networks], rule // 64] |= np.uint64(1 << rule % 64)
    return vectors


def _mask(holds: Sequence[bool], words: int) -> Words:
    bits = np.zeros(words * 64, np.uint8)
    bits[: len(holds)] = holds
    mask: Words = np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)
    return mask


def _changes(values: Array) -> NDArray[np.bool_]:
    return np.append(True, values[1:] != values[:-1])
