"""What tests of drops in the kernel share: whether they can run here, frames, and network namespaces with a cable."""

# ruff: noqa: S607 - of this machine: ip, nsenter, mount
from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from gobanfast.frontends.kernel import bpf
from gobanfast.frontends.kernel.elf import BpfObject
from gobanfast.frontends.kernel.maps import FOREVER, V4, Allowed, Entry
from gobanfast.frontends.kernel.xdp import XdpDrops

PASS, DROP = 2, 1
WAIT = 30  # seconds that any step may take


def needs_bpf() -> None:
    """Skips where maps or programs cannot be made here."""
    try:
        drops = lone_drops(capacity=16)
    except (bpf.KernelError, OSError) as error:
        pytest.skip(f"no XDP program can be loaded here: {error}")
    drops.close()


def needs_namespaces() -> None:
    """Skips where network namespaces, or what makes them, are missing."""
    for program in ("ip", "nsenter", "unshare", "mount"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with lab_name() as name:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
        linked = subprocess.run(
            ["ip", "link", "add", "x0", "netns", name, "type", "veth", "peer", "name", "x1", "netns", name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    if linked.returncode:
        pytest.skip(f"no veth can be made here: {linked.stderr.strip()}")


def needs_nft() -> None:
    """Skips where nftables cannot be used."""
    if shutil.which("nft") is None and shutil.which("nft", path="/usr/sbin:/sbin") is None:
        pytest.skip("nft is not installed")
    done = subprocess.run(
        ["unshare", "--net", "nft", "add", "table", "inet", "probe"], capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"nftables does not work here: {done.stderr.strip()}")


@contextlib.contextmanager
def lab_name():
    """A name for a namespace, which is deleted at the end if there is one."""
    name = f"gbf{os.getpid()}{threading.get_ident() % 1000}{time.monotonic_ns() % 100000}"
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextlib.contextmanager
def bpffs():
    """Folder of a bpffs of its own, with nothing left behind."""
    folder = tempfile.mkdtemp(prefix="gbf-bpffs-")
    made = subprocess.run(["mount", "-t", "bpf", "bpf", folder], capture_output=True, text=True, check=False)
    if made.returncode:
        os.rmdir(folder)
        pytest.skip(f"no bpffs can be mounted here: {made.stderr.strip()}")
    try:
        yield Path(folder)
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True, check=False)
        os.rmdir(folder)


class Cable:
    """Two namespaces and a veth between them: `server` (10.77.0.1, fd77::1) and `client` (10.77.0.2 to .60)."""

    server_address, server6 = "10.77.0.1", "fd77::1"

    def __init__(self, server: str, client: str) -> None:
        self.server, self.client = server, client

    def inside(self, name: str, *command: str) -> list[str]:
        """A command line that runs a command in a namespace. `ip netns exec` would hide every bpffs."""
        return ["nsenter", f"--net=/run/netns/{name}", "--", *command]

    def run(self, name: str, *command: str, check: bool = True, timeout: float = WAIT) -> subprocess.CompletedProcess:
        """A command's output, run in a namespace."""
        return subprocess.run(
            self.inside(name, *command), capture_output=True, text=True, check=check, timeout=timeout,
            env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
        )  # fmt: skip

    def gobanfast(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """`gobanfast ...` on the server."""
        return self.run(self.server, sys.executable, "-m", "gobanfast", *arguments, check=check)

    @contextlib.contextmanager
    def up(self, *arguments: str):
        """A running `gobanfast kernel up`, which has said that it drops."""
        command = self.inside(self.server, sys.executable, "-m", "gobanfast", "kernel", "up", *arguments)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, bufsize=1, cwd=tempfile.gettempdir())
        lines: list[str] = []
        ready = threading.Event()

        def read() -> None:
            for line in process.stderr:
                lines.append(line)
                if line.startswith(("gobanfast: xdp on", "gobanfast: nft on")):
                    ready.set()
            ready.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        process.lines = lines
        try:
            assert ready.wait(WAIT), lines
            assert process.poll() is None, lines
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join(WAIT)
            process.stderr.close()

    def reaches(self, source: str, *, port: int = 80, seconds: float = 0.4) -> bool:
        """Whether curl from an address of the client gets a page of the server."""
        target = f"http://{self.server_address if '.' in source else f'[{self.server6}]'}:{port}/"
        done = self.run(
            self.client, "curl", "--silent", "--output", "/dev/null", "--max-time", str(seconds), "--interface", source,
            target, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def within(self, wanted: bool, source: str, **options) -> None:
        """Waits until curl from an address gets through, or does not."""
        end = time.monotonic() + WAIT
        while self.reaches(source, **options) is not wanted:
            assert time.monotonic() < end, f"{source} still {'does not reach' if wanted else 'reaches'} the server"
            time.sleep(0.05)


@contextlib.contextmanager
def cable():
    """A Cable; both namespaces, and so the veth and all that is attached to it, are gone at the end."""
    with lab_name() as server, lab_name() as client:
        for name in (server, client):
            subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
        lab = Cable(server, client)
        commands = [
            f"link add gb0 netns {server} type veth peer name gb1 netns {client}",
            f"-n {server} addr add 10.77.0.1/24 dev gb0",
            f"-n {server} addr add fd77::1/64 dev gb0 nodad",
            f"-n {client} addr add fd77::2/64 dev gb1 nodad",
            f"-n {client} addr add fd77:0:0:1::2/64 dev gb1 nodad",
            f"-n {server} link set lo up",
            f"-n {server} link set gb0 up",
            f"-n {client} link set gb1 up",
            f"-n {client} route add fd77::/32 dev gb1",
            f"-n {server} route add fd77::/32 dev gb0",
        ]
        commands += [f"-n {client} addr add 10.77.0.{i}/24 dev gb1" for i in range(2, 61)]
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        yield lab


SERVER = """
import socket, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "3"); self.end_headers(); self.wfile.write(b"ok\\n")
    def log_message(self, *_): pass
class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128
print("ready", flush=True)
Server(("::", int(sys.argv[1])), Page).serve_forever()
"""


@contextlib.contextmanager
def web_server(lab: Cable, port: int = 80):
    """A page at a port of the server, both families."""
    command = lab.inside(lab.server, sys.executable, "-c", SERVER, str(port))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        lab.within(True, "10.77.0.60", port=port)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# ---- a program without a network


def lone_drops(capacity: int = 1024, **options) -> XdpDrops:
    """A drop set without pins and interface, of which only the program is asked."""
    found = BpfObject()
    maps = {}
    try:
        for name, layout in found.maps.items():
            maps[name] = bpf.Map.make(
                name, layout.kind, layout.key_bytes, layout.value_bytes, layout.entries or capacity, layout.flags
            )
        drops = XdpDrops(Path("/nowhere"), maps, {}, ())
        drops._mode, drops._flags = int(options.get("mode", "drop") == "drop"), int(options.get("syn_only", False))
        flags = bpf.HAS_PARTS if options.get("section") == "xdp.frags" else 0
        code = found.code(options.get("section", "xdp"), {name: each.fd for name, each in maps.items()})
        drops._program = bpf.load_program("gobanfast", code, found.terms, flags)
    except BaseException:
        for each in maps.values():
            each.close()
        raise
    drops.allow(Allowed(frozenset(), frozenset(), (22,)))
    drops.arm(None)
    return drops


def key(text: str) -> tuple[bytes, int]:
    """The key of an address or prefix."""
    address, _, bits = text.partition("/")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    if len(packed) == 4:
        return V4 + packed, 96 + int(bits or 32)
    return packed, int(bits or 128)


def banned(*texts: str, end: float = FOREVER, reason: int = 1) -> dict:
    """Entries of these prefixes."""
    return {key(text): Entry(end, reason) for text in texts}


def ethernet(kind: int, payload: bytes, *tags: int) -> bytes:
    """A frame, with VLAN tags of these EtherTypes."""
    head = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02"
    for tag in tags:
        head += struct.pack(">HH", tag, 7)
    return head + struct.pack(">H", kind) + payload


def ip4(source: str, payload: bytes = b"", *, protocol: int = 6, options: bytes = b"", fragment: int = 0,
        length: int | None = None, version: int = 4, words: int | None = None) -> bytes:  # fmt: skip
    """An IPv4 packet to 10.0.0.1."""
    words = 5 + len(options) // 4 if words is None else words
    length = 20 + len(options) + len(payload) if length is None else length
    head = struct.pack(">BBHHHBBH4s4s", version << 4 | words, 0, length, 1, fragment, 64, protocol, 0,
                       socket.inet_aton(source), b"\x0a\0\0\x01")  # fmt: skip
    return head + options + payload


def ip6(source: str, payload: bytes = b"", *, following: int = 6, length: int | None = None, version: int = 6) -> bytes:
    """An IPv6 packet to 2001:db8::1."""
    length = len(payload) if length is None else length
    return struct.pack(">IHBB16s16s", version << 28, length, following, 255, socket.inet_pton(socket.AF_INET6, source),
                       socket.inet_pton(socket.AF_INET6, "2001:db8::1")) + payload  # fmt: skip


def tcp(port: int = 80, flags: int = 2) -> bytes:
    """A TCP header; flags 2 are SYN, 16 ACK."""
    return struct.pack(">HHIIBBHHH", 40000, port, 1, 0, 0x50, flags, 1024, 0, 0)


def udp(source: int, port: int) -> bytes:
    """A UDP header with 4 bytes behind it."""
    return struct.pack(">HHHH4s", source, port, 12, 0, b"data")


def verdict_of(drops: XdpDrops, text: str) -> bool:
    """Whether the program drops a TCP SYN to port 80 from this address."""
    frame = ethernet(0x86DD, ip6(text, tcp())) if ":" in text else ethernet(0x0800, ip4(text, tcp()))
    return bpf.run_frame(drops._program, frame, 1)[0] == DROP
