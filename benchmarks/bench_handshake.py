"""TLS handshakes on memory BIOs, both sides of one, with a guarded server context and with an unguarded one.

A guard adds little to a handshake, so the two take turns handshake by handshake, and the figure is the median over all.
"""

from __future__ import annotations

import gc
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import thread_time_ns
from typing import Any

from benchmarks.cases import Case, Data, Row

SUITE = "handshake"
CAPTION = "A whole TLS handshake, both sides: median (best)"
TURNS, CHUNK = 2000, 100
NAME = "api.example.com"

RULES = """
rules:
  - {id: office, when: {prefix: 192.0.2.0/24}, action: allow}
  - {id: names, when: {sni: ["**.banned.example", "*.c2[0-9]+.top"]}, action: ban}
  - {id: clients, when: {ja4: t13d1516h2_8daaf6152771_e5627efa2ab1}, action: ban}
"""


def certificate(folder: Path) -> Path:
    """A PEM file with an EC key and its certificate: the cheapest handshake, so the dearest guard."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = folder / "both.pem"
    path.write_bytes(
        key.private_bytes(encoding, form, serialization.NoEncryption())
        + builder.sign(key, hashes.SHA256()).public_bytes(encoding)
    )
    return path


def server_context(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    far = client.wrap_bio(back, there, server_hostname=NAME)
    near = server.wrap_bio(there, back, server_side=True)
    for side in (far, near, far, near):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()


def subjects(pem: Path) -> dict[str, ssl.SSLContext]:
    from gobanfast import Engine, Ruleset
    from gobanfast.frontends.tls import guard

    engine = Engine(Ruleset.from_text(RULES))
    return {"unguarded": server_context(pem), "guarded": guard(server_context(pem), engine)}


def cases(data: Data) -> Iterator[Case]:
    """None: rounds of many handshakes are too coarse for a difference this small; see `facts`."""
    return iter(())


def facts(data: Data) -> list[Row]:
    client = client_context()
    with tempfile.TemporaryDirectory() as folder:
        contexts = subjects(certificate(Path(folder)))
        timings: dict[str, list[int]] = {name: [] for name in contexts}
        gc.collect()
        gc.disable()
        try:
            for turn in range(TURNS):
                order = list(contexts.items())
                for name, server in order if turn % 2 else reversed(order):
                    started = thread_time_ns()
                    handshake(server, client)
                    timings[name].append(thread_time_ns() - started)
        finally:
            gc.enable()
    return [
        Row(SUITE, "TLS 1.3, P-256", name, "ours" if name == "guarded" else "yardstick", "ns", chunks(taken))
        for name, taken in timings.items()
    ]


def chunks(taken: list[int]) -> list[Any]:
    """Medians of a hundred handshakes each, so that a record stays small."""
    return [median(taken[i : i + CHUNK]) for i in range(0, len(taken), CHUNK)]
