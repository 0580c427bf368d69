"""Host names of requests: parsing of Host and `:authority`, agreement with the SNI, names that a certificate covers.

None of it says what to do: a mismatch has honest causes too (a shared HTTP/2 connection), so it is a signal, not a ban.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from gobanfast._core.address import parse_address

Agreement = Literal["agree", "coalesced", "differ", "unknown"]

NAME_LIMIT = 253
PORT = re.compile(r"[0-9]{0,5}", re.ASCII)
NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)


def host_name(authority: str | None) -> str | None:
    """The host in a Host header or `:authority`, in lower case and without port, brackets and final dot; None if there
    is none in it."""
    if not authority or len(authority) > NAME_LIMIT + 8 or "@" in authority:
        return None
    host, port = authority, ""
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        if not bracket or (port and not port.startswith(":")) or ":" not in host:
            return None
        port = port[1:]
        return host.lower() if parse_address(host) is not None and PORT.fullmatch(port) else None
    host, _, port = authority.partition(":")
    host = host.lower().removesuffix(".")
    return host if PORT.fullmatch(port) and len(host) <= NAME_LIMIT and NAME.fullmatch(host) else None


def agreement(sni: str | None, authority: str | None, names: Iterable[str] = ()) -> Agreement:
    """How the name a TLS connection was opened for goes with the host a request on it asks for.

    "coalesced" is a host that the certificate (`names`, its DNS names) covers besides the SNI: browsers send requests
    for such hosts over one connection (RFC 9113 section 9.1.1); 421 sends them back if the host is not served there.
    "unknown": one of the two is absent, cannot be read, or is an address, which SNI never holds.
    """
    host = host_name(authority)
    opened = host_name(sni)
    if host is None or opened is None or parse_address(host) is not None or parse_address(opened) is not None:
        return "unknown"
    if host == opened:
        return "agree"
    return "coalesced" if any(covers(name, host) for name in names) else "differ"


def covers(name: str, host: str) -> bool:
    """Whether a certificate's DNS name is valid for a host (RFC 9525 section 6.3): `*` stands for one whole label."""
    name = name.lower().removesuffix(".")
    if name.startswith("*."):
        first, _, rest = host.partition(".")
        return bool(first) and rest == name[2:]
    return name == host
