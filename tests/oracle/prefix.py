"""Longest-prefix match by asking every prefix, on the standard library's addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def canonical(address: Address) -> Address:
    """::ffff:a.b.c.d is the IPv4 address; a zone id is no part of an address."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address


def covering(table: Mapping[Network, int], address: Address) -> tuple[Network, int] | None:
    """The longest prefix of `table` that covers `address`, with its value."""
    address = canonical(address)
    found = [
        (network, value)
        for network, value in table.items()
        if network.version == address.version and address in network
    ]
    return max(found, key=lambda item: item[0].prefixlen, default=None)
