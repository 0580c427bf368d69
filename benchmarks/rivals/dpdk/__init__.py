"""DPDK's rte_lpm and rte_fib over the same IPv4 table: Debian's libdpdk-dev, no hugepages, no network device."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.cases import Row
from benchmarks.tables import CACHE, Queries, Table

SOURCE = Path(__file__).parent / "lookup.c"
ROUNDS = 15
TIMEOUT_S = 900


def measure(table: Table, queries: Queries, groups: Iterable[str], which: str = "both") -> tuple[list[Row], str]:
    """Rows of what DPDK reaches, and why there are none."""
    pkg_config, gcc = shutil.which("pkg-config"), shutil.which("gcc")
    if pkg_config is None or gcc is None or _run([pkg_config, "--exists", "libdpdk"]).returncode:
        return [], "gcc, pkg-config or libdpdk is not installed (Debian: apt-get install gcc pkg-config libdpdk-dev)"
    CACHE.mkdir(exist_ok=True)
    program = CACHE / "dpdk-lookup"
    flags = _run([pkg_config, "--cflags", "--libs", "libdpdk"]).stdout.split()
    built = _run([gcc, "-O3", "-march=native", str(SOURCE), "-o", str(program), *flags])
    if built.returncode:
        return [], f"lookup.c does not build: {built.stderr.splitlines()[0]}"
    paths = {CACHE / f"dpdk-{group}.bin": group for group in groups}
    for path, group in paths.items():
        queries.uint32(group).tofile(path)
    records, hops = _records(table)
    records.tofile(CACHE / "dpdk-table.bin")
    command = [str(program), str(ROUNDS), which, str(CACHE / "dpdk-table.bin"), *map(str, paths)]
    try:
        done = _run(command)
    except subprocess.TimeoutExpired:
        return [], f"no result after {TIMEOUT_S} s"
    if done.returncode:
        return [], (done.stderr.splitlines() or ["no message"])[-1]
    rows, wrong = [], []
    for line in done.stdout.splitlines():
        where, kernel, checksum, *rounds = line.split("\t")
        if where == "build":
            rows.append(Row("batch", "build", kernel, "peer", "ns", [float(value) for value in rounds]))
            continue
        group = paths[Path(where)]
        starts, values = table.ranges4
        asns = values[np.searchsorted(starts, queries.uint32(group), "right") - 1]
        if int(np.searchsorted(hops, asns).sum()) != int(checksum):
            wrong.append(f"{kernel} on {group}")
        rows.append(Row("batch", f"{group} uint32", kernel, "peer", "ns", [float(value) for value in rounds]))
    return rows, f"wrong answers: {', '.join(wrong)}" if wrong else ""


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def _records(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """(address, bits, next hop) of every IPv4 prefix; a next hop is the rank of its AS, rank 0 being no AS."""
    is4 = table.is4
    hops = np.unique(np.append(table.values[is4], 0))
    address = np.ascontiguousarray(table.addresses[is4][:, 12:]).view(">u4").ravel().astype(np.uint32)
    bits = table.lengths[is4].astype(np.uint32) - 96
    return np.stack([address, bits, np.searchsorted(hops, table.values[is4]).astype(np.uint32)], axis=1), hops
