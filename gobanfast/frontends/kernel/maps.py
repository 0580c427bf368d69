"""Drop sets: keys, values and counters that XDP and nftables have in common, and the boot clock they count on."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from gobanfast._core.address import format_address
from gobanfast._core.enums import MAKERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Key = tuple[bytes, int]
"""A prefix: 16 bytes in network order (IPv4 mapped), and its bits (IPv4 /n is 96 + n)."""

Mode = Literal["count", "drop", "reset"]

FOREVER = float("inf")
ALWAYS = (1 << 64) - 1  # of the kernel's u64: for good
V4 = bytes(10) + b"\xff\xff"
HOST, CLIENT6 = 128, 64

GROUPS = ("host4", "host6", "client6", "net4", "net6")
"""Parts of a drop set, which each have room for as many entries as the whole ban table. `client6` holds IPv6 /64s."""

VERDICTS = ("passed", "dropped", "counted", "allowed", "kept", "disarmed", "odd", "exempt", "established")
"""What became of packets, in the order of enum verdict in csrc/bpf/gbf_xdp.bpf.c."""

REASONS = ("other", *MAKERS, *("other",) * (7 - len(MAKERS)))
"""Who made the ban that a packet was dropped for, by the number in the kernel."""


class Entry(NamedTuple):
    """What the kernel is to know about a key: Unix seconds of the end (`FOREVER`), and the number of the reason."""

    end: float
    reason: int


class Entries(NamedTuple):
    """Many keys and their entries, in columns: n x 16 bytes, n bytes, n float64, n bytes."""

    addresses: NDArray[np.uint8]
    bits: NDArray[np.uint8]
    ends: NDArray[np.float64]
    reasons: NDArray[np.uint8]

    def __len__(self) -> int:
        raise TypeError("count entries.bits")


class Allowed(NamedTuple):
    """Who is never dropped: prefixes; and peers with a session, at the ports that are kept."""

    prefixes: frozenset[Key]
    peers: frozenset[bytes]
    ports: tuple[int, ...]


class DropSet(Protocol):
    """A set of keys in the kernel with their ends. XDP and nftables are two implementations.

    `put` says which keys found no room. `arm` lets it drop until a time of the boot clock: None is for good, 0.0 never.
    `present` is False once someone has taken it down. `discard` undoes a `make` that was not followed by `attach`.
    """

    kind: Literal["xdp", "nft"]
    interfaces: tuple[str, ...]

    def replace(self, entries: Entries) -> None: ...
    def put(self, entries: Mapping[Key, Entry]) -> list[Key]: ...
    def remove(self, keys: Collection[Key]) -> None: ...
    def allow(self, allowed: Allowed) -> None: ...
    def arm(self, until: float | None) -> None: ...
    def armed(self) -> float | None: ...
    def attach(self) -> None: ...
    def present(self) -> bool: ...
    def lost(self) -> list[str]: ...
    def status(self, *, count: bool = True) -> dict[str, Any]: ...
    def hits(self, keys: Collection[Key]) -> dict[Key, int]: ...
    def down(self) -> None: ...
    def discard(self) -> None: ...
    def close(self) -> None: ...


def group_of(key: Key) -> str:
    """The part of a drop set that a key belongs in."""
    packed, bits = key
    if bits >= 96 and packed[:12] == V4:
        return "host4" if bits == HOST else "net4"
    return "host6" if bits == HOST else "client6" if bits == CLIENT6 else "net6"


def key_text(key: Key) -> str:
    """The key of a ban of that prefix."""
    packed, bits = key
    address = format_address(packed)
    if bits == HOST:
        return address
    return f"{address}/{bits - 96 if bits >= 96 and packed[:12] == V4 else bits}"


def masked(packed: bytes, bits: int) -> Key:
    """The prefix of that length that an address lies in."""
    number = int.from_bytes(packed, "big") >> (128 - bits) << (128 - bits)
    return number.to_bytes(16, "big"), bits


def boot_seconds() -> float:
    """The clock that the program in the kernel compares with, which also counts while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """Unix seconds of a ban table -> the boot clock. `offset` is that of the table: setting a clock moves nothing."""

    def __init__(self, offset: float | None = None) -> None:
        self._offset = offset

    def shift(self) -> float:
        """What to add to Unix seconds of the table."""
        offset = time.time() - time.monotonic() if self._offset is None else self._offset
        return boot_seconds() - time.monotonic() - offset
