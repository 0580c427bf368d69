"""Addresses that a ban must not keep out, read from texts as the Linux kernel, utmp and sshd write them."""

import os
from ipaddress import ip_address

import pytest

from gobanfast.wire import own_addresses

FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
Local:
        |-- 192.0.2.2
           /32 host LOCAL
"""
IF_INET6 = """fe8000000000000000fc00fffe000001 04 40 20 80     eth0
20010db8000000000000000000000002 04 40 00 82     eth0
00000000000000000000000000000001 01 80 10 80       lo
zz
"""
ROUTE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\tnonsense
"""
IPV6_ROUTE = (
    f"{'0' * 32} 00 {'0' * 32} 00 20010db8000000000000000000000001 00000400 00000003 00000000 00000003     eth0\n"
    f"20010db8{'0' * 24} 40 {'0' * 32} 00 {'0' * 32} 00000100 00000001 00000000 00000001     eth0\n"
    f"{'0' * 31}1 80 {'0' * 32} 00 {'0' * 32} 00000000 00000004 00000000 80200001       lo\nshort\n"
)


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A directory in place of /proc; no logind, no utmp but what a test puts there."""
    (tmp_path / "net").mkdir()
    for name, text in (("fib_trie", FIB_TRIE), ("if_inet6", IF_INET6), ("route", ROUTE), ("ipv6_route", IPV6_ROUTE)):
        (tmp_path / "net" / name).write_text(text)
    monkeypatch.setattr(own_addresses, "PROC", str(tmp_path))
    monkeypatch.setattr(own_addresses, "UTMP", (str(tmp_path / "utmp"),))
    monkeypatch.setattr(own_addresses, "_loginctl", lambda *arguments: "")
    return tmp_path


def login(*, kind=7, pid=1, user=b"root", host=b"", packed=b""):
    """A record of utmp."""
    words = [int.from_bytes(packed[at : at + 4], "little") for at in range(0, 16, 4)] if packed else [0] * 4
    return own_addresses._UTMP.pack(kind, pid, b"pts/0", b"ts/0", user, host, 0, 0, 1, 0, 0, *words)


def test_own_addresses_are_those_of_the_interfaces_without_loopback(proc):
    assert {"192.0.2.2", "2001:db8::2", "fe80::fc:ff:fe00:1"} == {*map(str, own_addresses.own_addresses())}


@pytest.mark.skipif(ip_address("192.0.2.1").packed[::-1] != (0x010200C0).to_bytes(4, "big"), reason="big-endian")
def test_gateways_are_the_next_hops_of_the_routes(proc):
    assert ["192.0.2.1", "2001:db8::1"] == [*map(str, own_addresses.gateways())]


def test_peers_are_of_sessions_that_are_logged_in(proc):
    """A record without a living process, a boot record and a local terminal are nobody's remote session."""
    (proc / "1").mkdir()
    (proc / "utmp").write_bytes(
        login(packed=ip_address("198.51.100.7").packed + bytes(12))
        + login(user=b"eve", packed=ip_address("2001:db8::7").packed)
        + login(user=b"text", host=b"::ffff:198.51.100.8")
        + login(user=b"gone", pid=2, host=b"198.51.100.9")
        + login(kind=2, user=b"reboot", host=b"198.51.100.10")
        + login(user=b"here", host=b":0")
        + b"cut short"
    )

    found = own_addresses.session_peers({"SSH_CONNECTION": "203.0.113.5 50022 192.0.2.2 22"})

    assert {
        "203.0.113.5": "the other end of this session",
        "198.51.100.7": "where root is logged in from",
        "2001:db8::7": "where eve is logged in from",
        "198.51.100.8": "where text is logged in from",
    } == {str(address): what for address, what in found.items()}


def test_peers_that_logind_knows(proc, monkeypatch):
    answers = {
        "list-sessions": " 3 1000 ada seat0 pts/1 active -\n c1 0 root - - closing -\n",
        "3": "RemoteHost=198.51.100.3\nName=ada\nState=active\n",
        "c1": "RemoteHost=198.51.100.4\nName=root\nState=closing\n",
    }
    monkeypatch.setattr(
        own_addresses, "_loginctl", lambda command, *more: answers[more[0] if command == "show-session" else command]
    )

    assert {"198.51.100.3": "where ada is logged in from"} == {
        str(address): what for address, what in own_addresses.session_peers({}).items()
    }


def test_a_sandbox_that_shows_nothing_protects_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(own_addresses, "PROC", str(tmp_path / "none"))
    monkeypatch.setattr(own_addresses, "UTMP", ())
    monkeypatch.setattr(own_addresses, "_loginctl", lambda *arguments: "")

    assert {} == own_addresses.protected_addresses({"SSH_CONNECTION": "nonsense"})


def test_this_host_can_be_asked():
    """Whatever this machine shows, reading it raises nothing, and addresses are canonical."""
    for address in own_addresses.protected_addresses(os.environ):
        assert str(ip_address(address)) == address
