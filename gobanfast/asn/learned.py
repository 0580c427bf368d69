"""Learned origin ASes, `prefix,asn,name` a line, and an AS table that they are joined to."""

from __future__ import annotations

import csv
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping

from gobanfast._core.address import parse_prefix
from gobanfast._core.asn_table import AsnRows
from gobanfast.asn import AsnTable, Reading

MOST = 100_000  # prefixes that are kept
V4, BITS = 0xFFFF << 32, 128  # where IPv4 begins, mapped; bits of an address
HIGHEST = 0xFFFFFFFE


def read_learned(path: str | os.PathLike[str]) -> dict[str, tuple[int, str]]:
    """AS number and name by prefix; lines that are none are passed over, and nothing is read of no file."""
    found: dict[str, tuple[int, str]] = {}
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.reader(file):
                if len(row) == 3 and row[1].isdigit() and 0 < int(row[1]) <= HIGHEST and _is_prefix(row[0]):
                    found[row[0]] = int(row[1]), row[2]
    except (OSError, csv.Error):
        pass
    return found


def write_learned(path: str | os.PathLike[str], learned: Mapping[str, tuple[int, str]]) -> None:
    """Writes the latest MOST of them through a temporary file and a rename. Raises OSError."""
    part = f"{os.fspath(path)}.{os.getpid()}"
    with open(part, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        for prefix in list(learned)[-MOST:]:
            rows.writerow([prefix, *learned[prefix]])
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def joined(table: AsnTable, learned: Mapping[str, tuple[int, str]]) -> AsnTable:
    """The table, and what was learned where it says nothing. Cost: seconds for a whole-Internet table."""
    starts4, asns4, starts6, asns6 = table.ranges()
    firsts4 = [V4 + start for start in starts4.tolist()]
    firsts6 = [int.from_bytes(bytes(start), "big") for start in starts6]
    known4, known6 = asns4.tolist(), asns6.tolist()
    rows = AsnRows()
    for prefix, (asn, name) in learned.items():
        packed, bits = parse_prefix(prefix)
        firsts, known = (firsts4, known4) if "." in prefix and bits >= 96 else (firsts6, known6)
        if not _covered(int.from_bytes(packed, "big"), bits, firsts, known):
            rows.add(packed, bytes([bits]), asn.to_bytes(4, "little"))
            if name:
                rows.put_name(asn, name)
    addresses, lengths, asns = bytearray(), bytearray(), bytearray()
    for firsts, known, end in ((firsts4, known4, V4 + (1 << 32)), (firsts6, known6, 1 << BITS)):
        for first, bits, asn in _blocks(firsts, known, end):
            addresses += first.to_bytes(16, "big")
            lengths.append(bits)
            asns += asn.to_bytes(4, "little")
    rows.add(bytes(addresses), bytes(lengths), bytes(asns))  # last: of equal prefixes the table's own stays
    for asn in table.asns().tolist():
        if known_name := table.name(asn):
            rows.put_name(asn, known_name)
    return AsnTable.of_rows(rows, source=table.source, reading=Reading(rows.count, 0))


def _covered(first: int, bits: int, firsts: list[int], known: list[int]) -> bool:
    """Whether one range with an AS covers the whole prefix."""
    at = bisect_right(firsts, first) - 1
    return bool(known[at]) and (at + 1 == len(firsts) or firsts[at + 1] >= first + (1 << (BITS - bits)))


def _blocks(firsts: list[int], asns: list[int], last: int) -> Iterator[tuple[int, int, int]]:
    """First address, length and AS of the prefixes that ranges with an AS are made of; the last one goes to `last`."""
    for index, (begin, asn) in enumerate(zip(firsts, asns, strict=True)):
        end = firsts[index + 1] if index + 1 < len(firsts) else last
        first = begin
        while asn and first < end:
            size = min((first & -first).bit_length() - 1 if first else BITS, (end - first).bit_length() - 1)
            yield first, BITS - size, asn
            first += 1 << size


def _is_prefix(text: str) -> bool:
    try:
        _, bits = parse_prefix(text)
    except ValueError:
        return False
    return bits > (96 + 7 if "." in text else 10)
