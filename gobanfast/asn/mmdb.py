"""MMDB files of origin ASes, read through the `maxminddb` package and walked whole.

Records may follow the layouts of GeoLite2-ASN and DB-IP (`autonomous_system_number` with
`autonomous_system_organization`, also inside `traits`) or IPinfo (`asn: "AS123"` with `as_name`, `name` or `org`).
IPv4 networks are read once: the places where an IPv6 tree repeats them (::ffff:0:0/96, 2002::/16, 2001::/32) are not
copied, since `::ffff:a.b.c.d` is an IPv4 address here anyway. Format: https://maxmind.github.io/MaxMind-DB/
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gobanfast._errors import FormatError

if TYPE_CHECKING:
    from maxminddb.reader import Metadata

METADATA_MARKER = b"\xab\xcd\xefMaxMind.com"
METADATA_MOST = 128 * 1024  # the format's bound on the metadata at the end of the file
DATA_SEPARATOR = 16  # zero bytes between search tree and data section
NUMBER_FIELDS = ("autonomous_system_number", "asn", "as_number")
NAME_FIELDS = ("autonomous_system_organization", "as_name", "name", "org", "as_organization")
GROUPS = ("asn", "as", "autonomous_system", "organization", "org", "network")  # of fields that belong together
HIGHEST_ASN = 0xFFFFFFFE


@dataclass(slots=True)
class Networks:
    """What was read: n x 16 bytes network order, n lengths of 0..128 (IPv4 96+n), n AS numbers, names by number."""

    addresses: bytearray = field(default_factory=bytearray)
    lengths: bytearray = field(default_factory=bytearray)
    asns: array[int] = field(default_factory=lambda: array("I"))
    names: dict[int, str] = field(default_factory=dict)
    records: int = 0
    without_asn: int = 0

    def add(self, packed: bytes, bits: int, asn: int) -> None:
        self.addresses += packed
        self.lengths.append(bits)
        self.asns.append(asn)


def is_mmdb(path: str | os.PathLike[str]) -> bool:
    """Whether the file ends like an MMDB: a metadata marker in its last 128 KiB."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - METADATA_MOST))
        return METADATA_MARKER in file.read()


def read_networks(path: str | os.PathLike[str]) -> Networks:
    """Every network of the file that has an origin AS. FormatError when the file is damaged or names no AS."""
    import maxminddb

    source = os.fspath(path)
    data = Path(path).read_bytes()
    if METADATA_MARKER not in data[-METADATA_MOST:]:
        raise FormatError(source, len(data), "no MMDB metadata; the file is cut short or not an MMDB")
    data_section = 0
    found = Networks()
    fields: Counter[str] = Counter()
    try:
        # The C reader of the package walks faster, but damaged files crash it or keep it busy for ever.
        with maxminddb.open_database(path, maxminddb.MODE_MEMORY) as reader:
            metadata = reader.metadata()
            data_section = metadata.node_count * metadata.record_size // 4 + DATA_SEPARATOR
            check_tree(data, metadata, source)
            for network, record in reader:
                found.records += 1
                read_record(found, fields, network, record)
    except FormatError:
        raise
    except (
        maxminddb.InvalidDatabaseError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        # A damaged data section surfaces as whatever the decoder stumbled over.
        raise FormatError(source, data_section, f"MMDB data section is damaged ({error})") from error
    if not found.asns:
        shown = ", ".join(sorted(fields)[:20]) or "none"
        wanted = ", ".join(NUMBER_FIELDS)
        raise FormatError(
            source, data_section, f"no record has an AS number ({wanted}); fields found: {shown}; first data"
        )
    return found


def read_record(found: Networks, fields: Counter[str], network: Any, record: object) -> None:
    asn, name = origin(record, fields)
    if not asn:
        found.without_asn += 1
        return
    if name:
        found.names[asn] = name
    packed = network.network_address.packed
    if network.version == 4:
        found.add(b"\0" * 10 + b"\xff\xff" + packed, 96 + network.prefixlen, asn)
    else:
        found.add(packed, network.prefixlen, asn)


def origin(record: object, fields: Counter[str]) -> tuple[int, str]:
    """AS number and name a record states; 0 and "" for what is not there or not usable."""
    if not isinstance(record, Mapping):
        return 0, ""
    inner = record.get("traits")
    values = {**record, **inner} if isinstance(inner, Mapping) else record
    values = {**nested(values), **{name: value for name, value in values.items() if not isinstance(value, Mapping)}}
    number: object = next((values[name] for name in NUMBER_FIELDS if name in values), None)
    if number is None:
        fields.update(_names(record))
        return 0, ""
    if isinstance(number, str):
        digits = number.upper().removeprefix("AS")
        number = int(digits) if digits.isdecimal() and len(digits) <= 10 else 0
    name = next((values[name] for name in NAME_FIELDS if isinstance(values.get(name), str)), "")
    return (number, name) if type(number) is int and 0 < number <= HIGHEST_ASN else (0, "")


def _names(record: Mapping[str, Any]) -> list[str]:
    """The fields of a record, as a.b where they are one step deeper."""
    found = []
    for name, value in record.items():
        found += [f"{name}.{inner}" for inner in value] if isinstance(value, Mapping) else [str(name)]
    return found


def nested(values: Mapping[str, Any]) -> dict[str, object]:
    """Number and name that a record has one step deeper: `asn: {asn, name}`, `organization: {name}`, `as: {...}`."""
    found: dict[str, object] = {}
    for group in GROUPS:
        inside = values.get(group)
        if not isinstance(inside, Mapping):
            continue
        for name, value in inside.items():
            if isinstance(value, Mapping):
                continue
            if str(name) in NUMBER_FIELDS or str(name) in {"number", "id"}:
                found.setdefault("asn", value)
            elif str(name) in NAME_FIELDS or str(name) == "organization":
                found.setdefault("name", value)
    return found


def check_tree(data: bytes, metadata: Metadata, source: str) -> None:
    """Refuses a search tree that leaves its file or is no tree, on which a walk could go on for ever.

    Each node must have one parent, except the node where IPv4 starts: 6to4, Teredo and mapped addresses lead there too.
    """
    import numpy as np

    node_bytes = metadata.record_size // 4
    count = metadata.node_count
    if metadata.record_size not in (24, 28, 32) or count == 0 or count * node_bytes + DATA_SEPARATOR > len(data):
        raise FormatError(source, len(data), f"search tree of {count} nodes does not fit the file")
    nodes = np.frombuffer(data, np.uint8, count * node_bytes).reshape(count, node_bytes).astype(np.uint32)
    half = 4 if metadata.record_size == 32 else 3
    sides = np.zeros((2, count), np.uint32)
    if metadata.record_size == 28:
        sides[0], sides[1] = nodes[:, 3] >> 4, nodes[:, 3] & 15
    for at in range(half):
        sides[0] = sides[0] << 8 | nodes[:, at]
        sides[1] = sides[1] << 8 | nodes[:, node_bytes - half + at]
    children = sides.T.ravel()
    outside = np.flatnonzero(children > len(data) - count * node_bytes + count)
    if outside.size:
        raise FormatError(source, int(outside[0]) // 2 * node_bytes, "search tree points outside the file")
    ipv4_start = 0
    for _ in range(96 if metadata.ip_version == 6 else 0):
        if ipv4_start < count:
            ipv4_start = int(sides[0, ipv4_start])
    inner = children < count
    parents = np.bincount(children[inner], minlength=count)
    parents[0] += 1
    if 0 < ipv4_start < count:
        parents[ipv4_start] = 1
    shared = np.flatnonzero(parents > 1)
    if shared.size:
        raise FormatError(source, int(shared[0]) * node_bytes, "search tree reaches a node by two ways")
