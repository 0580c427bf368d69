"""Figures of drops in the Linux kernel: `python -m benchmarks.kernel_drops [SECTION...]` prints them as Markdown.

Needs root, iproute2, nftables and clang (for random sources). Sections: program, load, latency, flood.
"""

# ruff: noqa: S607, E501 - of this machine: ip; texts of other programs
from __future__ import annotations

import os
import random
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from gobanfast import BanTable  # noqa: E402
from gobanfast.bans import Ban  # noqa: E402
from gobanfast.frontends.kernel import bpf  # noqa: E402
from gobanfast.frontends.kernel.elf import BpfObject  # noqa: E402
from gobanfast.frontends.kernel.maps import ALWAYS, Allowed, Clock  # noqa: E402
from gobanfast.frontends.kernel.nft import NftDrops  # noqa: E402
from gobanfast.frontends.kernel.plan import Plan  # noqa: E402
from gobanfast.frontends.kernel.xdp import VALUE, XdpDrops  # noqa: E402
from kernel_lab import banned, bpffs, cable, ethernet, ip4, ip6, key, lone_drops, tcp  # noqa: E402

MILLION, SOURCES = 1_000_000, 100_000
ROUNDS = 7


def row(what: str, figure: str) -> None:
    print(f"| {what} | {figure} |", flush=True)


def addresses(count: int, seed: int) -> list[bytes]:
    draw = random.Random(seed)
    return [draw.getrandbits(32).to_bytes(4, "big") for _ in range(count)]


def best(program: int, frame: bytes, repeat: int = MILLION) -> int:
    return min(bpf.run_frame(program, frame, repeat)[1] for _ in range(ROUNDS))


# ---- the program


def program() -> None:
    """ns a packet, by BPF_PROG_TEST_RUN: one packet repeated, and random sources."""
    keys = addresses(MILLION, 1)
    drops = lone_drops(capacity=MILLION, section="xdp.frags")
    drops.maps["host4"].put_many(b"".join(keys), VALUE.pack(ALWAYS, 1, 1, 0) * MILLION)
    drops.put(banned("198.51.100.0/24", "2001:db8:1::/64", "1.2.3.4"))
    host = frozenset(map(key, ("127.0.0.0/8", "192.0.2.1", "192.0.2.254", "192.0.2.53", "10.0.0.0/8")))
    drops.allow(Allowed(host, frozenset(), (22,)))
    held = sum(len(found) // 4 for found, _ in drops.maps["host4"].items())
    row("kernel memory of 1 M bans of hosts", f"{drops.maps['host4'].memory() / held:.0f} bytes a ban")
    for name, frame in {
        "one packet repeated, 1 M bans: banned host": ethernet(0x800, ip4("1.2.3.4", tcp())),
        "... of a banned prefix": ethernet(0x800, ip4("198.51.100.1", tcp())),
        "... not banned": ethernet(0x800, ip4("203.0.113.1", tcp())),
        "... allowed": ethernet(0x800, ip4("10.1.1.1", tcp())),
        "... IPv6, banned client": ethernet(0x86DD, ip6("2001:db8:1::9", tcp())),
        "... IPv6, not banned": ethernet(0x86DD, ip6("2001:db8:2::9", tcp())),
    }.items():
        assert drops._program is not None
        row(name, f"{best(drops._program, frame)} ns")
    clang = next(filter(None, map(shutil.which, ("clang-14", "clang"))), None)
    if clang is None:
        row("random sources", "no clang")
        return
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "sources.o"
        subprocess.run([clang, "-target", "bpfel", "-mcpu=v3", "-O2", '-DGBF_SOURCE="x 0"', "-c",
                        ROOT / "benchmarks/xdp_sources.bpf.c", "-o", built], check=True)  # fmt: skip
        found = BpfObject(built)
    for name in ("addresses", "place"):
        layout = found.maps[name]
        drops.maps[name] = bpf.Map.make(name, *layout[1:])
    descriptors = {name: each.fd for name, each in drops.maps.items()}
    programs = {
        section: bpf.load_program("bench", found.code(section, descriptors), found.terms, bpf.HAS_PARTS)
        for section in ("xdp.sources", "xdp.sources_only")
    }
    draw = random.Random(2)
    known, unknown = draw.sample(keys, SOURCES), addresses(SOURCES, 3)
    mixed = [draw.choice(pair) for pair in zip(known, unknown, strict=True)]
    indices = b"".join(struct.pack("<I", i) for i in range(SOURCES))
    frame = ethernet(0x800, ip4("1.2.3.4", tcp()))
    for name, sources in {"all banned": known, "half banned": mixed, "none banned": unknown}.items():
        drops.maps["addresses"].put_many(indices, b"".join(sources))
        cost = best(programs["xdp.sources"], frame) - best(programs["xdp.sources_only"], frame)
        row(f"100,000 random sources, 1 M bans, {name}", f"{cost} ns")
    drops.close()


# ---- loading


def load() -> None:
    """Seconds from a full ban table to a full drop set."""
    table = BanTable(capacity=MILLION)
    keys = addresses(MILLION, 1)
    for i, packed in enumerate(keys):
        table.ban(socket.inet_ntoa(packed), duration=3600.0 + i % 86400)
    for count, make in ((len(table), "XDP"), (len(table), "XDP again, nothing changed")):
        if make == "XDP":
            drops = lone_drops(capacity=MILLION)
            drops.clock = Clock(table.offset)
            plan = Plan(table, None, MILLION)
        started, used = time.perf_counter(), time.process_time()
        entries = plan.whole()
        planned = time.perf_counter()
        drops.replace(entries)
        done = time.perf_counter()
        row(
            f"{count:,} bans: {make}",
            f"{done - started:.2f} s (plan {planned - started:.2f} s; CPU {time.process_time() - used:.2f} s)",
        )
    drops.close()
    small = BanTable(capacity=MILLION)
    for i, packed in enumerate(keys[:100_000]):
        small.ban(socket.inet_ntoa(packed), duration=3600.0 + i)
    for bans in (small, table):
        nft = NftDrops.make(capacity=MILLION, clock=Clock(bans.offset), table="bench")
        try:
            started = time.perf_counter()
            nft.replace(Plan(bans, None, MILLION).whole())
            took = time.perf_counter() - started
            row(f"{len(bans):,} bans: nftables", f"{took:.1f} s ({1e6 * took / len(bans):.1f} us a ban)")
        finally:
            nft.down()


# ---- latency


def latency() -> None:
    """Milliseconds from `engine.ban` in one process to the entry in the kernel, by way of a store and `kernel up`."""
    from gobanfast.stores import open_store

    for rate in (10, 1000):
        with bpffs() as folder, cable() as wires, tempfile.TemporaryDirectory() as place:
            uri = f"sqlite:{place}/bans.db"
            with wires.up("--store", uri, "--interface", "gb0", "--xdp", "--pins", str(folder / "bench")):
                drops = XdpDrops.pinned(folder / "bench")
                assert drops is not None
                written: dict[bytes, float] = {}
                seen: dict[bytes, float] = {}
                total = 100 if rate == 10 else 5000
                ended = threading.Event()

                def look(total=total, drops=drops, written=written, seen=seen, ended=ended) -> None:
                    while len(seen) < total and not ended.wait(0.001):
                        for packed, at in list(written.items()):
                            if packed not in seen and drops.maps["host4"].get(packed) is not None:
                                seen[packed] = time.perf_counter() - at

                looking = threading.Thread(target=look)
                looking.start()
                with closing(open_store(uri)) as store:
                    started = time.perf_counter()
                    for i in range(0, total, 10 if rate == 1000 else 1):
                        batch = [(11 << 24 | i + j).to_bytes(4, "big") for j in range(10 if rate == 1000 else 1)]
                        now = time.time()
                        at = time.perf_counter()
                        store.apply([(socket.inet_ntoa(each), Ban(socket.inet_ntoa(each), "bench", None, now, now + 600))
                                     for each in batch])  # fmt: skip
                        written.update(dict.fromkeys(batch, at))
                        time.sleep(max(0.0, started + (i + len(batch)) / rate - time.perf_counter()))
                looking.join(30)
                ended.set()
                found = sorted(seen.values())
                late = found[int(0.99 * len(found))]
                row(f"ban to drop at {rate:,} bans/s, median / p99 (store at SQLite, looked at every ms)",
                    f"{1e3 * statistics.median(found):.0f} / {1e3 * late:.0f} ms ({len(found)} of {total})")  # fmt: skip
                drops.close()


# ---- flood

APP = """
import asyncio, os, sys
os.sched_setaffinity(0, {1})
import uvicorn
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
uvicorn.run(app, host="0.0.0.0", port=80, log_level="error", access_log=False, lifespan="off", http="httptools")
"""
FLOOD = """
import os, socket, sys, time
os.sched_setaffinity(0, {0})
sys.path.insert(0, sys.argv[1])
from kernel_lab import ethernet, ip4, tcp
mac, rate = bytes.fromhex(sys.argv[2]), int(sys.argv[3])
frames = []
for i in range(4096):
    frame = bytearray(ethernet(0x800, ip4(f"10.99.{i >> 8}.{i & 255}", tcp(80, 2))))
    frame[0:6] = mac
    frame[30:34] = socket.inet_aton("10.77.0.1")
    whole = bytes(frame)
    def total(data):
        words = sum(int.from_bytes(data[j:j + 2], "big") for j in range(0, len(data), 2))
        while words >> 16:
            words = (words & 0xFFFF) + (words >> 16)
        return (~words & 0xFFFF).to_bytes(2, "big")
    frame[24:26] = total(whole[14:34])
    frame[50:52] = total(whole[26:34] + b"\\0\\6\\0\\x14" + whole[34:54])
    frames.append(bytes(frame))
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("gb1", 0))
started, sent = time.perf_counter(), 0
while time.perf_counter() - started < float(sys.argv[4]):
    for frame in frames[:256]:
        try:
            out.send(frame)
        except OSError:  # the queue is full: as on a wire, what does not fit is not sent
            sent -= 1
    frames = frames[256:] + frames[:256]
    sent += 256
    ahead = started + sent / rate - time.perf_counter()
    if ahead > 0:
        time.sleep(ahead)
print(int(sent / (time.perf_counter() - started)))
"""
REQUESTS = """
import os, socket, sys, time
os.sched_setaffinity(0, {0})
end = time.monotonic() + float(sys.argv[1])
wanted = b"GET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n" * 20
held = {}
while time.monotonic() < end:
    for i in range(32, 60):
        one = held.get(i)
        try:
            if one is None:
                one = held[i] = socket.socket()
                one.setblocking(False)
                one.bind((f"10.77.0.{i}", 0))
                one.connect_ex(("10.77.0.1", 80))
                continue
            one.send(wanted)
            while one.recv(65536):
                pass
        except BlockingIOError:
            pass
        except OSError:
            one.close()
            held[i] = None
    time.sleep(0.001)
"""
CLIENT = """
import os, socket, sys, time
os.sched_setaffinity(0, {1})
times = []
end = time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    started = time.perf_counter()
    try:
        with socket.create_connection(("10.77.0.1", 80), timeout=5, source_address=("10.77.0.2", 0)) as one:
            one.sendall(b"GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n")
            while one.recv(4096):
                pass
    except OSError:
        pass
    times.append(time.perf_counter() - started)
    time.sleep(0.002)
times.sort()
print(len(times), 1e3 * times[len(times) // 2], 1e3 * times[int(0.99 * len(times))])
"""


def flood(rate: int = 100_000, seconds: float = 6.0) -> None:
    """p99 of an ASGI app under SYNs of 4,096 banned sources and pipelined requests of 28, with drops and without."""
    with bpffs() as folder, cable() as wires, tempfile.TemporaryDirectory() as place:
        subprocess.run(["ip", "-n", wires.server, "route", "add", "10.99.0.0/16", "dev", "gb0"], check=True)
        wires.run(wires.server, "sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=0", check=False)
        shown = wires.run(wires.server, "ip", "-o", "link", "show", "gb0").stdout
        mac = shown.split("link/ether ")[1].split()[0].replace(":", "")
        app = subprocess.Popen(wires.inside(wires.server, sys.executable, "-c", APP))
        try:
            wires.within(True, "10.77.0.31")
            uri = f"sqlite:{place}/bans.db"
            wires.gobanfast("bans", "add", "10.99.0.0/16", "10.77.0.32/27", "--store", uri, "--wide")

            def measured(flooded: bool) -> tuple[float, float, int]:
                sender = others = None
                if flooded:
                    others = subprocess.Popen(
                        wires.inside(wires.client, sys.executable, "-c", REQUESTS, str(seconds + 2))
                    )
                    sender = subprocess.Popen(
                        wires.inside(wires.client, sys.executable, "-c", FLOOD, str(ROOT / "tests"), mac, str(rate),
                                     str(seconds + 2)), stdout=subprocess.PIPE, text=True,
                    )  # fmt: skip
                    time.sleep(1)
                told = wires.run(wires.client, sys.executable, "-c", CLIENT, str(seconds)).stdout.split()
                sent = int(sender.communicate()[0]) if sender is not None else 0
                if others is not None:
                    others.wait()
                return float(told[1]), float(told[2]), sent

            rounds: dict[str, list[tuple[float, float, int]]] = {}
            for _ in range(3):
                rounds.setdefault("no flood", []).append(measured(False))
                rounds.setdefault("flood, no drops", []).append(measured(True))
                with wires.up("--store", uri, "--interface", "gb0", "--xdp", "--attach", "generic", "--pins",
                              str(folder / "bench"), "--down-at-exit"):  # fmt: skip
                    rounds.setdefault("flood, XDP (generic)", []).append(measured(True))
                with wires.up("--store", uri, "--interface", "gb0", "--xdp", "--attach", "native", "--pins",
                              str(folder / "bench"), "--down-at-exit"):  # fmt: skip
                    rounds.setdefault("flood, XDP (native)", []).append(measured(True))
                with wires.up("--store", uri, "--interface", "gb0", "--nft", "--table", "bench", "--down-at-exit"):
                    rounds.setdefault("flood, nftables", []).append(measured(True))
            for name, found in rounds.items():
                middle = sorted(found, key=lambda each: each[1])[len(found) // 2]
                row(
                    f"ASGI app: {name}",
                    f"median {middle[0]:.2f}, p99 {middle[1]:.2f} ms ({middle[2]:,} packets/s sent)",
                )
        finally:
            app.kill()
            app.wait()


def main() -> None:
    chosen = sys.argv[1:] or ["program", "load", "latency", "flood"]
    print(
        f"Linux {os.uname().release}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}\n\n| what | figure |\n|---|---|"
    )
    for name in chosen:
        {"program": program, "load": load, "latency": latency, "flood": flood}[name]()


if __name__ == "__main__":
    main()
