"""`gobanfast hello`: hex, binary and captures in, fields out."""

from __future__ import annotations

import gzip
import json
import struct
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast.cli.app import app

CASES = Path(__file__).parents[1] / "cases" / "hello"
CAPTURE = CASES / "openssl_alpn.bin"
JA4 = "t13d3111h2_e8f1e7e78f70_1f22a2ca17c4"


def run(*arguments: str, stdin: bytes = b"", status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["hello", *arguments], input=stdin, env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


def test_binary_file_as_table():
    """A file of raw bytes gives a row a field; fields that say nothing are left out."""
    lines = run(str(CAPTURE)).stdout.splitlines()[1:]
    shown = dict(line.split(maxsplit=1) for line in lines if not line.startswith(" "))  # those continue a long value

    assert ("ok", "API.Example.COM.", "upper dot", "h2 http/1.1", "0304", JA4) == tuple(
        shown[key].strip() for key in ("status", "sni", "sni_flags", "alpn", "version", "ja4")
    )
    assert "psk" not in shown


@pytest.mark.parametrize("separator", ["", " ", ":", "\n"])
def test_hex_on_standard_input_as_json(separator):
    """Hex with the usual separators is the same as the bytes it stands for."""
    written = CAPTURE.read_bytes().hex(separator) if separator else CAPTURE.read_bytes().hex()
    fields = json.loads(run("-", "--json", stdin=written.encode()).stdout)

    assert ("ok", JA4, ["h2", "http/1.1"]) == (fields["status"], fields["ja4"], fields["alpn"])
    assert fields == json.loads(run("-", "--json", stdin=CAPTURE.read_bytes()).stdout)


def test_what_is_not_whole_ends_with_status_1():
    """A cut hello and plain HTTP are shown with what is wrong, and the exit status says so."""
    cut = json.loads(run("-", "--json", stdin=CAPTURE.read_bytes()[:100], status=1).stdout)
    http = run("-", stdin=b"GET / HTTP/1.1\r\n\r\n", status=1).stdout

    assert ("incomplete", 240) == (cut["status"], cut["need"])
    assert "plain text, such as http, on a tls port" in http


def test_missing_file_is_wrong_usage():
    """A file that cannot be read is named, with status 2."""
    assert "no-such-file" in run("no-such-file", status=2).output


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty; give the first bytes that a TLS client sends, binary or hex, or a capture (pcap, pcapng)"),
        (b" \n", "it is empty; "),
        (gzip.compress(b"x"), "it is packed by gzip; unpack it, and give the first bytes"),
        (b"\x28\xb5\x2f\xfdabc", "it is packed by zstd; unpack it"),
        (b"PK\3\4abc", "it is packed by zip; unpack it"),
        (b"\x7fELF\2\1\1", "it is a program; give"),
        (b"-----BEGIN CERTIFICATE-----\n", "it is PEM, as of certificates and keys; give"),
        (b"16 03 01 zz", "'z' is no hex digit; write two digits for each byte"),
        (b"0x16, 0x03, 0x01", "'x' is no hex digit; "),
        (b"16:03:01:0", "it has an odd number of hex digits; "),
    ],
)
@pytest.mark.parametrize("file", [True, False])
def test_another_kind_of_file_is_told(tmp_path, data, words, file):
    """One line on standard error with what it is and what would be right, status 2; nothing else."""
    path = tmp_path / "given"
    path.write_bytes(data)
    result = run(str(path), status=2) if file else run("-", stdin=data, status=2)

    assert ("", 1) == (result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith(f"{path if file else '<stdin>'}: {words}")


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b'{"a": 1}', b"\x15\x03\x01\0\2\2\x28", b"PROXY TCP4 1.1.1.1 "]
)
def test_what_is_no_tls_is_told_what_would_be_right(data):
    """The table has the problem, and standard error what to give."""
    result = run("-", stdin=data, status=1)

    assert "not-tls" in result.stdout
    assert "; give the first bytes that a TLS client sends" in result.stderr


def test_a_folder_and_a_cut_capture(tmp_path):
    """They are named, and how to make the capture is told."""
    assert f"{tmp_path}: Is a directory\n" == run(str(tmp_path), status=2).stderr
    assert "; capture from the first packets" in run("-", stdin=b"\xd4\xc3\xb2\xa1\2\0", status=1).stderr


def frame(dpkt, payload, *, source_port, protocol="tcp", sequence=0, version=4):
    """One Ethernet frame from client to server."""
    if protocol == "tcp":
        body, number = dpkt.tcp.TCP(sport=source_port, dport=443, seq=sequence, data=payload), 6
    else:
        body, number = dpkt.udp.UDP(sport=source_port, dport=443, ulen=8 + len(payload), data=payload), 17
    if version == 4:
        packet = dpkt.ip.IP(src=bytes([192, 0, 2, 1]), dst=bytes([192, 0, 2, 2]), p=number, data=body)
        packet.len = len(packet)
        return bytes(dpkt.ethernet.Ethernet(type=0x0800, data=packet))
    packet = dpkt.ip6.IP6(src=bytes(15) + b"\1", dst=bytes(15) + b"\2", nxt=number, plen=len(body), data=body)
    return bytes(dpkt.ethernet.Ethernet(type=0x86DD, data=packet))


def test_captures_are_read_by_connection():
    """TCP segments in any order, IPv6 and QUIC: each connection's hello once, with its ends; nothing else."""
    dpkt = pytest.importorskip("dpkt", reason="captures need the extra pcap")
    pytest.importorskip("cryptography", reason="QUIC needs the extra quic")
    from test_quic import MESSAGE, crypto, seal

    data = CAPTURE.read_bytes()
    frames = [
        frame(dpkt, data[:100], source_port=1001, sequence=500),
        frame(dpkt, data[200:], source_port=1001, sequence=700),
        frame(dpkt, b"GET / HTTP/1.1\r\n\r\n", source_port=1002),
        frame(dpkt, data[100:200], source_port=1001, sequence=600),
        frame(dpkt, seal(crypto(40, MESSAGE[40:])), source_port=1003, protocol="udp"),
        frame(dpkt, b"\0\1\2\3", source_port=1004, protocol="udp"),
        frame(dpkt, seal(crypto(0, MESSAGE[:40]), number=3), source_port=1003, protocol="udp"),
        frame(dpkt, data, source_port=1005, version=6),
        b"\xff" * 20,
    ]
    file = BytesIO()
    writer = dpkt.pcap.Writer(file)
    for at, one in enumerate(frames):
        writer.writepkt(one, ts=at)
    found = [json.loads(line) for line in run("-", "--json", stdin=file.getvalue()).stdout.splitlines()]

    assert [
        ("192.0.2.1 1001 > 192.0.2.2 443", "API.Example.COM."),
        ("192.0.2.1 1003 > 192.0.2.2 443", "quic.example"),
        ("::1 1005 > ::2 443", "API.Example.COM."),
    ] == [(row["connection"], row["sni"]) for row in found]
    assert ["t", "q", "t"] == [row["ja4"][0] for row in found]


# ---- links


def segment(version=4):
    """The IP packet of the whole hello in one TCP segment."""
    body = struct.pack("!HHIIBBHHH", 40000, 443, 1000, 0, 5 << 4, 24, 65535, 0, 0) + CAPTURE.read_bytes()
    ends = [bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])] if version == 4 else [bytes(15) + b"\1", bytes(15) + b"\2"]
    if version == 4:
        return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, 6, 0, *ends) + body
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), 6, 64, *ends) + body


def pcap(link, *frames, order="<", magic=0xA1B2C3D4):
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)
    return head + b"".join(struct.pack(order + "IIII", 1, 0, len(one), len(one)) + one for one in frames)


def block(kind, body, order="<"):
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def pcapng(links, *packets, order="<"):
    """A section with these interfaces and (interface, frame) packets."""
    made = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    for link in links:
        made += block(1, struct.pack(order + "HHI", link, 0, 0), order)
    for interface, one in packets:
        made += block(6, struct.pack(order + "IIIII", interface, 0, 1, len(one), len(one)) + one, order)
    return made


SLL = struct.pack("!HHH8sH", 0, 1, 6, bytes(8), 0x800)
SLL2 = struct.pack("!HHIHBB8s", 0x800, 0, 2, 1, 0, 6, bytes(8))
VLAN = bytes(12) + b"\x81\0\0\5\x88\xa8\0\6\x08\0"
LINKS = {
    "ethernet": (1, bytes(12) + b"\x08\0"),
    "vlan": (1, VLAN),
    "pppoe": (1, bytes(12) + b"\x88\x64\x11\0\0\1\0\0\0\x21"),
    "sll": (113, SLL),
    "sll2": (276, SLL2),
    "sll2 vlan": (276, b"\x81\0" + SLL2[2:] + b"\0\5\x08\0"),
    "null": (0, struct.pack("<I", 2)),
    "loop": (108, struct.pack(">I", 2)),
    "raw": (101, b""),
    "ipv4": (228, b""),
}


@pytest.mark.parametrize("link", LINKS)
def test_links(link):
    """What `tcpdump` writes for any, one, a tunnel or a loopback interface gives the hello, as pcap and as pcapng."""
    pytest.importorskip("dpkt", reason="captures need the extra pcap")
    number, head = LINKS[link]
    one = head + segment()
    for data in (
        pcap(number, one), pcap(number, one, order=">"), pcap(number, one, magic=0xA1B23C4D),
        pcapng([number], (0, one)), pcapng([number], (0, one), order=">"), pcapng([147, number], (1, one)),
    ):  # fmt: skip
        (found,) = (json.loads(line) for line in run("-", "--json", stdin=data).stdout.splitlines())
        assert ("192.0.2.1 40000 > 192.0.2.2 443", "ok", JA4) == (found["connection"], found["status"], found["ja4"])


def test_ipv6_behind_other_links():
    """The version is that of the packet, whatever the link says of the family."""
    pytest.importorskip("dpkt", reason="captures need the extra pcap")
    six = segment(6)
    for data in (pcap(0, struct.pack("<I", 30) + six), pcap(229, six), pcap(276, b"\x86\xdd" + SLL2[2:] + six)):
        assert "::1 40000 > ::2 443" == json.loads(run("-", "--json", stdin=data).stdout)["connection"]


def test_a_link_that_is_not_read_is_named():
    """Its number and how many packets; what else the capture holds is shown."""
    pytest.importorskip("dpkt", reason="captures need the extra pcap")
    one = LINKS["ethernet"][1] + segment()
    alone = run("-", "--json", stdin=pcap(127, one, one), status=1)
    mixed = run("-", "--json", stdin=pcapng([1, 250], (1, b"x"), (0, one)))

    assert "" == alone.stdout
    assert "2 packets of link type 127 (IEEE802_11_RADIO) not read; read are Ethernet (1)" in alone.stderr
    assert "no client hello" in alone.stderr
    assert "1 packet of link type 250" in mixed.stderr
    assert JA4 == json.loads(mixed.stdout)["ja4"]


@pytest.mark.parametrize("make", [pcap, pcapng])
def test_a_capture_cut_anywhere_ends_there(make):
    """Every beginning of a capture is read without a traceback; once the first packet is whole, with the hello."""
    pytest.importorskip("dpkt", reason="captures need the extra pcap")
    one = LINKS["ethernet"][1] + segment()
    data, first = (make(1, one, one), make(1, one)) if make is pcap else (
        make([1], (0, one), (0, one)), make([1], (0, one)))  # fmt: skip
    for end in (*range(4, 80, 5), len(first) - 1, len(first), len(first) + 9, len(data) - 1, len(data)):
        result = CliRunner().invoke(app, ["hello", "-", "--json"], input=data[:end])
        assert result.exit_code == (0 if end >= len(first) else 1), end
