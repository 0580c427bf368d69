"""nftables drop set: a table of its own, a set with timeouts for each length of prefix, elements in JSON batches."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import collapse_addresses, ip_network
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any, Literal

from gobanfast._core.address import format_address, parse_address
from gobanfast.frontends.kernel.bpf import KernelError
from gobanfast.frontends.kernel.maps import V4, Allowed, Clock, Entries, Entry, Key, Mode, boot_seconds, key_text

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

TABLE = "gobanfast"
CHUNK = 20_000  # elements of one batch
SAME = 2.0  # seconds by which an end may differ without being written anew: timeouts are whole seconds
COUNTERS = ("dropped", "counted", "allowed", "kept", "disarmed", "exempt", "established")

BASE = """
add table inet {table}
{counters}
add set inet {table} armed {{ type nf_proto; flags timeout; }}
add set inet {table} allow4 {{ type ipv4_addr; flags interval; }}
add set inet {table} allow6 {{ type ipv6_addr; flags interval; }}
add set inet {table} keep4 {{ type ipv4_addr; }}
add set inet {table} keep6 {{ type ipv6_addr; }}
add chain inet {table} banned
add chain inet {table} lookups
add chain inet {table} packets {{ type filter hook prerouting priority -310; policy accept; }}
flush chain inet {table} packets
{only}add rule inet {table} packets ip saddr {{ 0.0.0.0, 169.254.0.0/16 }} counter name exempt accept
add rule inet {table} packets ip6 saddr {{ ::, fe80::/10 }} counter name exempt accept
add rule inet {table} packets ip saddr @allow4 counter name allowed accept
add rule inet {table} packets ip6 saddr @allow6 counter name allowed accept
add rule inet {table} packets jump lookups
"""
BANNED = """
flush chain inet {table} banned
add rule inet {table} banned udp sport {{ 67, 68 }} udp dport {{ 67, 68 }} counter name exempt accept
add rule inet {table} banned udp sport {{ 546, 547 }} udp dport {{ 546, 547 }} counter name exempt accept
add rule inet {table} banned icmpv6 type {{ 133, 134, 135, 136, 137 }} counter name exempt accept
{kept}
{syn}
add rule inet {table} banned meta nfproto != @armed counter name disarmed accept
{end}
"""
KEPT = """
add rule inet {table} banned ip saddr @keep4 ip frag-off & 0x1fff != 0 counter name kept accept
add rule inet {table} banned ip saddr @keep4 meta l4proto {{ tcp, udp }} th dport {{ {ports} }} counter name kept accept
add rule inet {table} banned ip6 saddr @keep6 meta l4proto {{ tcp, udp }} th dport {{ {ports} }} counter name kept \
  accept
"""
SYN = """
add rule inet {table} banned meta l4proto != tcp counter name established accept
add rule inet {table} banned tcp flags & (syn | ack) != syn counter name established accept
"""
END = {
    "count": "add rule inet {table} banned counter name counted accept",
    "drop": "add rule inet {table} banned counter name dropped drop",
    "reset": "add rule inet {table} banned meta l4proto tcp counter name dropped reject with tcp reset\n"
    "add rule inet {table} banned counter name dropped drop",
}


class NftDrops:
    """The table. `make` and `present_table` give one; the arguments are those of `XdpDrops.make`.

    A timeout is a whole number of seconds, so an entry may last up to a second longer.
    """

    kind: Literal["xdp", "nft"] = "nft"

    def __init__(self, interfaces: Sequence[str], capacity: int, clock: Clock, table: str) -> None:
        self.interfaces, self.capacity, self.clock, self.table = tuple(interfaces), capacity, clock, table
        self._sets: set[str] = set()
        self._allowed: Allowed | None = None
        self._mode: Mode = "drop"
        self._syn_only = False
        self._fresh = False

    @classmethod
    def make(
        cls,
        interfaces: Sequence[str] = (),
        *,
        capacity: int,
        mode: Mode = "drop",
        syn_only: bool = False,
        clock: Clock | None = None,
        table: str = TABLE,
    ) -> NftDrops:
        """A set that is filled next, and attached last. `interfaces`: where packets come in; none: all.

        Raises:
            KernelError: no nft, no nftables in this kernel, or no privilege. Nothing is changed then.
        """
        made = cls(interfaces, capacity, clock or Clock(), table)
        made._mode, made._syn_only = mode, syn_only
        listed("list", "tables")
        found = made._listed()
        made._sets = {part["set"]["name"] for part in found if "set" in part and part["set"]["name"].startswith("ban")}
        made._fresh = not found
        if not found:  # complete, but nothing leads there yet
            run(made._script(BASE).partition("add chain inet")[0] + f"add chain inet {table} banned\n"
                f"add chain inet {table} lookups\n")  # fmt: skip
        return made

    @classmethod
    def present_table(cls, table: str = TABLE) -> NftDrops | None:
        """The table that is in force, whoever made it; None where there is none. Raises KernelError."""
        made = cls((), 0, Clock(), table)
        found = made._listed()
        made._sets = {part["set"]["name"] for part in found if "set" in part and part["set"]["name"].startswith("ban")}
        return made if found else None

    # ---- entries

    def replace(self, entries: Entries) -> None:
        """Makes the sets hold exactly these; what is there and right is not written."""
        wanted = {
            (packed.tobytes(), bits): end
            for packed, bits, end in zip(entries.addresses, entries.bits.tolist(), entries.ends.tolist(), strict=True)
        }
        now = self._now()
        held = dict(self._held(now)) if self._sets else {}
        stale = [key for key in held if key not in wanted]
        moved = [key for key, end in wanted.items() if key in held and abs(end - held[key]) > SAME]
        self._send(self._commands("delete", [*stale, *moved]))
        new = {key: wanted[key] for key in wanted if key not in held}
        new.update((key, wanted[key]) for key in moved)
        self._send(self._additions(new, now))

    def put(self, entries: Mapping[Key, Entry]) -> list[Key]:
        """Sets entries. An element's timeout cannot be changed, so one that may be there is deleted in the same batch.
        All of them find room, or none: then all are returned."""
        now = self._now()
        ends = {key: entry.end for key, entry in entries.items()}
        try:
            first = self._additions(ends, now)
            self._send([*first, *self._commands("delete", ends), *self._additions(ends, now)], whole=True)
        except KernelError as error:
            if "Too many open files in system" in str(error):  # ENFILE: a set has its size
                return list(entries)
            raise
        return []

    def remove(self, keys: Collection[Key]) -> None:
        """Takes entries out; those that are not there are no error."""
        there = [key for key in keys if _set_of(key) in self._sets]
        added = self._additions(dict.fromkeys(there, self._now() + 5.0), self._now())
        self._send([*added, *self._commands("delete", there)], whole=True)

    def hits(self, keys: Collection[Key]) -> dict[Key, int]:  # noqa: ARG002 - of the interface
        """Nothing: a counter an element would double the memory of a ban."""
        return {}

    def _now(self) -> float:
        """Unix seconds of the ban table."""
        return boot_seconds() - self.clock.shift()

    def _additions(self, ends: Mapping[Key, float], now: float) -> list[dict[str, Any]]:
        made = []
        for name in {_set_of(key) for key in ends} - self._sets:
            made += self._new_set(name)
        by_set: dict[str, list[Any]] = {}
        for key, end in ends.items():
            left = end - now
            value = format_address(key[0])
            if not isfinite(end):
                by_set.setdefault(_set_of(key), []).append(value)
            elif left > 0:
                by_set.setdefault(_set_of(key), []).append({"elem": {"val": value, "timeout": ceil(left)}})
        return [*made, *self._elements("add", by_set)]

    def _commands(self, what: str, keys: Iterable[Key]) -> list[dict[str, Any]]:
        by_set: dict[str, list[Any]] = {}
        for key in keys:
            by_set.setdefault(_set_of(key), []).append(format_address(key[0]))
        return self._elements(what, by_set)

    def _elements(self, what: str, by_set: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
        place = {"family": "inet", "table": self.table}
        return [
            {what: {"element": {**place, "name": name, "elem": values[start : start + CHUNK]}}}
            for name, values in by_set.items()
            for start in range(0, len(values), CHUNK)
        ]

    def _new_set(self, name: str) -> list[dict[str, Any]]:
        self._sets.add(name)
        place = {"family": "inet", "table": self.table}
        kind, key = ("ipv4_addr", "ip") if name.startswith("ban4") else ("ipv6_addr", "ip6")
        bits, whole = int(name[5:]), 32 if key == "ip" else 128
        left: dict[str, Any] = {"payload": {"protocol": key, "field": "saddr"}}
        if bits != whole:
            mask = ((1 << whole) - (1 << (whole - bits))).to_bytes(whole // 8, "big")
            text = format_address(bytes(10) + b"\xff\xff" + mask if whole == 32 else mask)
            left = {"&": [left, text]}
        matches = {"match": {"op": "==", "left": left, "right": f"@{name}"}}
        return [
            {"add": {"set": {**place, "name": name, "type": kind, "flags": ["timeout"], "size": self.capacity}}},
            {"add": {"rule": {**place, "chain": "lookups", "expr": [matches, {"jump": {"target": "banned"}}]}}},
        ]

    def _send(self, commands: Sequence[dict[str, Any]], *, whole: bool = False) -> None:
        """Runs commands: in one transaction, or one each."""
        batches = [commands] if whole and commands else [[command] for command in commands]
        for batch in batches:
            run(json.dumps({"nftables": batch}), "-j")

    def _listed(self, name: str = "") -> list[dict[str, Any]]:
        """The table without elements, or one set with them."""
        words = ("list", "set", "inet", self.table, name) if name else ("-t", "list", "table", "inet", self.table)
        text = listed(*words)
        return [part for part in json.loads(text)["nftables"] if "metainfo" not in part] if text else []

    def _held(self, now: float) -> Iterator[tuple[Key, float]]:
        for name in sorted(self._sets):
            bits = int(name[5:]) + (96 if name.startswith("ban4") else 0)
            for part in self._listed(name):
                for element in part.get("set", {}).get("elem", ()):
                    told = element["elem"] if isinstance(element, dict) and "elem" in element else {"val": element}
                    packed = parse_address(told["val"])
                    if packed is not None:
                        yield (packed, bits), now + told["expires"] if "expires" in told else float("inf")

    # ---- who is never dropped, and until when anybody is

    def allow(self, allowed: Allowed) -> None:
        """Makes the allow sets hold exactly these, in one transaction."""
        lines = []
        four, six = _collapsed(allowed.prefixes)
        lines += self._filled("allow4", [str(network) for network in four])
        lines += self._filled("allow6", [str(network) for network in six])
        peers = [format_address(peer) for peer in sorted(allowed.peers)]
        lines += self._filled("keep4", [peer for peer in peers if "." in peer])
        lines += self._filled("keep6", [peer for peer in peers if "." not in peer])
        if self._allowed is None or self._allowed.ports != allowed.ports:
            lines.append(self._script(BANNED, ports=", ".join(map(str, allowed.ports))))
        run("\n".join(lines) + "\n")
        self._allowed = allowed

    def _filled(self, name: str, texts: list[str]) -> list[str]:
        parts = [", ".join(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        place = f"inet {self.table} {name}"
        return [f"flush set {place}", *(f"add element {place} {{ {part} }}" for part in parts)]

    def _script(self, text: str, ports: str = "") -> str:
        listed = ", ".join(f'"{name}"' for name in self.interfaces)
        return text.format(
            table=self.table,
            counters="\n".join(f"add counter inet {self.table} {name}" for name in COUNTERS),
            only=f"add rule inet {self.table} packets iifname != {{ {listed} }} accept\n" if listed else "",
            kept=KEPT.format(table=self.table, ports=ports) if ports else "",
            syn=SYN.format(table=self.table) if self._syn_only else "",
            end=END[self._mode].format(table=self.table),
        )

    def arm(self, until: float | None) -> None:
        """See `XdpDrops.arm`: an element with a timeout, which the rule that drops asks for."""
        left = None if until is None else until - boot_seconds()
        line = ""
        if left is None or left > 0:
            timeout = "" if left is None else f" timeout {max(1, ceil(left))}s"
            line = f"add element inet {self.table} armed {{ ipv4{timeout}, ipv6{timeout} }}\n"
        run(f"flush set inet {self.table} armed\n{line}")

    def armed(self) -> float | None:
        """See `XdpDrops.armed`."""
        for part in self._listed("armed"):
            for element in part.get("set", {}).get("elem", ()):
                told = element["elem"] if isinstance(element, dict) and "elem" in element else {}
                return boot_seconds() + float(told["expires"]) if "expires" in told else None
        return 0.0

    # ---- life

    def attach(self) -> None:
        """Makes the chain that packets go through; where it is, its rules are replaced in one transaction."""
        run(self._script(BASE))
        self._fresh = False

    def present(self) -> bool:
        """Whether nobody has taken it down."""
        return bool(self._listed())

    def lost(self) -> list[str]:
        """Nothing: rules name interfaces by name, and wait for those that are gone."""
        return []

    def status(self, *, count: bool = True) -> dict[str, Any]:
        """What is in force, as JSON values; with `count` the number of entries, which lists them all."""
        until = self.armed()
        left = 0.0 if until is None else until - boot_seconds()
        parts = self._listed()
        texts = listed("list", "chain", "inet", self.table, "banned", as_json=False)
        counters = json.loads(listed("list", "counters", "table", "inet", self.table) or '{"nftables": []}')["nftables"]
        found = {part["counter"]["name"]: part["counter"] for part in counters if "counter" in part}
        entries: dict[str, int] = {}
        for key, _ in self._held(time.time()) if count else ():
            name = _set_of(key)
            entries[name] = entries.get(name, 0) + 1
        iif = [part for part in parts if "rule" in part and part["rule"]["chain"] == "packets"]
        return {
            "kind": self.kind,
            "interfaces": list(self.interfaces) or ["all"],
            "lost": [] if iif else ["all"],
            "mode": "reset" if "reject" in texts else "drop" if "drop" in texts.split() else "count",
            "syn_only": "syn" in texts,
            "armed": "for good" if until is None else round(left, 1) if left > 0 else "no",
            "ports": list(self._allowed.ports) if self._allowed is not None else [],
            "entries": entries,
            "capacity": self.capacity,
            "memory": 0,
            "packets": {name: [found[name]["packets"], found[name]["bytes"]] for name in COUNTERS if name in found},
            "reasons": {},
        }

    def down(self) -> None:
        """Deletes the table."""
        run(f"add table inet {self.table}\ndelete table inet {self.table}\n")

    def discard(self) -> None:
        """Deletes the table that `make` has made; one that was there before stays."""
        if self._fresh:
            self.down()

    def close(self) -> None:
        """Nothing is open. The table goes on dropping."""


def run(script: str, *options: str) -> str:
    """What nft prints for a script on its standard input.

    Raises:
        KernelError: nft is not installed, or says what is wrong.
    """
    return _nft([*options, "-f", "-"], script)


def listed(*words: str, as_json: bool = True) -> str:
    """What nft lists; "" where that is not there. Raises KernelError."""
    try:
        return _nft(["-j", *words] if as_json else [*words], "")
    except KernelError as error:
        if "No such file or directory" in str(error):
            return ""
        raise


def _nft(arguments: list[str], script: str) -> str:
    program = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if program is None:
        raise KernelError("nft is not on PATH; install nftables")
    done = subprocess.run(  # noqa: S603 - a program of this name, and our own script
        [program, *arguments], input=script, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return done.stdout
    told = (done.stderr.strip() or done.stdout.strip()).splitlines()
    first = told[0] if told else f"status {done.returncode}"
    hint = "; it needs CAP_NET_ADMIN" if "not permitted" in first or "must be root" in first else ""
    raise KernelError(f"nft: {first[:300]}{hint}")


def _set_of(key: Key) -> str:
    packed, bits = key
    return f"ban4_{bits - 96}" if bits >= 96 and packed[:12] == V4 else f"ban6_{bits}"


def _collapsed(prefixes: Iterable[Key]) -> tuple[list[IPv4Network], list[IPv6Network]]:
    """Disjoint networks: sets of intervals take no nested ones."""
    texts = [key_text(key) for key in prefixes]
    four = collapse_addresses(net for text in texts if "." in text for net in [ip_network(text)] if net.version == 4)
    six = collapse_addresses(net for text in texts if "." not in text for net in [ip_network(text)] if net.version == 6)
    return list(four), list(six)
