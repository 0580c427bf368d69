"""Status of a drop set as Prometheus text, and packets dropped by ban."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gobanfast._core.address import parse_prefix
from gobanfast.frontends.kernel.plan import UNSEEN

if TYPE_CHECKING:
    from gobanfast.frontends.kernel.daemon import Follower

HELP = {
    "gobanfast_kernel_packets_total": ("counter", "Packets by what became of them in the kernel."),
    "gobanfast_kernel_bytes_total": ("counter", "Bytes of those packets."),
    "gobanfast_kernel_drops_total": ("counter", "Packets of banned sources, dropped or counted, by who made the ban."),
    "gobanfast_kernel_entries": ("gauge", "Entries of the drop set by part."),
    "gobanfast_kernel_capacity": ("gauge", "Entries that each part has room for."),
    "gobanfast_kernel_memory_bytes": ("gauge", "Kernel memory of the drop set; 0: not known."),
    "gobanfast_kernel_armed": ("gauge", "1 while packets of banned sources are dropped or counted."),
    "gobanfast_kernel_interfaces_lost": ("gauge", "Interfaces that the drop set is not at."),
    "gobanfast_kernel_left_out": ("gauge", "Bans without room in the kernel."),
    "gobanfast_kernel_unseen": ("gauge", "Bans of fingerprints and users, which the kernel cannot see."),
    "gobanfast_kernel_changes_total": ("counter", "Changes of the ban table that were taken in."),
    "gobanfast_kernel_reconciled_total": ("counter", "Times that the whole set was compared with the table."),
    "gobanfast_kernel_failures_total": ("counter", "Times that the kernel refused a change."),
}


def exposition(status: Mapping[str, Any], follower: Follower | None = None) -> str:
    """The status in Prometheus' text format; `follower` adds what only the running process knows."""
    series: dict[str, list[tuple[str, float]]] = {}
    for verdict, (packets, size) in status["packets"].items():
        series.setdefault("gobanfast_kernel_packets_total", []).append((f'{{verdict="{verdict}"}}', packets))
        series.setdefault("gobanfast_kernel_bytes_total", []).append((f'{{verdict="{verdict}"}}', size))
    for reason, packets in status["reasons"].items():
        series.setdefault("gobanfast_kernel_drops_total", []).append((f'{{by="{reason}"}}', packets))
    for part, count in status["entries"].items():
        series.setdefault("gobanfast_kernel_entries", []).append((f'{{part="{part}"}}', count))
    series["gobanfast_kernel_capacity"] = [("", status["capacity"])]
    series["gobanfast_kernel_memory_bytes"] = [("", status["memory"])]
    series["gobanfast_kernel_armed"] = [("", int(status["armed"] != "no"))]
    series["gobanfast_kernel_interfaces_lost"] = [("", len(status["lost"]))]
    if follower is not None:
        series["gobanfast_kernel_left_out"] = [("", follower.plan.left_out)]
        series["gobanfast_kernel_unseen"] = [("", follower.plan.unseen)]
        series["gobanfast_kernel_changes_total"] = [("", follower.counts["changes"])]
        series["gobanfast_kernel_reconciled_total"] = [("", follower.counts["whole"])]
        series["gobanfast_kernel_failures_total"] = [("", follower.counts["failures"])]
    lines = []
    for name, found in series.items():
        kind, what = HELP[name]
        lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}", *(f"{name}{label} {n}" for label, n in found)]
    return "\n".join([*lines, ""])


def kernel_hits(keys: Iterable[str], pins: Path) -> dict[str, int]:
    """Packets that the kernel has matched for the bans of these keys, where it knows them; empty without a drop set."""
    from gobanfast.frontends.kernel.bpf import KernelError
    from gobanfast.frontends.kernel.xdp import XdpDrops

    wanted = {parse_prefix(key): key for key in keys if not key.startswith(("AS", *UNSEEN))}
    try:
        drops = XdpDrops.pinned(pins)
        if drops is None:
            return {}
        try:
            return {wanted[key]: hits for key, hits in drops.hits(wanted).items()}
        finally:
            drops.close()
    except (KernelError, OSError):  # no privilege to look
        return {}
