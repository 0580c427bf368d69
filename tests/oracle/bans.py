"""What ban keys and client keys are, on the standard library's addresses."""

from __future__ import annotations

import ipaddress

from oracle.prefix import Address, Network, canonical

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address carries, or None."""
    address = canonical(address)
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) - int(NAT64.network_address))
    return address.teredo[1] if address.teredo else address.sixtofour


def client(address: Address) -> Network:
    """The prefix that one client has."""
    address = embedded(address) or canonical(address)
    return ipaddress.ip_network((int(address), 32 if address.version == 4 else 64), strict=False)


def text(net: Network) -> str:
    """The key of a prefix: that of an address when it holds one only."""
    return str(net.network_address) if net.prefixlen == net.max_prefixlen else str(net)
