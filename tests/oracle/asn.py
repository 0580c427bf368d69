"""Origin AS of an address by scanning every prefix: slow and obvious."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(text: str) -> Address:
    """The address a text means here: a mapped IPv6 address is the IPv4 address."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def lookup(rows: Iterable[tuple[str, int]], text: str) -> int | None:
    """ASN of the longest prefix that covers the address; of equal prefixes, the last. Rows of AS 0 do not count."""
    address = address_of(text)
    best: tuple[int, int] | None = None
    for prefix, asn in rows:
        network = ipaddress.ip_network(prefix)
        covers = asn != 0 and network.version == address.version and address in network
        if covers and (best is None or network.prefixlen >= best[0]):
            best = network.prefixlen, asn
    return None if best is None else best[1]


def range_rows(first: str, last: str, asn: int) -> list[tuple[str, int]]:
    """The rows `prefix, asn` that stand for one row `first, last, asn`."""
    networks = ipaddress.summarize_address_range(ipaddress.ip_address(first), ipaddress.ip_address(last))  # type: ignore[type-var]
    return [(str(network), asn) for network in networks]


def probes(prefixes: Iterable[str]) -> list[str]:
    """Addresses where an answer may change: first and last of each prefix, and their outer neighbours."""
    found = []
    for prefix in prefixes:
        network = ipaddress.ip_network(prefix)
        highest = 2**network.max_prefixlen - 1
        first, last = int(network.network_address), int(network.broadcast_address)
        numbers = (first - 1, first, last, last + 1)
        found += [str(type(network.network_address)(number)) for number in numbers if 0 <= number <= highest]
    return [text for text in found if getattr(ipaddress.ip_address(text), "ipv4_mapped", None) is None]
