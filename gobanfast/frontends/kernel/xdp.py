"""XDP drop set: pinned maps, and a pinned bpf_link for each interface, so that drops outlive the process.

Long because one class is all of one drop set; what it packs and unpacks is below it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gobanfast.frontends.kernel import bpf
from gobanfast.frontends.kernel.bpf import KernelError, Map
from gobanfast.frontends.kernel.elf import BpfObject
from gobanfast.frontends.kernel.maps import (
    ALWAYS,
    FOREVER,
    GROUPS,
    REASONS,
    V4,
    VERDICTS,
    Allowed,
    Clock,
    Entries,
    Entry,
    Key,
    Mode,
    boot_seconds,
    group_of,
)  # fmt: skip

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PINS = Path("/sys/fs/bpf/gobanfast")
SAME = 50_000_000  # ns by which an end may differ, as two clocks were read, without being written anew
CHUNK = 100_000  # entries of one call
CONFIG = struct.Struct("<QII8H")
VALUE = struct.Struct("<QIIQ")
ALLOW_ALL, ALLOW_PORTS = struct.pack("<I", 1), struct.pack("<I", 2)
ETHERNET, LOOPBACK = 1, 772  # ARPHRD of what has Ethernet headers
SIOCGIFHWADDR = 0x8927
MODES = {"auto": 0, "generic": bpf.GENERIC, "native": bpf.NATIVE}

Attach = Literal["auto", "generic", "native"]


class XdpDrops:
    """The maps, and the links once it is attached. `make` and `pinned` give one.

    Attributes:
        maps: by name. `interfaces`: names of those it is attached to, or is to be.
    """

    kind: Literal["xdp", "nft"] = "xdp"

    def __init__(self, pins: Path, maps: dict[str, Map], links: dict[int, int], interfaces: tuple[str, ...]) -> None:
        self.pins, self.maps, self._links, self.interfaces = pins, maps, links, interfaces
        self._program: int | None = None
        self._attach: Attach = "auto"
        self._fresh = not pins.is_dir()
        self._mode, self._flags = 1, 0
        self._allowed: dict[str, dict[bytes, bytes]] | None = None
        self._ports: tuple[int, ...] = ()
        self.clock = Clock()
        self.generation = 1

    @classmethod
    def make(
        cls,
        interfaces: Sequence[str],
        *,
        capacity: int,
        mode: Mode = "drop",
        syn_only: bool = False,
        attach: Attach = "auto",
        pins: Path = PINS,
        clock: Clock | None = None,
    ) -> XdpDrops:
        """A set that is filled next, and attached last: new, or the pinned one of an earlier process, which goes on
        dropping meanwhile.

        Raises:
            KernelError: an interface, the kernel, its bpffs or the privilege is missing. Nothing is changed then.
        """
        if mode == "reset":
            raise KernelError("mode reset answers packets, which XDP cannot; use nftables (--nft)")
        for name in interfaces:
            check_interface(name)
        check_bpffs(pins.parent)
        found = BpfObject()
        kept = pins.is_dir()
        with suppress(ValueError, OSError):  # before Linux 5.11 maps count as locked memory
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        try:
            maps = _pinned_maps(pins, found) if kept else {
                name: Map.make(name, layout.kind, layout.key_bytes, layout.value_bytes, layout.entries or capacity,
                               layout.flags) for name, layout in found.maps.items()
            }  # fmt: skip
        except OSError as error:
            raise KernelError(f"{pins}: {error.strerror}; gobanfast kernel down removes what is there") from None
        made = cls(pins, maps, _pinned_links(pins) if kept else {}, tuple(interfaces))
        try:
            made._program = _load(found, {name: each.fd for name, each in maps.items()})
        except KernelError:
            made.close()
            raise
        made._mode, made._flags, made._attach = int(mode == "drop"), int(syn_only), attach
        made.clock = clock or Clock()
        made.generation = made._last_generation() + 1
        if not kept:
            made.arm(0.0)
        return made

    @classmethod
    def pinned(cls, pins: Path = PINS) -> XdpDrops | None:
        """The set that is in force, whoever made it; None where there is none. Raises KernelError."""
        try:
            if not pins.is_dir():
                return None
            maps = {path.name: Map.pinned(str(path), path.name) for path in pins.iterdir() if path.name in _NAMES}
            links = _pinned_links(pins)
        except OSError as error:
            raise KernelError(bpf.refusal(f"{pins} cannot be read", error), error.errno or 0) from None
        if set(maps) != _NAMES:
            raise KernelError(f"{pins} is incomplete; gobanfast kernel down removes what is there")
        names = tuple(_name(bpf.linked_interface(link)) for link in links.values())
        found = cls(pins, maps, links, names)
        found._mode, found._flags = found._config()[1:3]
        return found

    # ---- entries

    def replace(self, entries: Entries) -> None:
        """Makes the maps hold exactly these; what is there and right is not written, so hits stay."""
        import numpy as np

        shift = self.clock.shift()
        v4 = (entries.addresses[:, :12] == np.frombuffer(V4, np.uint8)).all(axis=1) & (entries.bits >= 96)
        host, client = entries.bits == 128, entries.bits == 64
        for group, chosen in zip(
            GROUPS, (v4 & host, ~v4 & host, ~v4 & client, v4 & ~host, ~v4 & ~host & ~client), strict=True
        ):
            self._replace(self.maps[group], group, entries, np.flatnonzero(chosen), shift)

    def _replace(self, target: Map, group: str, entries: Entries, rows: NDArray[np.int64], shift: float) -> None:
        import numpy as np

        wanted = _keys(group, entries.addresses[rows], entries.bits[rows])
        values = np.zeros(len(rows), _VALUE)
        values["end"] = _ends(entries.ends[rows] + shift)
        values["reason"], values["generation"] = entries.reasons[rows], self.generation
        parts = list(target.items())
        present = np.frombuffer(b"".join(keys for keys, _ in parts), wanted.dtype)
        held = np.frombuffer(b"".join(found for _, found in parts), _VALUE)
        change = np.ones(len(wanted), bool)
        if len(present):
            order = np.argsort(wanted)
            wanted, values = wanted[order], values[order]
            at = np.searchsorted(wanted, present)
            at[at == len(wanted)] = 0
            known = (wanted[at] == present) if len(wanted) else np.zeros(len(present), bool)
            target.delete_many(present[~known].tobytes())
            rows_known, now_held = at[known], held[known]
            values["hits"][rows_known] = now_held["hits"]
            ahead = values["end"][rows_known].view(np.int64) - now_held["end"].view(np.int64)
            change[rows_known] = (np.abs(ahead) > SAME) | (values["reason"][rows_known] != now_held["reason"])
        keys, values = wanted[change], values[change]
        for start in range(0, len(keys), CHUNK):
            target.put_many(keys[start : start + CHUNK].tobytes(), values[start : start + CHUNK].tobytes())

    def put(self, entries: Mapping[Key, Entry]) -> list[Key]:
        """Sets entries; the keys that found no room."""
        shift, refused = self.clock.shift(), []
        for key, entry in entries.items():
            group = group_of(key)
            target, packed = self.maps[group], key_of(group, key)
            end = ALWAYS if entry.end == FOREVER else max(0, int((entry.end + shift) * 1e9))
            before = target.get(packed)
            hits = 0 if before is None else VALUE.unpack(before)[3]
            try:
                target.put(packed, VALUE.pack(end, entry.reason, self.generation, hits))
            except OSError as error:
                if error.errno not in {errno.E2BIG, errno.ENOSPC, errno.ENOMEM}:
                    raise
                refused.append(key)
        return refused

    def remove(self, keys: Collection[Key]) -> None:
        """Takes entries out; those that are not there are no error."""
        for key in keys:
            group = group_of(key)
            self.maps[group].delete(key_of(group, key))

    def hits(self, keys: Collection[Key]) -> dict[Key, int]:
        """Packets that each of these keys has matched since it was put in."""
        found = {}
        for key in keys:
            group = group_of(key)
            value = self.maps[group].get(key_of(group, key))
            if value is not None:
                found[key] = VALUE.unpack(value)[3]
        return found

    # ---- who is never dropped, and until when anybody is

    def allow(self, allowed: Allowed) -> None:
        """Makes the allow maps hold exactly these: new ones first, then what is not wanted goes.

        Raises:
            KernelError: there are more than the maps hold. Those that were there stay.
        """
        wanted: dict[str, dict[bytes, bytes]] = {"allow4": {}, "allow6": {}}
        for packed, bits in allowed.prefixes:
            wanted[_allow_map(packed, bits)][_trie_key(packed, bits)] = ALLOW_ALL
        for peer in allowed.peers:
            wanted[_allow_map(peer, 128)].setdefault(_trie_key(peer, 128), ALLOW_PORTS)
        # Of nested entries the longest decides: a peer inside an allowed prefix is allowed whole.
        inside = {(peer, 128) for peer in allowed.peers if _is_inside(peer, allowed.prefixes)}
        for peer, _ in inside:
            wanted[_allow_map(peer, 128)][_trie_key(peer, 128)] = ALLOW_ALL
        for name, entries in wanted.items():
            target = self.maps[name]
            present = dict(_pairs(target)) if self._allowed is None else self._allowed[name]
            new = {key: value for key, value in entries.items() if present.get(key) != value}
            if target.put_many(b"".join(new), b"".join(new.values())) < len(new):
                text = f"{len(entries)} allow entries are more than the map holds ({target.entries}); raise --capacity"
                raise KernelError(text, errno.E2BIG)
            target.delete_many(b"".join(key for key in present if key not in entries))
        self._allowed = wanted
        if allowed.ports != self._ports or not self._config()[3]:
            self._ports = allowed.ports
            self._configure(self._config()[0])

    def arm(self, until: float | None) -> None:
        """Lets it drop until a time of the boot clock: None is for good, 0.0 is not at all."""
        self._configure(ALWAYS if until is None else int(until * 1e9))

    def armed(self) -> float | None:
        """Until when it drops, on the boot clock; None is for good."""
        until: float = self._config()[0]
        return None if until == ALWAYS else until / 1e9

    def _config(self) -> tuple[Any, ...]:
        return CONFIG.unpack(self.maps["config"].get(bytes(4)) or bytes(CONFIG.size))

    def _configure(self, until: int) -> None:
        ports = self._ports or tuple(port for port in self._config()[3:] if port)
        padded = (*ports, *(0,) * (8 - len(ports)))
        self.maps["config"].put(bytes(4), CONFIG.pack(until, self._mode, self._flags, *padded))

    # ---- life

    def attach(self) -> None:
        """Pins the maps; attaches the program where it is not, and puts it in place of an older one where it is.

        Raises:
            KernelError: one interface refuses. What this call has attached and pinned is taken away again.
        """
        wanted = {socket.if_nametoindex(name): name for name in self.interfaces}
        held = {index: link for index, link in self._links.items() if bpf.linked_interface(link) == index in wanted}
        made: dict[int, int] = {}
        try:
            for index, name in wanted.items():
                if index in held:
                    bpf.replace_program(held[index], self._loaded())
                else:
                    made[index] = self._link(index, name)
            self._pin(made)
        except (KernelError, OSError) as error:
            for link in made.values():
                with suppress(OSError):
                    bpf.detach(link)
                os.close(link)
            if self._fresh:
                _unpin(self.pins)
            if isinstance(error, KernelError):
                raise
            raise KernelError(bpf.refusal(f"{self.pins} cannot hold the program", error), error.errno or 0) from None
        for index, link in self._links.items():
            if index not in held:  # of an interface that is not asked for any more, or is gone
                with suppress(OSError):
                    bpf.detach(link)
                os.close(link)
                if index not in made:
                    (self.pins / f"link_{index}").unlink(missing_ok=True)
        self._links, self._fresh = held | made, False

    def _loaded(self) -> int:
        if self._program is None:
            raise KernelError("this set was opened to be looked at")
        return self._program

    def _link(self, index: int, name: str) -> int:
        try:
            return bpf.link_xdp(self._loaded(), index, MODES[self._attach])
        except OSError as error:
            if self._attach == "auto" and error.errno not in {errno.EBUSY, errno.EPERM, errno.ENODEV}:
                with suppress(OSError):
                    return bpf.link_xdp(self._loaded(), index, bpf.GENERIC)
            raise KernelError(bpf.refusal(f"XDP on {name}", error), error.errno or 0) from None

    def _pin(self, links: Mapping[int, int]) -> None:
        self.pins.mkdir(mode=0o700, exist_ok=True)
        for name, each in self.maps.items():
            with suppress(FileExistsError):
                bpf.pin(each.fd, str(self.pins / name))
        for index, link in links.items():
            path = self.pins / f"link_{index}"
            path.unlink(missing_ok=True)  # of an interface of this number that is gone
            bpf.pin(link, str(path))

    def present(self) -> bool:
        """Whether nobody has taken it down."""
        return (self.pins / "config").exists()

    def lost(self) -> list[str]:
        """Names of interfaces that the program is not at (any more)."""
        held = {bpf.linked_interface(link) for link in self._links.values()}
        return [name for name in self.interfaces if _index(name) not in held]

    def status(self, *, count: bool = True) -> dict[str, Any]:
        """What is in force, as JSON values; with `count` the number of entries, which reads them all."""
        until, mode, flags, *ports = self._config()
        left = until / 1e9 - boot_seconds()
        verdicts, reasons = self._counts()
        return {
            "kind": self.kind,
            "interfaces": list(self.interfaces),
            "lost": self.lost(),
            "mode": "drop" if mode else "count",
            "syn_only": bool(flags & 1),
            "armed": "for good" if until == ALWAYS else round(left, 1) if left > 0 else "no",
            "ports": [port for port in ports if port],
            "entries": {name: sum(len(keys) for keys, _ in self.maps[name].items()) // self.maps[name].key_bytes
                        for name in (*GROUPS, "allow4", "allow6") if count},
            "capacity": self.maps["host4"].entries,
            "memory": sum(each.memory() for each in self.maps.values()),
            "packets": verdicts,
            "reasons": reasons,
        }  # fmt: skip

    def _counts(self) -> tuple[dict[str, list[int]], dict[str, int]]:
        """Packets and bytes by verdict, packets by reason, over all CPUs."""
        sums: list[int] = []
        for i in range(len(VERDICTS) + len(REASONS)):
            numbers = struct.iter_unpack("<QQ", self.maps["counts"].get(struct.pack("<I", i)) or b"")
            sums += map(sum, zip(*numbers, strict=True))
        verdicts = {name: sums[2 * i : 2 * i + 2] for i, name in enumerate(VERDICTS)}
        reasons: dict[str, int] = {}
        for i, name in enumerate(REASONS):
            reasons[name] = reasons.get(name, 0) + sums[2 * (len(VERDICTS) + i)]
        return verdicts, {name: count for name, count in reasons.items() if count}

    def _last_generation(self) -> int:
        for _, values in self.maps["host4"].items(1024):
            generations = [VALUE.unpack_from(values, at)[2] for at in range(0, len(values), VALUE.size)]
            return int(max(generations)) & 0x7FFFFFFF
        return 0

    def down(self) -> None:
        """Takes the program from its interfaces, and every pin away."""
        for link in self._links.values():
            with suppress(OSError):
                bpf.detach(link)
        _unpin(self.pins)
        self.close()

    def discard(self) -> None:
        """As `close`: nothing is pinned before `attach`."""
        self.close()

    def close(self) -> None:
        """Closes descriptors. What is pinned goes on dropping."""
        for link in self._links.values():
            os.close(link)
        self._links = {}
        for each in self.maps.values():
            each.close()
        if self._program is not None:
            os.close(self._program)
            self._program = None


_VALUE: Any = [("end", "<u8"), ("reason", "<u4"), ("generation", "<u4"), ("hits", "<u8")]
_NAMES = {*GROUPS, "allow4", "allow6", "config", "counts"}


def key_of(group: str, key: Key) -> bytes:
    """A key as the map of its group has it."""
    packed, bits = key
    if group == "host4":
        return packed[12:]
    if group == "client6":
        return packed[:8]
    return packed if group == "host6" else _trie_key(packed, bits)


def _trie_key(packed: bytes, bits: int) -> bytes:
    if bits >= 96 and packed[:12] == V4:
        return struct.pack("<I", bits - 96) + packed[12:]
    return struct.pack("<I", bits) + packed


def _allow_map(packed: bytes, bits: int) -> str:
    return "allow4" if bits >= 96 and packed[:12] == V4 else "allow6"


def _pairs(target: Map) -> Iterator[tuple[bytes, bytes]]:
    for keys, values in target.items():
        for i in range(len(keys) // target.key_bytes):
            yield (
                keys[i * target.key_bytes : (i + 1) * target.key_bytes],
                values[i * target.value_bytes : (i + 1) * target.value_bytes],
            )


def _is_inside(peer: bytes, prefixes: Collection[Key]) -> bool:
    number = int.from_bytes(peer, "big")
    return any(number >> (128 - bits) == int.from_bytes(packed, "big") >> (128 - bits) for packed, bits in prefixes)


def _keys(group: str, addresses: NDArray[np.uint8], bits: NDArray[np.uint8]) -> NDArray[Any]:
    """Packed keys of a map, as items that sort in some order: numbers where they fit, else texts of bytes."""
    import numpy as np

    if group in {"net4", "net6"}:
        lengths = (bits - 96 if group == "net4" else bits).astype("<u4").view(np.uint8).reshape(-1, 4)
        rest = addresses[:, 12:] if group == "net4" else addresses
        columns = np.concatenate([lengths, rest], axis=1)
    else:
        columns = {"host4": addresses[:, 12:], "host6": addresses, "client6": addresses[:, :8]}[group]
    packed = np.ascontiguousarray(columns)
    size = packed.shape[1]
    return np.frombuffer(packed.tobytes(), {4: "<u4", 8: "<u8"}.get(size, f"S{size}"))


def _ends(seconds: NDArray[np.float64]) -> NDArray[np.uint64]:
    import numpy as np

    ends = np.full(len(seconds), ALWAYS, np.uint64)
    finite = np.isfinite(seconds)
    ends[finite] = (np.maximum(seconds[finite], 0) * 1e9).astype(np.uint64)
    return ends


def _load(found: BpfObject, descriptors: dict[str, int]) -> int:
    try:
        return bpf.load_program(
            "gobanfast", found.code("xdp.frags", descriptors), found.terms, bpf.HAS_PARTS
        )  # of Linux 5.18: interfaces with large packets in several buffers
    except KernelError as error:
        if error.errno in {errno.EPERM, errno.ENOSYS}:
            raise
        return bpf.load_program("gobanfast", found.code("xdp", descriptors), found.terms, 0)


def _pinned_maps(pins: Path, found: BpfObject) -> dict[str, Map]:
    maps = {}
    for name, layout in found.maps.items():
        each = maps[name] = Map.pinned(str(pins / name), name)
        if (each.key_bytes, each.value_bytes) != (layout.key_bytes, layout.value_bytes):
            for opened in maps.values():
                opened.close()
            raise KernelError(f"{pins / name} is of another version of gobanfast; run gobanfast kernel down first")
    return maps


def _pinned_links(pins: Path) -> dict[int, int]:
    return {int(path.name[5:]): bpf.get_pinned(str(path)) for path in pins.iterdir() if path.name.startswith("link_")}


def remove(pins: Path) -> None:
    """Takes away whatever is pinned there, complete or not."""
    if pins.is_dir():
        for link in _pinned_links(pins).values():
            with suppress(OSError):
                bpf.detach(link)
            os.close(link)
        _unpin(pins)


def _unpin(pins: Path) -> None:
    if pins.is_dir():
        for path in sorted(pins.iterdir(), key=lambda path: not path.name.startswith("link_")):
            path.unlink()
        pins.rmdir()


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return -1


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"#{index}" if index else "gone"


def check_interface(name: str) -> None:
    """Raises KernelError for an interface that is not there, or has no Ethernet headers."""
    if _index(name) < 0:
        there = ", ".join(found for _, found in socket.if_nameindex())
        raise KernelError(f"interface {name!r} is not there; there are {there}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        answer = fcntl.ioctl(asked, SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
    (kind,) = struct.unpack_from("<H", answer, 16)
    if kind not in {ETHERNET, LOOPBACK}:
        text = f"interface {name!r} has no Ethernet headers (type {kind}), which the XDP program reads; use --nft"
        raise KernelError(text)


def check_bpffs(folder: Path) -> None:
    """Raises KernelError for a folder that is not of a bpffs, where objects could be pinned."""
    best, kind = "", ""
    real = str(folder.resolve())
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            place = before.split()[4]
            if (real == place or real.startswith(place.rstrip("/") + "/")) and len(place) >= len(best):
                best, kind = place, after.split()[0]
    if kind != "bpf" or not folder.is_dir():
        text = f"{folder} is not in a bpffs, so drops could not outlive the process; mount -t bpf bpf /sys/fs/bpf"
        raise KernelError(f"{text}; or use nftables (--nft)", errno.ENODEV)
