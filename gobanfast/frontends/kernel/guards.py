"""Never-drop list: allow rules that packets show, this host and what it needs, administrators with a session."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gobanfast._core.address import format_address, parse_address
from gobanfast.frontends.kernel.maps import HOST, V4, Key, key_text
from gobanfast.frontends.kernel.plan import prefixes_of

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable
    from gobanfast.rules import Rule, Ruleset
    from gobanfast.rules.rule import PrefixList

PROC = Path("/proc/self/net")  # of the network namespace that this process is in
RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
UTMP = (Path("/run/utmp"), Path("/var/run/utmp"))
SESSIONS = Path("/run/systemd/sessions")
UTMP_RECORD = struct.Struct("<hxxi32s4s32s256shhiii4I20s")  # as glibc has it on every 64-bit machine, 384 bytes
USER_PROCESS = 7
SEEN = ("prefix", "prefix_file", "asn", "asn_name")  # conditions that a packet is enough for
LOOPBACK = (("127.0.0.0", 8), ("::1", 128))


# ---- allow rules


def allow_rules(ruleset: Ruleset, networks: AsnTable | None) -> tuple[frozenset[Key], list[str]]:
    """(prefixes that enforced `allow` rules name, ids of those rules that ask for more than a packet shows)."""
    found: set[Key] = set()
    unseen = []
    for rule in ruleset.rules:
        if (rule.effect, rule.action, rule.mode) != ("admit", "allow", "enforce"):
            continue
        seen = allowed_by(rule, networks)
        if seen is None:
            unseen.append(rule.id)
        else:
            found |= seen
    return frozenset(found), unseen


def allowed_by(rule: Rule, networks: AsnTable | None) -> set[Key] | None:
    """Prefixes of all addresses that a rule allows; None where it has conditions on more than the address, or on where
    the address is not."""
    when = rule.when
    if any(getattr(when, name) is not None for name in type(when).__annotations__ if name not in SEEN):
        return None
    sets = [set(unpacked(listed)) for listed in when.prefix_lists]
    if when.on_asn:
        if networks is None:
            return None
        sets.append(set(prefixes_of(asns_of(rule, networks), networks)))
    if not sets:
        return {(V4 + bytes(4), 96), (bytes(16), 0)}
    while len(sets) > 1:
        sets.append(_both(sets.pop(), sets.pop()))
    return sets[0]


def asns_of(rule: Rule, networks: AsnTable) -> set[int]:
    """Numbers of the ASes that the conditions of a rule name."""
    from gobanfast.rules.regex import compile_regex

    known = [int(number) for number in networks.asns()]
    chosen = {number for number in known if number > 0}
    if rule.when.asn is not None:
        chosen = {number for number in chosen if any(first <= number <= last for first, last in rule.when.asn)}
    if rule.when.asn_name is not None:
        searches = [(compile_regex(pattern.regex).search, pattern.separator) for pattern in rule.when.asn_name]
        chosen = {
            number for number in chosen
            if any(search(networks.describe(number).replace(" ", separator, 1)) for search, separator in searches)
        }  # fmt: skip
    return chosen


def unpacked(listed: PrefixList) -> Iterator[Key]:
    """The prefixes of a packed list."""
    for i, bits in enumerate(listed.lengths):
        yield listed.addresses[16 * i : 16 * i + 16], bits


def _both(one: set[Key], other: set[Key]) -> set[Key]:
    """Prefixes of the addresses that are in both."""
    return {key for key in one if _is_within(key, other)} | {key for key in other if _is_within(key, one)}


def _is_within(key: Key, prefixes: Iterable[Key]) -> bool:
    number = int.from_bytes(key[0], "big")
    four = _is_v4(key)
    return any(
        bits <= key[1] and _is_v4((packed, bits)) == four
        and number >> (128 - bits) == int.from_bytes(packed, "big") >> (128 - bits)
        for packed, bits in prefixes
    )  # fmt: skip


def _is_v4(key: Key) -> bool:
    return key[1] >= 96 and key[0][:12] == V4


# ---- this host, and what it depends on


def host_prefixes() -> frozenset[Key]:
    """Addresses of this host, its gateways and its name servers; loopback."""
    texts = [*own_addresses(), *gateways(), *name_servers()]
    found = {(packed, HOST) for text in texts if (packed := parse_address(text)) is not None}
    for text, bits in LOOPBACK:
        packed = parse_address(text)
        if packed is not None:
            found.add((packed, bits + 96 if "." in text else bits))
    return frozenset(found)


def own_addresses() -> Iterator[str]:
    """All local addresses, as the routing tables have them."""
    before = ""
    for line in _lines(PROC / "fib_trie"):
        if "/32 host LOCAL" in line and before:
            yield before.rsplit(maxsplit=1)[-1]
        before = line if "|--" in line else before
    for line in _lines(PROC / "if_inet6"):
        yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0]))


def gateways() -> Iterator[str]:
    """Next hops of all routes: not of the default route alone, because any may lead to who administers this host."""
    for line in _lines(PROC / "route"):
        parts = line.split()
        if len(parts) > 3 and re.fullmatch(r"[0-9A-F]{8}", parts[2]) and int(parts[3], 16) & 2:
            yield socket.inet_ntoa(struct.pack("=I", int(parts[2], 16)))
    for line in _lines(PROC / "ipv6_route"):
        parts = line.split()
        if len(parts) > 8 and int(parts[8], 16) & 2:
            yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(parts[4]))


def name_servers() -> Iterator[str]:
    """Resolvers that are configured."""
    for path in RESOLVERS:
        for line in _lines(path):
            parts = line.split()
            if parts[:1] == ["nameserver"] and len(parts) > 1:
                yield parts[1].partition("%")[0]


def default_interfaces() -> tuple[str, ...]:
    """Interfaces of the default routes."""
    found = [line.split()[0] for line in _lines(PROC / "route") if line.split()[1:2] == ["00000000"]]
    for line in _lines(PROC / "ipv6_route"):
        parts = line.split()
        if parts[0] == "0" * 32 and parts[1] == "00" and parts[-1] != "lo":
            found.append(parts[-1])
    return tuple(dict.fromkeys(found))


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    return []


# ---- administrators


def session_peers() -> frozenset[bytes]:
    """Addresses that people are logged in from, as utmp and logind say; a TCP connection alone is no session."""
    found = set()
    for path in UTMP:
        with suppress(OSError):
            found |= set(utmp_peers(path.read_bytes()))
    with suppress(OSError):
        for path in SESSIONS.iterdir():
            with suppress(OSError):
                text = path.read_text(encoding="utf-8", errors="replace")
                fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
                if fields.get("REMOTE") == "1" and fields.get("STATE") != "closing":
                    packed = parse_address(fields.get("REMOTE_HOST", "").partition("%")[0])
                    if packed is not None:
                        found.add(packed)
    return frozenset(found)


def utmp_peers(data: bytes) -> Iterator[bytes]:
    """Peers of the logins in a utmp file."""
    for at in range(0, len(data) - UTMP_RECORD.size + 1, UTMP_RECORD.size):
        kind, *_, first, second, third, fourth, _ = UTMP_RECORD.unpack_from(data, at)
        if kind != USER_PROCESS or not first | second | third | fourth:
            continue
        words = struct.pack("=4I", first, second, third, fourth)
        packed = V4 + words[:4] if not second | third | fourth else words
        yield parse_address(format_address(packed)) or packed


# ---- proxies


def proxies(ruleset: Ruleset, own: Iterable[Key]) -> list[str]:
    """Prefixes under `trust:` that are not this host's own: proxies elsewhere, whose address packets have."""
    here = set(own)
    return [key_text(key) for key in unpacked(ruleset.trust) if not _is_within(key, here)]


def connected_through(ruleset: Ruleset, own: Iterable[Key]) -> set[str]:
    """Peers of established TCP connections that are such proxies."""
    here = set(own)
    remote = {key for key in unpacked(ruleset.trust) if not _is_within(key, here)}
    found = set()
    for name in ("tcp", "tcp6"):
        for line in _lines(PROC / name)[1:]:
            parts = line.split()
            if parts[3] != "01":
                continue
            raw = bytes.fromhex(parts[2].partition(":")[0])
            words = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
            packed = V4 + words if len(words) == 4 else words
            if _is_within((packed, HOST), remote):
                found.add(format_address(packed))
    return found
