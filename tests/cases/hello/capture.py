"""Writes the captures of this folder anew: what the TLS clients of this machine say first, read on loopback.

`python tests/cases/hello/capture.py` needs the commands openssl and curl. Only captures made with it belong here.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent
S_CLIENT = ["openssl", "s_client", "-connect", "{address}"]
CURL = ["curl", "-sk", "--connect-to", "api.example.com:443:{address}", "https://api.example.com/"]
CAPTURES = {
    "openssl": [*S_CLIENT, "-servername", "api.example.com"],
    "openssl_alpn": [*S_CLIENT, "-servername", "API.Example.COM.", "-alpn", "h2,http/1.1"],
    "openssl_no_sni": [*S_CLIENT, "-noservername"],
    "openssl_tls12": [*S_CLIENT, "-servername", "192.0.2.7", "-tls1_2"],
    "curl": CURL,
    "curl_http1": [*CURL, "--http1.1"],
}


def listen(command: list[str]) -> bytes:
    """The first flight of what `command` connects with."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        words = [word.format(address=address) for word in command]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet) as client:
            connection, _ = server.accept()
            with connection:
                header = connection.recv(5, socket.MSG_WAITALL)
                flight = header + connection.recv(int.from_bytes(header[3:], "big"), socket.MSG_WAITALL)
            client.kill()
    return flight


def python_hello(protocols: list[str]) -> bytes:
    """The first flight of the ssl module."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="api.example.com")
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise RuntimeError("a handshake without a peer ended")


if __name__ == "__main__":
    for name, command in CAPTURES.items():
        (FOLDER / f"{name}.bin").write_bytes(listen(command))
    (FOLDER / "python.bin").write_bytes(python_hello([]))
    (FOLDER / "python_alpn.bin").write_bytes(python_hello(["h2", "http/1.1"]))
