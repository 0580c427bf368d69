"""`gobanfast hello`: hex, binary and captures in, fields out."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast.cli.app import app

CASES = Path(__file__).parent / "cases" / "hello"
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
