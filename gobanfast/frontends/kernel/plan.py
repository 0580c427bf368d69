"""From bans to entries of a drop set: prefixes of ASes, prefixes in place of their hosts, room for the longest bans.

**A wider entry never outlasts a narrower one.** The longest-prefix match of the kernel sees one entry, the narrowest;
were it over, it would hide a wider one that is not. So an entry that a wider one outlasts is parked: it is not in the
kernel, and comes back when the wider ban is lifted. That is also how one /24 takes the place of its 50 hosts.

What few prefixes a ban concerns is worked out at once (`change`). A prefix that may have many hosts, and a set that is
full, are worked out over the whole table (`whole`), in columns; `stale` says that this is due.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from gobanfast._core.address import parse_prefix
from gobanfast._core.enums import MAKERS
from gobanfast.frontends.kernel.maps import (
    CLIENT6,
    FOREVER,
    HOST,
    V4,
    Entries,
    Entry,
    Key,
    key_text,
    masked,
)  # fmt: skip

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gobanfast.asn import AsnTable
    from gobanfast.bans import Ban, BanChange

PROBED = 1024  # hosts of a prefix that are looked up one by one; of more the whole table is read
UNSEEN = ("gh2:", "uid:")  # keys that no packet shows
NUMBERS = {name: 1 + i for i, name in enumerate(MAKERS)}


class Bans(Protocol):
    """What a plan reads of `gobanfast._core.ban_table.BanTable`."""

    def get(self, key: str) -> Ban | None: ...
    def packed(self) -> tuple[bytes, bytes, bytes, bytes, list[Ban]]: ...


class Plan:
    """Which entries the kernel is to have.

    Args:
        bans: the table. `networks`: prefixes of banned ASes, None: bans of ASes are passed over.
        capacity: entries that each group of the drop set has room for.
    Attributes:
        left_out: bans that found no room, by the last look at the whole. `unseen`: bans of fingerprints and users,
            which no packet shows. `stale`: the whole is to be worked out anew.
    """

    def __init__(self, bans: Bans, networks: AsnTable | None, capacity: int) -> None:
        self.bans, self.networks, self.capacity = bans, networks, capacity
        self.left_out = self.unseen = 0
        self.stale = True
        self.parked: dict[Key, set[Key]] = {}  # by the prefix that outlasts them
        self._nets: dict[Key, float] = {}  # prefixes in the kernel -> end
        self._lengths: dict[int, int] = {}  # bits -> how many of those
        self._of_asns: dict[Key, dict[int, Entry]] = {}  # prefixes of banned ASes

    # ---- the whole

    def whole(self) -> Entries:
        """All entries, from the table as it is."""
        import numpy as np

        addresses, bits, ends, makers, others = self.bans.packed()
        asns = [ban for ban in others if ban.key.startswith("AS")]
        self.unseen = len(others) - len(asns)
        self._of_asns = {}
        for ban in asns:
            self._note_asn(int(ban.key[2:]), _entry(ban))
        derived = [(key, max(found.values())) for key, found in self._of_asns.items()]
        entries = Entries(
            np.concatenate([
                np.frombuffer(addresses, np.uint8).reshape(-1, 16),
                np.frombuffer(b"".join(key[0] for key, _ in derived), np.uint8).reshape(-1, 16),
            ]),
            np.concatenate([np.frombuffer(bits, np.uint8), np.array([key[1] for key, _ in derived], np.uint8)]),
            np.concatenate([np.frombuffer(ends), np.array([entry.end for _, entry in derived], np.float64)]),
            np.concatenate([
                np.frombuffer(makers, np.uint8) + np.uint8(1),
                np.array([entry.reason for _, entry in derived], np.uint8),
            ]),
        )  # fmt: skip
        v4 = (entries.addresses[:, :12] == np.frombuffer(V4, np.uint8)).all(axis=1) & (entries.bits >= 96)
        is_net = (entries.bits != HOST) & (v4 | (entries.bits != CLIENT6))
        chosen = self._uncovered(entries, v4, is_net)
        if derived:
            chosen = self._longest_of_equals(entries, chosen, {key[0] for key, _ in derived if not _is_net(key)})
        chosen = self._with_room(entries, v4, is_net, chosen)
        self.stale = False
        return Entries(
            entries.addresses[chosen], entries.bits[chosen], entries.ends[chosen], entries.reasons[chosen]
        )  # fmt: skip

    def _uncovered(self, entries: Entries, v4: NDArray[np.bool_], is_net: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Rows that no wider prefix outlasts; the others are parked under one that does."""
        import numpy as np

        self.parked, self._nets, self._lengths = {}, {}, {}
        wide = np.flatnonzero(is_net)
        kept: dict[Key, int] = {}
        for row in wide[np.argsort(entries.bits[wide], kind="stable")].tolist():
            key = (entries.addresses[row].tobytes(), int(entries.bits[row]))
            end = float(entries.ends[row])
            cover = self._cover(key, end)
            if cover is not None:
                self.parked.setdefault(cover, set()).add(key)
            elif end > self._nets.get(key, -1.0):
                kept[key] = row
                self._set_net(key, end)
        hosts = np.flatnonzero(~is_net)
        covered = np.zeros(len(hosts), bool)
        of_v4, lengths = v4[hosts], entries.bits[hosts]
        nets: dict[tuple[bool, int], list[Key]] = {}
        for key in kept:
            nets.setdefault((_is_v4(key), key[1]), []).append(key)
        for (four, bits), listed in nets.items():
            found = _within(entries.addresses[hosts], bits, listed)
            inside = (found >= 0) & (of_v4 == four) & (lengths > bits) & ~covered
            ends = np.array([self._nets[key] for key in listed])
            inside[inside] = ends[found[inside]] >= entries.ends[hosts][inside]
            for at in np.flatnonzero(inside).tolist():
                key = (entries.addresses[hosts[at]].tobytes(), int(lengths[at]))
                self.parked.setdefault(listed[found[at]], set()).add(key)
            covered |= inside
        return np.concatenate([np.array(list(kept.values()), np.int64), hosts[~covered]])

    @staticmethod
    def _longest_of_equals(entries: Entries, rows: NDArray[np.int64], twice: set[bytes]) -> NDArray[np.int64]:
        """The same rows without the shorter one of two for a host that is banned itself and by its AS."""
        import numpy as np

        if not twice:
            return rows
        longest: dict[Key, int] = {}
        rest = []
        for row in rows.tolist():
            key = (entries.addresses[row].tobytes(), int(entries.bits[row]))
            if key[0] not in twice:
                rest.append(row)
            elif key not in longest or entries.ends[row] > entries.ends[longest[key]]:
                longest[key] = row
        return np.array([*rest, *longest.values()], np.int64)

    def _with_room(
        self, entries: Entries, v4: NDArray[np.bool_], is_net: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Of each group as many as there is room for, those that last longest."""
        import numpy as np

        self.left_out = 0
        kept = []
        of_v4, of_net, bits = v4[rows], is_net[rows], entries.bits[rows]
        for chosen in (of_v4 & ~of_net, ~of_v4 & (bits == HOST), ~of_v4 & (bits == CLIENT6), of_v4 & of_net,
                       ~of_v4 & of_net):  # fmt: skip
            group = rows[chosen]
            over = len(group) - self.capacity
            if over > 0:
                order = np.argsort(entries.ends[group], kind="stable")
                for row in group[order[:over]][is_net[group[order[:over]]]].tolist():
                    self._drop_net((entries.addresses[row].tobytes(), int(entries.bits[row])))
                group = group[order[over:]]
                self.left_out += over
            kept.append(group)
        return np.concatenate(kept)

    # ---- changes

    def change(self, changes: Sequence[BanChange]) -> tuple[dict[Key, Entry], set[Key]]:
        """(entries to set, keys to remove) after these changes of the table; `stale` may be set."""
        puts: dict[Key, Entry] = {}
        removes: set[Key] = set()
        for change in changes:
            present = change.event in {"add", "extend"}
            text = change.ban.key
            if text.startswith(UNSEEN):
                continue
            if text.startswith("AS"):
                for key in self._note_asn(int(text[2:]), _entry(change.ban) if present else None):
                    self._set(key, self._own(key), puts, removes)
            else:
                self._set(parse_prefix(text), _entry(change.ban) if present else None, puts, removes)
        return puts, removes

    def _set(self, key: Key, entry: Entry | None, puts: dict[Key, Entry], removes: set[Key]) -> None:
        """Notes what becomes of one key."""
        derived = self._of_asns.get(key)
        if derived:
            entry = max([*derived.values(), *([entry] if entry is not None else [])])
        wide = _is_net(key)
        before = self._nets.get(key)
        freed: set[Key] = set()
        if before is not None and (entry is None or entry.end < before):
            freed = self.parked.pop(key, set())
            self._drop_net(key)
        for wider in self._covers(key):
            if wider in self.parked:
                self.parked[wider].discard(key)
        cover = None if entry is None else self._cover(key, entry.end)
        if entry is None or cover is not None:
            if cover is not None:
                self.parked.setdefault(cover, set()).add(key)
                freed |= self.parked.pop(key, set())
                self._drop_net(key)
            puts.pop(key, None)
            removes.add(key)
        else:
            removes.discard(key)
            puts[key] = entry
            if wide:
                self._set_net(key, entry.end)
                self._park_within(key, entry.end, puts, removes)
        for each in sorted(freed, key=lambda key: key[1]):
            self._set(each, self._own(each), puts, removes)

    def _own(self, key: Key) -> Entry | None:
        ban = self.bans.get(key_text(key))
        return None if ban is None else _entry(ban)

    def _park_within(self, key: Key, end: float, puts: dict[Key, Entry], removes: set[Key]) -> None:
        """Parks what this prefix outlasts: prefixes now; hosts now where they are few, else at the next look at all."""
        packed, bits = key
        first = int.from_bytes(packed, "big")
        head, four = packed[: bits // 8], _is_v4(key)
        for net in [net for net in self._nets if net[1] > bits and net[0].startswith(head)]:
            if masked(net[0], bits) == key and _is_v4(net) == four and self._nets[net] <= end:
                self.parked.setdefault(key, set()).update({net} | self.parked.pop(net, set()))
                self._drop_net(net)
                puts.pop(net, None)
                removes.add(net)
        if 1 << (HOST - bits) > PROBED:
            self.stale = True
            return
        for i in range(1 << (HOST - bits)):
            host = ((first + i).to_bytes(16, "big"), HOST)
            entry = self._own(host)
            if entry is not None and entry.end <= end and self._cover(host, entry.end) == key:
                self.parked.setdefault(key, set()).add(host)
                puts.pop(host, None)
                removes.add(host)

    # ---- prefixes

    def _covers(self, key: Key) -> Iterator[Key]:
        """Wider prefixes of the lengths that there are."""
        packed, bits = key
        four = _is_v4(key)
        for length in self._lengths:
            if length < bits and (length >= 96 or not four):
                yield masked(packed, length)

    def _cover(self, key: Key, end: float) -> Key | None:
        """A wider prefix that lasts at least as long."""
        for wider in self._covers(key):
            if self._nets.get(wider, -1.0) >= end:
                return wider
        return None

    def _set_net(self, key: Key, end: float) -> None:
        if key not in self._nets:
            self._lengths[key[1]] = self._lengths.get(key[1], 0) + 1
        self._nets[key] = end

    def _drop_net(self, key: Key) -> None:
        if self._nets.pop(key, None) is not None:
            self._lengths[key[1]] -= 1
            if not self._lengths[key[1]]:
                del self._lengths[key[1]]

    def _note_asn(self, number: int, entry: Entry | None) -> list[Key]:
        """Keys whose entry may change as this AS is banned, or is not any more."""
        keys = prefixes_of({number}, self.networks)
        for key in keys:
            found = self._of_asns.setdefault(key, {})
            if entry is not None:
                found[number] = entry
            elif found.pop(number, None) is None or not found:
                del self._of_asns[key]
        return keys


def _is_v4(key: Key) -> bool:
    return key[1] >= 96 and key[0].startswith(V4)


def _is_net(key: Key) -> bool:
    """Whether it is looked up by longest prefix: neither an address nor the /64 of an IPv6 client, which are hashed."""
    return key[1] != HOST and (key[1] != CLIENT6 or _is_v4(key))


def _entry(ban: Ban) -> Entry:
    return Entry(FOREVER if ban.expires is None else ban.expires, NUMBERS.get(ban.by, 0))


def _within(addresses: NDArray[np.uint8], bits: int, nets: list[Key]) -> NDArray[np.int64]:
    """For each address the index of the prefix of that length that it lies in, or -1."""
    import numpy as np

    mask = np.frombuffer(((1 << 128) - (1 << (128 - bits))).to_bytes(16, "big"), np.uint8)
    places = np.frombuffer(np.ascontiguousarray(addresses & mask).tobytes(), "S16")
    starts = np.frombuffer(b"".join(packed for packed, _ in nets), "S16")
    order = np.argsort(starts)
    at = np.searchsorted(starts[order], places)
    at[at == len(starts)] = 0
    found: NDArray[np.int64] = order[at]
    found[starts[found] != places] = -1
    return found


def prefixes_of(asns: Iterable[int], networks: AsnTable | None) -> list[Key]:
    """Prefixes of the addresses that an AS table gives to these ASes; disjoint."""
    import numpy as np

    if networks is None:
        return []
    wanted = np.array(sorted(asns), np.uint32)
    starts4, asns4, starts6, asns6 = networks.ranges()
    found: list[Key] = []
    for row in np.flatnonzero(np.isin(asns4, wanted)).tolist():
        end = int(starts4[row + 1]) if row + 1 < len(starts4) else 1 << 32
        found += range_prefixes(0xFFFF << 32 | int(starts4[row]), 0xFFFF << 32 | end - 1)
    for row in np.flatnonzero(np.isin(asns6, wanted)).tolist():
        end = int.from_bytes(starts6[row + 1].tobytes(), "big") if row + 1 < len(starts6) else 1 << 128
        found += range_prefixes(int.from_bytes(starts6[row].tobytes(), "big"), end - 1)
    return found


def range_prefixes(first: int, last: int) -> Iterator[Key]:
    """Prefixes that together are the addresses from first to last."""
    while first <= last:
        free = (first & -first).bit_length() - 1 if first else 128
        free = min(free, (last - first + 1).bit_length() - 1)
        yield first.to_bytes(16, "big"), 128 - free
        first += 1 << free
