"""What ban keys are and what a table of bans answers: the standard library's addresses, a dict, and every ban asked."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace

from gobanfast.bans import Ban
from oracle.prefix import Address, Network, canonical

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")


def embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address carries, or None."""
    address = canonical(address)
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) - int(NAT64.network_address))
    if address in LOCAL_NAT64 and address.packed[8] == 0 and address.packed[13:] != bytes(3):  # a /96 of RFC 8215
        return ipaddress.IPv4Address(address.packed[12:])
    return address.teredo[1] if address.teredo else address.sixtofour


def client(address: Address, bits: int = 64) -> Network:
    """The prefix that one client has."""
    address = embedded(address) or canonical(address)
    return prefix(address, 32 if address.version == 4 else bits)


def prefix(address: Address, bits: int) -> Network:
    """The prefix of `bits` bits around an address."""
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv4Network((int(address), bits), strict=False)
    return ipaddress.IPv6Network((int(address), bits), strict=False)


def text(net: Network) -> str:
    """The key of a prefix: that of an address when it holds one only."""
    return str(net.network_address) if net.prefixlen == net.max_prefixlen else str(net)


@dataclass(frozen=True)
class Request:
    """What is known of one request; None and 0 are unknown."""

    address: Address | None
    asn: int
    fingerprint: str | None

    def possible_keys(self) -> list[str]:
        """All keys that a ban of this request may have, most specific first."""
        found: list[str] = []
        addresses: list[Address] = []
        if self.address is not None:
            addresses = [canonical(self.address), *filter(None, [embedded(self.address)])]
            if self.fingerprint is not None:
                found += dict.fromkeys(f"{self.fingerprint}@{text(client(self.address, n))}" for n in (64, 56, 48))
        for address in addresses:
            for bits in range(address.max_prefixlen, -1, -1):
                found.append(text(prefix(address, bits)))
        found += [self.fingerprint] if self.fingerprint is not None else []
        found += [f"AS{self.asn}"] if self.asn else []
        return found


@dataclass(frozen=True)
class Event:
    """One change, as it happened."""

    event: str
    ban: Ban
    maker: str
    at: float


@dataclass
class Table:
    """Bans in a dict, and all that ever happened to them in a list. Times are Unix seconds that are whole milliseconds.
    Without jitter. Time never goes back."""

    factor: float = 1.0
    cap: float = float("inf")
    memory: float = 0.0
    stored: dict[str, Ban] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def settle(self, now: float) -> None:
        """Drops what is over and forgotten."""
        for key, ban in list(self.stored.items()):
            if not holds(ban, now) and end(ban) + self.memory <= now:
                del self.stored[key]

    def get(self, key: str, now: float) -> Ban | None:
        """The ban of `key`."""
        ban = self.stored.get(key)
        return ban if ban is not None and holds(ban, now) else None

    def lookup(self, request: Request, now: float) -> Ban | None:
        """The ban that lasts longest, the most specific of equals."""
        found = [ban for key in request.possible_keys() if (ban := self.get(key, now)) is not None]
        return max(found, key=end, default=None)

    def bans(self, now: float) -> dict[str, Ban]:
        """All that hold."""
        return {key: ban for key, ban in self.stored.items() if holds(ban, now)}

    def ban(self, key: str, duration: float | None, reason: str, rule: str | None, by: str, now: float) -> Ban:
        """The ban of `key` as it stands after one more."""
        self.settle(now)
        old, before = self.get(key, now), self.stored.get(key)
        count = old.count if old else before.count + 1 if before else 1
        if duration is not None and by in ("rule", "tracker"):
            duration = min(duration * self.factor ** (count - 1), max(duration, self.cap))
        new = Ban(
            key, reason, rule, old.created if old else now, None if duration is None else now + duration, count, by
        )
        return self._merge(new, old, by, now)

    def put(self, ban: Ban, maker: str, now: float) -> None:
        """Takes over a ban."""
        self.settle(now)
        if holds(ban, now):
            before = self.stored.get(ban.key)
            count = max(ban.count, before.count) if before else ban.count
            self._merge(replace(ban, count=count), self.get(ban.key, now), maker, now)

    def extend(self, key: str, expires: float | None, maker: str, now: float) -> Ban | None:
        """The ban of `key`, until `expires` at least."""
        self.settle(now)
        old = self.get(key, now)
        return old and self._merge(replace(old, expires=expires), old, maker, now)

    def unban(self, key: str, maker: str, now: float) -> Ban | None:
        """The ban of `key`, gone now."""
        old = self.get(key, now)
        self.stored.pop(key, None)
        if old is not None:
            self.events.append(Event("lift", old, maker, now))
        return old

    def _merge(self, new: Ban, old: Ban | None, maker: str, now: float) -> Ban:
        new = whole(new)
        if old is not None and end(old) >= end(new):
            new = replace(old, count=new.count)
        else:
            self.events.append(Event("add" if old is None else "extend", new, maker, now))
        self.stored[new.key] = new
        return new


def whole(ban: Ban) -> Ban:
    """Its times made whole milliseconds, which sums of floats are not."""
    expires = None if ban.expires is None else round(ban.expires * 1000) / 1000
    return replace(ban, created=round(ban.created * 1000) / 1000, expires=expires)


def end(ban: Ban) -> float:
    """When it ends."""
    return float("inf") if ban.expires is None else ban.expires


def holds(ban: Ban, now: float) -> bool:
    """Whether it bans at `now`."""
    return now < end(ban)
