"""ClientHellos: bytes in; the host name and the ALPN protocols out, or the JA4 fingerprint.

The hellos are a browser's of 1.8 KB out of GOBANFAST_DATA, and openssl's from tests/cases/hello, always there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, Data, Kind, timed

SUITE = "hello"
CAPTION = "One ClientHello read: ns median (times the no-op call)"
CAPTURE = Path(__file__).parents[1] / "tests" / "cases" / "hello" / "openssl_alpn.bin"
BROWSER = "hello/imp_chrome145.bin"
COUNT, SLOW_COUNT = 20_000, 200
DISTINCT = 64  # objects that are asked in turn, so that no cache keeps an answer

Read = Callable[[bytes], object]


def call_each(target: Read, items: list[Any]) -> None:
    for item in items:
        target(item)


def ours_each(items: list[bytes]) -> None:
    from gobanfast._core.client_hello import parse_client_hello

    for item in items:
        hello = parse_client_hello(item)
        hello.sni  # noqa: B018
        hello.alpn  # noqa: B018


def ours_ja4_each(items: list[bytes]) -> None:
    from gobanfast._core.client_hello import parse_client_hello

    for item in items:
        parse_client_hello(item).ja4  # noqa: B018


def dpkt_read() -> Read:
    from dpkt.ssl import TLSHandshake, TLSRecord

    def read(data: bytes) -> object:
        extensions = dict(TLSHandshake(TLSRecord(data).data).data.extensions)
        return extensions.get(0), extensions.get(16)

    return read


def scapy_read() -> Read:
    from scapy.layers.tls.extensions import TLS_Ext_ALPN, TLS_Ext_ServerName
    from scapy.layers.tls.record import TLS

    def read(data: bytes) -> object:
        record = TLS(data)
        return record.getlayer(TLS_Ext_ServerName), record.getlayer(TLS_Ext_ALPN)

    return read


def aioquic_read() -> Read:
    from aioquic.buffer import Buffer
    from aioquic.tls import pull_client_hello

    def read(data: bytes) -> object:
        hello = pull_client_hello(Buffer(data=data[5:]))
        return hello.server_name, hello.alpn_protocols

    return read


def tlslite_read() -> Read:
    from tlslite.messages import ClientHello
    from tlslite.utils.codec import Parser

    def read(data: bytes) -> object:
        parser = Parser(bytearray(data[5:]))
        parser.get(1)
        hello = ClientHello().parse(parser)
        return hello.server_name, hello.getExtension(16)

    return read


PEERS = {"dpkt": dpkt_read, "scapy": scapy_read, "aioquic": aioquic_read, "tlslite-ng": tlslite_read}


def hellos() -> dict[str, bytes]:
    """Group name -> one ClientHello."""
    found = {"openssl": CAPTURE.read_bytes()}
    folder = os.environ.get("GOBANFAST_DATA")
    if folder:
        found["browser"] = (Path(folder) / BROWSER).read_bytes()
    return found


def fresh_bytes(data: bytes, count: int) -> list[bytes]:
    copies = [bytes(bytearray(data)) for _ in range(DISTINCT)]
    return [copies[i % DISTINCT] for i in range(count)]


def fresh_texts(count: int) -> list[str]:
    return [f"{i:015}" for i in range(count)]


def cases(data: Data) -> Iterator[Case]:
    from benchmarks.floor import noop

    for group, hello in hellos().items():
        floor = partial(call_each, noop)
        yield Case(SUITE, group, "no-op call", "yardstick", COUNT, partial(fresh_texts, COUNT), floor, "None")
        ours: list[tuple[str, Callable[[list[bytes]], None], str]] = [
            ("gobanfast sni+alpn", ours_each, "str, tuple of str"),
            ("gobanfast ja4", ours_ja4_each, "str"),
        ]
        for name, run, returns in ours:
            yield Case(SUITE, group, name, "ours", COUNT, partial(fresh_bytes, hello, COUNT), run, returns)
        for name, load in PEERS.items():
            kind: Kind = "peer"
            try:
                read = load()
                read(hello)
            except Exception as problem:  # noqa: BLE001 - whatever a peer does with real bytes is its own affair
                data.skipped[f"{name} ({group})"] = f"{type(problem).__name__}: {problem}"
                continue
            yield Case(
                SUITE, group, name, kind, SLOW_COUNT, partial(fresh_bytes, hello, SLOW_COUNT),
                partial(call_each, read), "extensions",
            )  # fmt: skip


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
