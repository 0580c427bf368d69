"""Drops by the Linux kernel in network namespaces, with real packets: XDP and nftables, from ban to `down`."""

# ruff: noqa: S607 - of this machine: ip, nsenter, mount
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from gobanfast._values import parse_duration
from gobanfast.bans import Ban
from gobanfast.frontends.kernel.xdp import XdpDrops
from gobanfast.stores import open_store
from kernel_lab import WAIT, bpffs, cable, needs_bpf, needs_namespaces, needs_nft, web_server

RULES = "rules:\n  - {id: friend, when: {prefix: 10.77.0.40/32}, action: allow}\n"
WIDE = "--wide"  # addresses of the lab are private


class Lab:
    """A cable with a web server, a store, rules, and the options that name one drop set."""

    def __init__(self, wires, kind, pins, folder) -> None:
        self.wires, self.kind, self.pins, self.folder = wires, kind, pins, folder
        self.store = f"sqlite:{folder}/bans.db"
        self.rules = folder / "rules.yaml"
        self.rules.write_text(RULES)
        self.place = ["--pins", str(pins), "--table", "gbf"]

    def up(self, *options: str, **more):
        return self.wires.up(
            "--store", self.store, "--rules", str(self.rules), "--interface", "gb0", f"--{self.kind}", *self.place,
            *options, **more,
        )  # fmt: skip

    def refused(self, *options: str) -> str:
        """What `up` prints when it ends by itself."""
        done = self.wires.gobanfast(
            "kernel", "up", "--store", self.store, "--interface", "gb0", f"--{self.kind}", *self.place, *options,
            check=False,
        )  # fmt: skip
        assert done.returncode == 2, (done.stdout, done.stderr)
        return done.stderr

    def kernel(self, *arguments: str, check: bool = True):
        return self.wires.gobanfast("kernel", *arguments, *self.place, check=check)

    def ban(self, *keys: str, duration: str = "1h") -> None:
        now = time.time()
        expires = now + parse_duration(duration)
        with closing(open_store(self.store)) as store:
            store.apply([(key, Ban(key, "lab", None, now, expires, 1, "manual")) for key in keys])

    def ban_for_a_moment(self, source: str) -> None:
        """Bans an address for seconds, and returns once it was seen to be dropped; again, longer, if it was not."""
        for seconds in (3, 10, 40):
            self.ban(source, duration=f"{seconds}s")
            end = time.monotonic() + seconds - 1
            while time.monotonic() < end:
                if not self.wires.reaches(source, seconds=0.3):
                    return
        raise AssertionError(f"{source} was never dropped")

    def unban(self, *keys: str) -> None:
        with closing(open_store(self.store)) as store:
            store.apply([(key, None) for key in keys])

    def status(self) -> dict:
        if self.kind == "xdp" and (drops := XdpDrops.pinned(self.pins)) is not None:
            with closing(drops):
                return drops.status()
        (found,) = json.loads(self.kernel("status", "--json", check=False).stdout)
        return found

    def entries(self) -> int:
        return sum(count for name, count in self.status()["entries"].items() if not name.startswith("allow"))

    def entries_become(self, count: int) -> None:
        end = time.monotonic() + WAIT
        while self.entries() != count:
            assert time.monotonic() < end, self.status()
            time.sleep(0.1)

    def trace(self) -> str:
        """What is left of a drop set."""
        left = [str(path) for path in self.pins.parent.iterdir() if path.name == self.pins.name]
        tables = self.wires.run(self.wires.server, "nft", "list", "tables", check=False).stdout
        link = self.wires.run(self.wires.server, "ip", "link", "show", "gb0", check=False).stdout
        return f"{left or ''}{tables}{'xdp' if 'xdp' in link else ''}"


@pytest.fixture(scope="module", autouse=True)
def curl():
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    needs_namespaces()


@pytest.fixture(params=["xdp", "nft"])
def lab(request, tmp_path):
    needs_bpf() if request.param == "xdp" else needs_nft()
    with bpffs() as folder, cable() as wires, web_server(wires):
        yield Lab(wires, request.param, folder / "gbf", tmp_path)


@pytest.fixture
def xdp_lab(tmp_path):
    needs_bpf()
    with bpffs() as folder, cable() as wires, web_server(wires):
        yield Lab(wires, "xdp", folder / "gbf", tmp_path)


def test_banned_times_out_and_its_neighbour_does_not(lab):
    """A ban that is made while it runs drops; neighbours and allowed addresses pass; what is lifted or over passes."""
    lab.ban("10.77.0.2", "10.77.0.40", "fd77::2")
    with lab.up():
        assert not lab.wires.reaches("10.77.0.2")
        assert not lab.wires.reaches("fd77::2")
        assert lab.wires.reaches("10.77.0.3", seconds=WAIT)
        assert lab.wires.reaches("10.77.0.40", seconds=WAIT)  # an allow rule
        lab.ban_for_a_moment("10.77.0.3")
        lab.unban("10.77.0.2")
        lab.wires.within(True, "10.77.0.2")
        lab.wires.within(True, "10.77.0.3")  # over
        lab.ban("fd77:0:0:1::/64")
        lab.wires.within(False, "fd77:0:0:1::2", seconds=0.3)
        lab.rules.write_text(RULES + "  - {id: six, when: {prefix: 'fd77::/32'}, action: allow}\n")
        lab.wires.within(True, "fd77:0:0:1::2")
    assert lab.wires.reaches("fd77:0:0:1::2", seconds=WAIT)
    lab.kernel("down")
    assert lab.trace() == ""


def test_drops_outlive_a_killed_process(lab):
    """kill -9 keeps drops, and expiry in the kernel; a new process brings the set in step; down leaves no trace."""
    lab.ban("10.77.0.2")
    with lab.up() as process:
        assert not lab.wires.reaches("10.77.0.2")
        lab.ban_for_a_moment("10.77.0.4")
        process.kill()
        process.wait(WAIT)
    assert not lab.wires.reaches("10.77.0.2")
    lab.wires.within(True, "10.77.0.4")  # with nobody to take it out
    lab.unban("10.77.0.2")
    lab.ban("10.77.0.5")
    assert not lab.wires.reaches("10.77.0.2")  # nobody follows
    with lab.up() as process:
        lab.wires.within(True, "10.77.0.2")
        assert not lab.wires.reaches("10.77.0.5")
        lab.kernel("down")
        assert process.wait(WAIT) == 0  # it noticed
    assert lab.trace() == ""
    assert lab.wires.reaches("10.77.0.5", seconds=WAIT)
    assert lab.kernel("status", check=False).returncode == 1
    lab.kernel("down")  # nothing is there: no error


def test_count_mode_changes_nothing_and_counts(lab):
    """Mode count passes what it counts."""
    lab.ban("10.77.0.2")
    with lab.up("--mode", "count"):
        assert lab.wires.reaches("10.77.0.2", seconds=WAIT)
        packets = lab.status()["packets"]
        assert packets["counted"][0] > 0
        assert packets["dropped"][0] == 0
        assert "gobanfast_kernel_packets_total" in lab.kernel("stats", "--prometheus").stdout
        assert "counted" in lab.kernel("stats").stdout
    lab.kernel("down")
    assert lab.trace() == ""


def test_unconfirmed_disarms_by_itself(lab):
    """`up --confirm` stops dropping if nobody confirms, also when the process is dead; `confirm` is for good."""
    lab.ban("10.77.0.2")
    with lab.up("--confirm", "3s") as process:
        process.kill()
        process.wait(WAIT)
    lab.wires.within(True, "10.77.0.2")
    assert lab.status()["armed"] == "no"
    with lab.up("--confirm", "5m"):
        lab.wires.within(False, "10.77.0.2", seconds=0.3)
        assert 0 < lab.status()["armed"] <= 301
        lab.kernel("confirm")
        assert lab.status()["armed"] == "for good"
    lab.kernel("down")


def test_a_prefix_replaces_fifty_hosts(lab):
    """50 bans of one /24 are 50 entries; the /24 is one, which drops them all."""
    hosts = [f"10.77.0.{i}" for i in range(2, 40)] + [f"10.77.0.{i}" for i in range(200, 212)]
    lab.ban(*hosts, duration="30m")
    with lab.up():
        assert lab.entries() == 50
        lab.ban("10.77.0.0/24")
        lab.entries_become(1)
        lab.wires.within(False, "10.77.0.50", seconds=0.3)
        assert lab.wires.reaches("10.77.0.40", seconds=WAIT)  # allowed
        lab.unban("10.77.0.0/24")
        lab.entries_become(50)
        lab.wires.within(True, "10.77.0.50")
        assert not lab.wires.reaches("10.77.0.2", seconds=0.5)


def test_bans_list_shows_what_the_kernel_matched(xdp_lab):
    """`bans list --pins` has a column of packets that the kernel matched."""
    xdp_lab.ban("10.77.0.2")
    with xdp_lab.up():
        assert not xdp_lab.wires.reaches("10.77.0.2")
        shown = xdp_lab.wires.gobanfast("bans", "list", "--store", xdp_lab.store, "--pins", str(xdp_lab.pins)).stdout
    header, row = shown.splitlines()
    assert "kernel" in header
    assert int(row[header.index("kernel") :].split()[0]) > 0


def test_a_second_program_is_told_apart(xdp_lab):
    """Another XDP program at the interface, or a second process, is an error that says so, and leaves no trace."""
    with xdp_lab.up():
        assert "another gobanfast kernel up runs here" in xdp_lab.refused()
        other = xdp_lab.refused("--pins", f"{xdp_lab.pins}2")
        assert "another XDP program is attached" in other
        assert not os.path.exists(f"{xdp_lab.pins}2")
        assert xdp_lab.wires.reaches("10.77.0.9", seconds=WAIT)


def test_clear_errors(xdp_lab, tmp_path):
    """No such interface, no bpffs, an interface without Ethernet: said, with what helps; nothing is left behind."""
    wires = xdp_lab.wires
    assert "interface 'gb9' is not there; there are" in xdp_lab.refused("--interface", "gb9")
    assert "is not in a bpffs" in xdp_lab.refused("--pins", str(tmp_path / "pins"))
    made = wires.run(wires.server, "ip", "tuntap", "add", "tun7", "mode", "tun", check=False)
    if made.returncode == 0:
        assert "has no Ethernet headers" in xdp_lab.refused("--interface", "tun7")
    (tmp_path / "trust.yaml").write_text("trust: [192.0.2.0/24]\nrules: []\n")
    assert "trust: names proxies on other hosts" in xdp_lab.refused("--rules", str(tmp_path / "trust.yaml"))
    assert xdp_lab.trace() == ""


def test_interface_that_vanishes(xdp_lab):
    """The process goes on without its interface, says so, and attaches to one that comes back under its name."""
    wires = xdp_lab.wires
    xdp_lab.ban("10.77.0.2")
    with xdp_lab.up() as process:
        wires.run(wires.server, "ip", "link", "del", "gb0")
        end = time.monotonic() + WAIT
        while not any("gb0 is gone" in line for line in process.lines):
            assert time.monotonic() < end, process.lines
            time.sleep(0.1)
        assert xdp_lab.kernel("status", check=False).returncode == 1
        for command in (
            f"link add gb0 netns {wires.server} type veth peer name gb1 netns {wires.client}",
            f"-n {wires.server} addr add 10.77.0.1/24 dev gb0",
            f"-n {wires.server} link set gb0 up",
            f"-n {wires.client} addr add 10.77.0.2/24 dev gb1",
            f"-n {wires.client} addr add 10.77.0.3/24 dev gb1",
            f"-n {wires.client} link set gb1 up",
        ):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        wires.within(True, "10.77.0.3")
        wires.within(False, "10.77.0.2", seconds=0.3)
        assert process.poll() is None


@pytest.mark.parametrize(("more", "works"), [("+bpf,+net_admin", True), ("+net_admin", False)])
def test_least_capabilities(xdp_lab, more, works):
    """CAP_BPF and CAP_NET_ADMIN are enough; without CAP_BPF it says what is missing, and nothing is half armed."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    wires, lab = xdp_lab.wires, xdp_lab
    lab.ban("10.77.0.2")
    plain = wires.inside

    def inside(name, *command):
        if "up" in command:
            command = (setpriv, "--bounding-set", f"-all,{more}", "--inh-caps", "-all", "--", *command)
        return plain(name, *command)

    wires.inside = inside
    if works:
        with lab.up():
            assert not wires.reaches("10.77.0.2")
    elif Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text(encoding="ascii").strip() != "0":
        assert "CAP_BPF" in lab.refused()
        assert lab.trace() == ""


def test_fallback_and_reset(tmp_path):
    """Without XDP nftables is taken, and said; its mode reset ends established connections at once."""
    needs_nft()
    with cable() as wires, web_server(wires):
        store = f"sqlite:{tmp_path}/bans.db"
        wires.gobanfast("bans", "add", "10.77.0.2", "--store", store, WIDE)
        with wires.up(
            "--store", store, "--interface", "gb0", "--pins", str(tmp_path / "no"), "--table", "gbf"
        ) as process:
            assert any("taking nftables" in line for line in process.lines)
            assert not wires.reaches("10.77.0.2")
        wires.gobanfast("kernel", "down", "--pins", str(tmp_path / "no"), "--table", "gbf")
        with wires.up("--store", store, "--nft", "--mode", "reset", "--pins", str(tmp_path / "no"), "--table", "gbf"):
            started = time.monotonic()
            assert not wires.reaches("10.77.0.2", seconds=WAIT)
            assert time.monotonic() - started < WAIT / 2  # refused, not timed out


def test_systemd_is_told(xdp_lab):
    """READY, WATCHDOG and STOPPING reach the socket that systemd names; SIGTERM ends with status 0."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        path = str(xdp_lab.folder / "notify")
        told.bind(path)
        told.settimeout(WAIT)
        os.environ["NOTIFY_SOCKET"] = path
        try:
            with xdp_lab.up() as process:
                assert told.recv(100) == b"READY=1"
                assert told.recv(100) == b"WATCHDOG=1"
                process.send_signal(signal.SIGTERM)
                assert process.wait(WAIT) == 0
        finally:
            del os.environ["NOTIFY_SOCKET"]
        rest = b""
        while b"STOPPING" not in rest:
            rest = told.recv(100)


def test_metrics_file(xdp_lab, tmp_path):
    """`--metrics FILE` is kept up to date, and has what only the process knows."""
    target = tmp_path / "kernel.prom"
    xdp_lab.ban("10.77.0.2")
    with xdp_lab.up("--metrics", str(target)):
        assert not xdp_lab.wires.reaches("10.77.0.2")
        end = time.monotonic() + WAIT
        while not target.exists() or 'packets_total{verdict="dropped"} 0' in target.read_text():
            assert time.monotonic() < end
            time.sleep(0.1)
    text = target.read_text()
    assert "gobanfast_kernel_left_out 0" in text
    assert 'gobanfast_kernel_drops_total{by="manual"}' in text
