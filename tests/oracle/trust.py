"""X-Forwarded-For walked with the standard library: the slow, obvious side."""

from __future__ import annotations

import ipaddress
import re


def client(trusted, value, peer, max_hops=16):
    """(status, address) for a chain from a trusted peer that owes none, with `trusted` as (prefix, ...)."""
    networks = [ipaddress.ip_network(prefix) for prefix in trusted]
    elements = [element.strip(" \t") for element in value.split(",")]
    elements = [element for element in elements if element]
    passed = 0
    if not elements:
        return "trusted", peer
    while elements:
        element = elements.pop()
        address = read(element)
        if address is None:
            obfuscated = re.fullmatch(
                r"(unknown|_[A-Za-z0-9._-]+)(:([0-9]{1,5}|_[A-Za-z0-9._-]+))?", element, re.IGNORECASE
            )
            port = obfuscated and obfuscated[3]
            fits = obfuscated and not (port and port.isdigit() and int(port) > 65535)
            return ("unknown", None) if fits else ("malformed", None)
        if not any(address.version == network.version and address in network for network in networks):
            return "ok", str(address)
        if passed == max_hops:
            return "too-many-hops", None
        passed += 1
    return "trusted", None


def read(element):
    """The address in an element, or None."""
    for pattern in (r"(.*)", r"([^:]*):(?:[0-9]{1,5}|_[A-Za-z0-9._-]+)", r"\[(.*:.*)\](?::(?:[0-9]{1,5}|_[\w.-]+))?"):
        found = re.fullmatch(pattern, element, re.ASCII)
        if found is None:
            continue
        port = re.search(r"[\d\]]:([0-9]{1,5})$", element) if pattern != "(.*)" else None
        if port is not None and int(port[1]) > 65535:
            continue
        try:
            address = ipaddress.ip_address(found[1])
        except ValueError:
            continue
        if address.version == 6:
            address = address.ipv4_mapped or ipaddress.ip_address(str(address).partition("%")[0])
        return address
    return None
