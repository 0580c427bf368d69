"""Guard against banning oneself: whom no ban may hit without force, and why.

This host's own addresses, its gateways, the peers of sessions that are logged in to it (`wire.own_addresses`), the
proxies under `trust:` and the prefixes under `bans: protect:`. Addresses for documentation are nobody's.
"""

from __future__ import annotations

import os
import threading
import time
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from gobanfast._core.address import client_of, format_address
from gobanfast.wire.own_addresses import gateways, own_addresses, protected_addresses

if TYPE_CHECKING:
    from gobanfast.rules.rule import PrefixList

KEEP_SECONDS = 60.0  # that what the host says is used
TOLD_LIMIT = 1000  # clients that are told of

DOCUMENTATION = tuple(
    map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"))
)


class _Host:
    """What this host says of its addresses, kept for a while."""

    def __init__(self) -> None:
        self.until = 0.0
        self.known: dict[str, str] = {}
        self._busy = threading.Lock()

    def now(self) -> dict[str, str]:
        """As it is now: for a person, who can wait for logind."""
        self.known, self.until = _without_documentation(protected_addresses()), time.monotonic() + KEEP_SECONDS
        return self.known

    def lately(self) -> dict[str, str]:
        """As it was lately: for a decision, which waits for nobody. The first one reads what takes no time."""
        if time.monotonic() >= self.until and self._busy.acquire(blocking=False):
            if not self.known:
                near = dict.fromkeys(map(str, gateways()), "the gateway of this host")
                near |= dict.fromkeys(map(str, own_addresses()), "an address of this host")
                self.known = _without_documentation(near)
            self.until = time.monotonic() + KEEP_SECONDS
            try:
                threading.Thread(target=self._renew, name="gobanfast-spared", daemon=True).start()
            except RuntimeError:  # no thread to be had, or the interpreter ends: what is known stays
                self._busy.release()
        return self.known

    def _renew(self) -> None:
        try:
            self.now()
        finally:
            self._busy.release()


HOST = _Host()


def _forked() -> None:
    """A child has not the thread that may be asking, and which would hold the lock for good."""
    HOST._busy = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def _without_documentation(found: dict[str, str]) -> dict[str, str]:
    return {text: why for text, why in found.items() if not any(ip_address(text) in net for net in DOCUMENTATION)}


class Spared:
    """Whom no ban may hit, by the rules of one snapshot.

    Args:
        protect: prefixes of `bans: protect:`; None: none.
        trust: those of proxies.
    """

    def __init__(self, protect: PrefixList | None, trust: PrefixList) -> None:
        self._prefixes = [(net, "protected by bans: protect:") for net in _networks(protect)]
        self._prefixes += [(net, "trusted as a proxy by trust:") for net in _networks(trust)]
        self._told: set[str] = set()

    def why(self, key: str) -> str | None:
        """Why a ban of this canonical key would hit oneself; None: it would not. Keys that are no addresses hit nobody
        that is known."""
        return self._why(key, HOST.now())

    def _why(self, key: str, host: dict[str, str]) -> str | None:
        if key.startswith(("AS", "gh2:", "uid:")):
            return None
        wanted = ip_network(key, strict=False)
        for text, what in host.items():
            if ip_address(text) in wanted:
                return f"ban of {key!r} keeps out {text}, {what}"
        for net, what in self._prefixes:
            if net.version == wanted.version and net.overlaps(wanted):
                return f"ban of {key!r} keeps out {net}, {what}"
        return None

    def __call__(self, address: str, rule: str) -> bool:
        """Whether no decision may ban the client at this address; each is told of once."""
        key = client_of(address)
        why = None if key is None else self._why(key, HOST.lately())
        if why is not None and key not in self._told and len(self._told) < TOLD_LIMIT:
            self._told.add(str(key))
            import logging  # here: most processes never ban themselves

            logging.getLogger("gobanfast.rules").warning("%s; %s banned it not", why, rule)
        return why is not None


def _networks(prefixes: PrefixList | None) -> list[IPv4Network | IPv6Network]:
    found: list[IPv4Network | IPv6Network] = []
    for at, bits in enumerate(b"" if prefixes is None else prefixes.lengths):
        text = format_address(prefixes.addresses[16 * at : 16 * at + 16]) if prefixes is not None else ""
        four = "." in text and bits >= 96
        found.append(ip_network(f"{text}/{bits - 96 if four else bits}", strict=False))
    return found
