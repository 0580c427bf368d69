"""ClientHellos for tests: built field by field, or said by the TLS library of this interpreter."""

from __future__ import annotations

import ssl
from contextlib import suppress

from hypothesis import strategies as st

from oracle.hello import record

U16 = st.integers(0, 0xFFFF)


def prefixed(data, count):
    return len(data).to_bytes(count, "big") + data


def shorts(values):
    return b"".join(value.to_bytes(2, "big") for value in values)


def server_name(*names, kind=0):
    return 0, prefixed(b"".join(bytes([kind]) + prefixed(name, 2) for name in names), 2)


def alpn(*protocols):
    return 16, prefixed(b"".join(prefixed(protocol, 1) for protocol in protocols), 2)


def groups(*values):
    return 10, prefixed(shorts(values), 2)


def point_formats(*values):
    return 11, prefixed(bytes(values), 1)


def signature_algorithms(*values):
    return 13, prefixed(shorts(values), 2)


def versions(*values):
    return 43, prefixed(shorts(values), 1)


def message(
    extensions=(),
    *,
    ciphers=(0x1301, 0x1302),
    legacy_version=0x0303,
    session_id=b"",
    compression=b"\0",
    tail=b"",
    kind=1,
):
    """One handshake message; `extensions` are (number, body) pairs, None leaves their length out too."""
    body = legacy_version.to_bytes(2, "big") + bytes(32) + prefixed(session_id, 1)
    body += prefixed(shorts(ciphers), 2) + prefixed(compression, 1)
    if extensions is not None:
        body += prefixed(b"".join(number.to_bytes(2, "big") + prefixed(data, 2) for number, data in extensions), 2)
    return bytes([kind]) + prefixed(body + tail, 3)


def stream(*args, **kwargs):
    """The same message in one record."""
    return record(message(*args, **kwargs))


def from_python(name, protocols):
    """What this interpreter's TLS library says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


LISTS = st.lists(U16, max_size=40)
NAMES = st.binary(max_size=40)
EXTENSIONS = st.tuples(
    st.lists(NAMES, max_size=1).map(lambda names: server_name(*names)),
    st.lists(NAMES, max_size=4).map(lambda protocols: alpn(*protocols)),
    LISTS.map(lambda values: groups(*values)),
    LISTS.map(lambda values: signature_algorithms(*values)),
    LISTS.map(lambda values: versions(*values)),
    st.binary(max_size=8).map(lambda values: point_formats(*values)),
)


@st.composite
def messages(draw):
    """Any well-formed message, far from what a browser would send."""
    known = draw(st.permutations(draw(EXTENSIONS)))[: draw(st.integers(0, 6))]
    others = draw(st.lists(st.tuples(st.integers(64, 0xFE00), st.binary(max_size=20)), max_size=20))
    return message(
        draw(st.permutations([*known, *others])),
        ciphers=draw(st.lists(U16, min_size=1, max_size=80)),
        legacy_version=draw(st.sampled_from([0x0002, 0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0xFEFF])),
        session_id=draw(st.binary(max_size=32)),
    )
