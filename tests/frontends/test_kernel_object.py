"""The XDP program: its object is of its source, and what it says about every kind of frame, by BPF_PROG_TEST_RUN."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from gobanfast import FormatError
from gobanfast.frontends.kernel import bpf
from gobanfast.frontends.kernel.elf import OBJECT, BpfObject
from gobanfast.frontends.kernel.maps import VERDICTS, Allowed, boot_seconds
from kernel_lab import DROP, PASS, banned, ethernet, ip4, ip6, key, lone_drops, needs_bpf, tcp, udp

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "gobanfast/csrc/bpf/gbf_xdp.bpf.c"
BAD4, BAD6 = "203.0.113.7", "2001:db8:bad::7"
IP4, IP6, ARP, VLAN, QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8


@pytest.fixture(params=["xdp", "xdp.frags"])
def drops(request):
    """A set that has BAD4, BAD6, a /24, an IPv6 /48 and an IPv6 client; each program."""
    needs_bpf()
    try:
        made = lone_drops(section=request.param)
    except bpf.KernelError as error:
        pytest.skip(f"{request.param}: {error}")
    made.put(banned(BAD4, BAD6, "198.51.100.0/24", "2001:db8:dead::/48", "2001:db8:c:1::/64"))
    yield made
    made.close()


def verdict(drops, frame: bytes) -> tuple[int, str]:
    """(action, name of the counter that moved) for a frame."""
    before, _ = drops._counts()
    action, _ = bpf.run_frame(drops._program, frame, 1)
    after, _ = drops._counts()
    moved = [name for name in VERDICTS if after[name][0] > before[name][0]]
    assert len(moved) == 1, moved
    return action, moved[0]


@pytest.mark.skipif(not SOURCE.exists(), reason="no sources beside the installed package")
def test_object_is_of_its_source():
    """`make bpf` was run after the last change: the object names the hash of the source."""
    expected = hashlib.blake2b(SOURCE.read_bytes()).hexdigest()[:64]

    assert expected == BpfObject().built_of.split()[0]


@pytest.mark.skipif(not SOURCE.exists(), reason="no sources beside the installed package")
def test_same_compiler_gives_same_object(tmp_path):
    """Where the clang is that built it, the source gives the object byte for byte."""
    built_of = BpfObject().built_of
    major = built_of.split()[1].partition(".")[0]
    clang = shutil.which(f"clang-{major}") or shutil.which("clang")
    version = clang and subprocess.run([clang, "-dumpversion"], capture_output=True, text=True, check=True).stdout
    if not version or version.strip() != built_of.split()[1]:
        pytest.skip(f"clang {built_of.split()[1]} is not here")
    again = tmp_path / "again.o"
    subprocess.run([clang, "-target", "bpfel", "-mcpu=v3", "-O2", f'-DGBF_SOURCE="{built_of}"', "-c",
                    "gobanfast/csrc/bpf/gbf_xdp.bpf.c", "-o", again], cwd=ROOT, check=True)  # fmt: skip

    assert OBJECT.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", b"no ELF at all" * 100, OBJECT.read_bytes()[:5000]])
def test_damaged_object_is_an_error(tmp_path, damage):
    """A file that is no object, or cut short, is a FormatError with its path."""
    (tmp_path / "x.o").write_bytes(damage)

    with pytest.raises(FormatError, match=r"x\.o"):
        BpfObject(tmp_path / "x.o")


FRAMES = {
    "IPv4 banned": (ethernet(IP4, ip4(BAD4, tcp())), DROP, "dropped"),
    "IPv4 of a banned /24": (ethernet(IP4, ip4("198.51.100.200", tcp())), DROP, "dropped"),
    "IPv4 neighbour": (ethernet(IP4, ip4("203.0.113.8", tcp())), PASS, "passed"),
    "IPv4 of the next /24": (ethernet(IP4, ip4("198.51.101.200", tcp())), PASS, "passed"),
    "IPv4 without payload": (ethernet(IP4, ip4(BAD4)), DROP, "dropped"),
    "IPv4 UDP": (ethernet(IP4, ip4(BAD4, udp(9, 53), protocol=17)), DROP, "dropped"),
    "IPv4 ICMP": (ethernet(IP4, ip4(BAD4, b"\x08\0\0\0\0\0\0\0", protocol=1)), DROP, "dropped"),
    "IPv4 with padding": (ethernet(IP4, ip4(BAD4, tcp()) + bytes(6)), DROP, "dropped"),
    "IPv4 options": (ethernet(IP4, ip4(BAD4, tcp(), options=b"\x94\x04\0\0" * 10)), DROP, "dropped"),
    "IPv4 first fragment": (ethernet(IP4, ip4(BAD4, tcp(), fragment=0x2000)), DROP, "dropped"),
    "IPv4 later fragment": (ethernet(IP4, ip4(BAD4, b"x" * 64, fragment=0x00B9)), DROP, "dropped"),
    "IPv4 multicast": (ethernet(IP4, ip4(BAD4, udp(9, 5353), protocol=17)), DROP, "dropped"),
    "IPv4 options cut off": (ethernet(IP4, ip4(BAD4, words=10, length=40)), PASS, "odd"),
    "IPv4 header of 4 words": (ethernet(IP4, ip4(BAD4, tcp(), words=4)), PASS, "odd"),
    "IPv4 longer than the frame": (ethernet(IP4, ip4(BAD4, tcp(), length=1500)), PASS, "odd"),
    "IPv4 shorter than its header": (ethernet(IP4, ip4(BAD4, tcp(), length=19)), PASS, "odd"),
    "IPv4 of version 6": (ethernet(IP4, ip4(BAD4, tcp(), version=6)), PASS, "odd"),
    "IPv4 link-local": (ethernet(IP4, ip4("169.254.1.1", tcp())), PASS, "exempt"),
    "IPv4 unspecified, DHCP discover": (ethernet(IP4, ip4("0.0.0.0", udp(68, 67), protocol=17)), PASS, "exempt"),  # noqa: S104
    "DHCP offer of a banned server": (ethernet(IP4, ip4(BAD4, udp(67, 68), protocol=17)), PASS, "exempt"),
    "port 68 of elsewhere": (ethernet(IP4, ip4(BAD4, udp(53, 68), protocol=17)), DROP, "dropped"),
    "IP in IP, inner banned": (ethernet(IP4, ip4("192.0.2.1", ip4(BAD4, tcp()), protocol=4)), PASS, "passed"),
    "IP in IP, outer banned": (ethernet(IP4, ip4(BAD4, ip4("192.0.2.1", tcp()), protocol=4)), DROP, "dropped"),
    "6in4, outer banned": (ethernet(IP4, ip4(BAD4, ip6("2001:db8::5", tcp()), protocol=41)), DROP, "dropped"),
    "GRE, inner banned": (ethernet(IP4, ip4("192.0.2.1", b"\0\0\x08\0" + ip4(BAD4), protocol=47)), PASS, "passed"),
    "IPv6 banned": (ethernet(IP6, ip6(BAD6, tcp())), DROP, "dropped"),
    "IPv6 of a banned /48": (ethernet(IP6, ip6("2001:db8:dead:beef::1", tcp())), DROP, "dropped"),
    "IPv6 of a banned client": (ethernet(IP6, ip6("2001:db8:c:1:9::9", tcp())), DROP, "dropped"),
    "IPv6 neighbour": (ethernet(IP6, ip6("2001:db8:bad::8", tcp())), PASS, "passed"),
    "IPv6 next client": (ethernet(IP6, ip6("2001:db8:c:2::9", tcp())), PASS, "passed"),
    "IPv6 hop-by-hop": (ethernet(IP6, ip6(BAD6, b"\x06\0\x01\x04\0\0\0\0" + tcp(), following=0)), DROP, "dropped"),
    "IPv6 chain of three": (
        ethernet(
            IP6, ip6(BAD6, b"\x3c\0\0\0\0\0\0\0" + b"\x2b\0\0\0\0\0\0\0" + b"\x06\0\0\0\0\0\0\0" + tcp(), following=0)
        ),
        DROP,
        "dropped",
    ),
    "IPv6 chain, source clean": (ethernet(IP6, ip6("2001:db8::9", b"\x06\0\0\0" * 9, following=60)), PASS, "passed"),
    "IPv6 fragment": (ethernet(IP6, ip6(BAD6, b"\x06\0\0\x09\0\0\0\x01" + b"x" * 32, following=44)), DROP, "dropped"),
    "IPv6 no next header": (ethernet(IP6, ip6(BAD6, following=59)), DROP, "dropped"),
    "IPv6 longer than the frame": (ethernet(IP6, ip6(BAD6, tcp(), length=900)), PASS, "odd"),
    "IPv6 of version 4": (ethernet(IP6, ip6(BAD6, tcp(), version=4)), PASS, "odd"),
    "IPv6 link-local": (ethernet(IP6, ip6("fe80::1", tcp())), PASS, "exempt"),
    "IPv6 unspecified": (ethernet(IP6, ip6("::", b"\x87" + bytes(23), following=58)), PASS, "exempt"),
    "DHCPv6 reply of a banned server": (ethernet(IP6, ip6(BAD6, udp(547, 546), following=17)), PASS, "exempt"),
    **{
        f"ICMPv6 {kind}": (
            ethernet(IP6, ip6(BAD6, bytes([kind]) + bytes(23), following=58)),
            PASS if 133 <= kind <= 137 else DROP,
            "exempt" if 133 <= kind <= 137 else "dropped",
        )
        for kind in (1, 128, 132, 133, 134, 135, 136, 137, 138)
    },
    "ARP": (ethernet(ARP, bytes(28)), PASS, "exempt"),
    "MPLS": (ethernet(0x8847, ip4(BAD4)), PASS, "exempt"),
    "PPPoE": (ethernet(0x8864, ip4(BAD4)), PASS, "exempt"),
    "802.3 length": (ethernet(60, ip4(BAD4, tcp())), PASS, "exempt"),
    "VLAN": (ethernet(IP4, ip4(BAD4, tcp()), VLAN), DROP, "dropped"),
    "VLAN, IPv6": (ethernet(IP6, ip6(BAD6, tcp()), VLAN), DROP, "dropped"),
    "QinQ": (ethernet(IP4, ip4(BAD4, tcp()), QINQ, VLAN), DROP, "dropped"),
    "QinQ, clean": (ethernet(IP6, ip6("2001:db8::5", tcp()), QINQ, VLAN), PASS, "passed"),
    "three tags": (ethernet(IP4, ip4(BAD4, tcp()), QINQ, VLAN, VLAN), PASS, "exempt"),
    "VLAN cut off": (ethernet(VLAN, b"\0\x07"), PASS, "odd"),
    "jumbo": (ethernet(IP4, ip4(BAD4, tcp() + bytes(3000))), DROP, "dropped"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_verdict(drops, name):
    """Each kind of frame has its verdict, and its counter."""
    frame, action, counter = FRAMES[name]

    assert (action, counter) == verdict(drops, frame)


@pytest.mark.parametrize(
    "whole", [ethernet(IP4, ip4(BAD4, tcp(), options=bytes(8)), VLAN), ethernet(IP6, ip6(BAD6, tcp()))]
)
def test_cut_short_passes(drops, whole):
    """A frame of a banned source that is cut anywhere passes; test runs take 14 bytes at least."""
    assert (DROP, "dropped") == verdict(drops, whole)
    for size in range(14, len(whole)):
        assert (PASS, "odd") == verdict(drops, whole[:size]), size


def test_allow_beats_every_ban(drops):
    """An allow entry, narrower or wider than the ban, lets pass; without it the ban holds again."""
    frame = ethernet(IP4, ip4("198.51.100.9", tcp()))
    for prefix in ("198.51.100.9", "198.51.0.0/16", "0.0.0.0/0"):
        drops.allow(Allowed(frozenset({key(prefix)}), frozenset(), (22,)))
        assert (PASS, "allowed") == verdict(drops, frame)
        drops.allow(Allowed(frozenset(), frozenset(), (22,)))
        assert (DROP, "dropped") == verdict(drops, frame)
    drops.allow(Allowed(frozenset({key("2001:db8::/32")}), frozenset(), ()))
    assert (PASS, "allowed") == verdict(drops, ethernet(IP6, ip6(BAD6, tcp())))


@pytest.mark.parametrize("six", [False, True])
def test_sessions_keep_their_ports(drops, six):
    """A banned peer with a session reaches kept ports, also in fragments, and no others."""
    bad = BAD6 if six else BAD4

    def packet(payload: bytes, protocol: int = 6) -> bytes:
        if six:
            return ethernet(IP6, ip6(bad, payload, following=protocol))
        return ethernet(IP4, ip4(bad, payload, protocol=protocol))

    assert (DROP, "dropped") == verdict(drops, packet(tcp(22)))
    drops.allow(Allowed(frozenset(), frozenset({key(bad)[0]}), (22, 2222)))
    assert (PASS, "kept") == verdict(drops, packet(tcp(22)))
    assert (PASS, "kept") == verdict(drops, packet(tcp(2222, 16)))
    assert (PASS, "kept") == verdict(drops, packet(udp(5, 22), 17))
    assert (DROP, "dropped") == verdict(drops, packet(tcp(80)))
    if six:
        assert (PASS, "kept") == verdict(drops, packet(b"\x06\0\0\x09\0\0\0\x01" + bytes(16), 44))
    else:
        assert (PASS, "kept") == verdict(drops, ethernet(IP4, ip4(bad, bytes(32), fragment=3)))
    drops.allow(Allowed(frozenset({key(bad)}), frozenset({key(bad)[0]}), (22,)))
    assert (PASS, "allowed") == verdict(drops, packet(tcp(80)))


def test_expiry_is_the_programs_own(drops):
    """A ban ends at its second by the boot clock, with nobody to remove it; a longer one of a wider prefix goes on."""
    now = time.time()
    drops.put(banned("192.0.2.1", end=now + 0.4) | banned("192.0.2.0/24", end=now + 1.0))
    first, second = ethernet(IP4, ip4("192.0.2.1", tcp())), ethernet(IP4, ip4("192.0.2.2", tcp()))
    assert [DROP, DROP] == [verdict(drops, frame)[0] for frame in (first, second)]
    time.sleep(0.5)
    assert [DROP, DROP] == [verdict(drops, frame)[0] for frame in (first, second)]
    time.sleep(0.6)
    assert [(PASS, "passed")] * 2 == [verdict(drops, frame) for frame in (first, second)]


def test_armed_until(drops):
    """It drops until the moment it is armed to, and not before it is armed."""
    frame = ethernet(IP4, ip4(BAD4, tcp()))
    drops.arm(0.0)
    assert (PASS, "disarmed") == verdict(drops, frame)
    drops.arm(boot_seconds() + 0.3)
    assert (DROP, "dropped") == verdict(drops, frame)
    time.sleep(0.4)
    assert (PASS, "disarmed") == verdict(drops, frame)
    drops.arm(None)
    assert (DROP, "dropped") == verdict(drops, frame)
    assert drops.armed() is None


def test_count_mode_and_syn_only(drops):
    """Mode count passes and counts, also by reason and by ban; SYN-only drops what opens connections alone."""
    frame = ethernet(IP4, ip4(BAD4, tcp()))
    drops._mode = 0
    drops.arm(None)
    assert (PASS, "counted") == verdict(drops, frame)
    assert drops.hits([key(BAD4), key("192.0.2.200")])[key(BAD4)] >= 1
    assert drops.status()["reasons"] == {"manual": 1}
    drops._mode, drops._flags = 1, 1
    drops.arm(None)
    assert (DROP, "dropped") == verdict(drops, frame)
    for flags in (16, 18, 4, 24):
        assert (PASS, "established") == verdict(drops, ethernet(IP4, ip4(BAD4, tcp(80, flags))))
    assert (PASS, "established") == verdict(drops, ethernet(IP4, ip4(BAD4, udp(9, 53), protocol=17)))
    assert (PASS, "established") == verdict(drops, ethernet(IP4, ip4(BAD4, tcp(), fragment=5)))


def test_hits_survive_a_longer_ban(drops):
    """An entry that is set again keeps its hits."""
    for _ in range(3):
        verdict(drops, ethernet(IP4, ip4(BAD4, tcp())))
    drops.put(banned(BAD4, end=time.time() + 1000))

    assert {key(BAD4): 3} == drops.hits([key(BAD4)])
