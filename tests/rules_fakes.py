"""An AS table made from prefixes in words, and the reading of compiled arrays, shared by the rules tests."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np

from gobanfast.rules import Ruleset
from oracle.rules import OracleNetworks


class FakeAsnTable:
    """What the rules compiler asks of an AsnTable, answered by the oracle at every boundary."""

    def __init__(self, networks: OracleNetworks | None = None) -> None:
        self.networks = networks or OracleNetworks()
        self.describe = self.networks.describe
        self.name = self.networks.names.get
        self.content_hash = "fake"

    def ranges(self) -> tuple[Any, Any, Any, Any]:
        starts4, asn4 = self._family(ipaddress.IPv4Address, 1 << 32)
        starts6, asn6 = self._family(ipaddress.IPv6Address, 1 << 128)
        packed = b"".join(start.to_bytes(16, "big") for start in starts6)
        return (
            np.array(starts4, np.uint32),
            np.array(asn4, np.uint32),
            np.frombuffer(packed, np.uint8).reshape(-1, 16),
            np.array(asn6, np.uint32),
        )

    def _family(self, address: Any, end: int) -> tuple[list[int], list[int]]:
        boundaries = {0}
        for prefix, _ in self.networks.prefixes:
            network = ipaddress.ip_network(prefix)
            if network.max_prefixlen == end.bit_length() - 1:
                first = int(network.network_address)
                boundaries |= {first, first + network.num_addresses}
        starts = sorted(boundaries - {end})
        return starts, [self.networks.lookup(str(address(start))) for start in starts]


def vector(ruleset: Ruleset, address: str | None) -> tuple[int, int]:
    """(AS number, bit vector) that the compiled arrays give an address; None is an absent one."""
    overlay = ruleset.overlay
    if address is None:
        asn, class_ = 0, 0
    else:
        packed = ipaddress.ip_address(address)
        if packed.version == 4:
            starts, leaves = overlay.starts4.tolist(), overlay.leaves4
        else:
            starts, leaves = [int.from_bytes(row.tobytes(), "big") for row in overlay.starts6], overlay.leaves6
        row = max(index for index, start in enumerate(starts) if start <= int(packed))
        leaf = leaves[row]
        asn, class_ = int(overlay.leaf_asn[leaf]), int(overlay.leaf_class[leaf])
    words = overlay.vectors[class_ * overlay.words : (class_ + 1) * overlay.words]
    return asn, int.from_bytes(words.astype("<u8").tobytes(), "little")


def ids(ruleset: Ruleset, bits: int) -> list[str]:
    """Ids of the rules whose bits are set, in decision order."""
    return [rule.id for index, rule in enumerate(ruleset.rules) if bits >> index & 1]


def mask(words: Any) -> int:
    """A mask of the overlay as one integer."""
    return int.from_bytes(words.astype("<u8").tobytes(), "little")
