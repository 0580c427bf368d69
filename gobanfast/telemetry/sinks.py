"""Where lines of the decision log go. All are called by the log's one thread; what fails raises OSError."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

TIMEOUT = 2.0  # seconds for a socket
SYSLOG = "/dev/log"
PRIORITY = 16 * 8 + 6  # local0.info, RFC 3164


class Sink(Protocol):
    """Takes whole lines."""

    def write(self, lines: list[bytes]) -> None:
        """Passes the lines on, each without its line feed.

        Raises:
            OSError: nothing of them was taken for certain; the log tries again.
        """

    def close(self) -> None:
        """Lets go of what is open; a later write opens it again."""


class StdoutSink:
    """Standard output, by its descriptor."""

    def write(self, lines: list[bytes]) -> None:
        """See `Sink`."""
        _write_all(1, b"\n".join(lines) + b"\n")

    def close(self) -> None:
        """See `Sink`; standard output stays open."""


class FileSink:
    """A file that grows. Several processes may share it: a batch of lines is one write at its end.

    Before each write the name is looked at: when it leads to another file (log rotation), that one is opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._file = -1
        self._inode = (0, 0)

    def write(self, lines: list[bytes]) -> None:
        """See `Sink`."""
        try:
            found = os.stat(self.path)
            here = found.st_dev, found.st_ino
        except FileNotFoundError:
            here = 0, 0
        if self._file < 0 or here != self._inode:
            self.close()
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            found = os.fstat(self._file)
            self._inode = found.st_dev, found.st_ino
        _write_all(self._file, b"\n".join(lines) + b"\n")

    def close(self) -> None:
        """See `Sink`."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


class SocketSink:
    """Lines over TCP or a UNIX stream socket, or one datagram a line over UDP."""

    def __init__(self, address: tuple[str, int] | str, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self.address, self.kind = address, kind
        self._socket: socket.socket | None = None

    def write(self, lines: list[bytes]) -> None:
        """See `Sink`."""
        sock = self._socket or self._connect()
        try:
            if self.kind == socket.SOCK_STREAM:
                sock.sendall(b"\n".join(lines) + b"\n")
            else:
                for line in lines:
                    sock.send(self.frame(line))
        except OSError:
            self.close()
            raise

    def frame(self, line: bytes) -> bytes:
        """The datagram of a line."""
        return line

    def close(self) -> None:
        """See `Sink`."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        self._socket = None

    def _connect(self) -> socket.socket:
        if isinstance(self.address, str):
            family, address = socket.AF_UNIX, self.address
        else:
            family, _, _, _, address = socket.getaddrinfo(*self.address, type=self.kind)[0]  # type: ignore[assignment]
        sock = socket.socket(family, self.kind)
        try:
            sock.settimeout(TIMEOUT)
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        self._socket = sock
        return sock


class SyslogSink(SocketSink):
    """The local syslog, or one over UDP: facility local0, level info, tag gobanfast."""

    def __init__(self, address: tuple[str, int] | str = SYSLOG) -> None:
        super().__init__(address, socket.SOCK_DGRAM)

    def frame(self, line: bytes) -> bytes:
        """The datagram of a line, RFC 3164 without the time, which the daemon adds."""
        return b"<%d>gobanfast[%d]: %s" % (PRIORITY, os.getpid(), line)


class LoggingSink:
    """A logger of the standard library: a record a line at level INFO, from the log's own thread."""

    def __init__(self, name: str = "gobanfast.decisions") -> None:
        self.logger = logging.getLogger(name)

    def write(self, lines: list[bytes]) -> None:
        """See `Sink`."""
        for line in lines:
            self.logger.info("%s", line.decode())

    def close(self) -> None:
        """See `Sink`; handlers are the application's."""


def open_sink(uri: str) -> Sink:
    """The sink that a URI names. Nothing is opened before the first line.

    `stdout:`, `file:PATH`, `tcp://host:port`, `udp://host:port`, `unix:PATH`, `syslog:`, `syslog:PATH`,
    `syslog://host:port`, `logging:NAME`.

    Raises:
        ValueError: another URI.
    """
    scheme, colon, rest = uri.partition(":")
    parts = urlsplit(uri) if rest.startswith("//") else None
    where = (parts.hostname, parts.port) if parts is not None and parts.hostname and parts.port else None
    if colon and scheme == "stdout" and not rest:
        return StdoutSink()
    if scheme == "file" and rest:
        return FileSink(rest)
    if scheme in {"tcp", "udp"} and where:
        return SocketSink(where, socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM)
    if scheme == "unix" and rest:
        return SocketSink(rest)
    if colon and scheme == "syslog":
        return SyslogSink(where or rest or SYSLOG)
    if scheme == "logging" and rest:
        return LoggingSink(rest)
    raise ValueError(
        f"sink {uri!r} is not one; write stdout:, file:PATH, tcp://host:port, udp://host:port, unix:PATH, syslog: or "
        "logging:NAME"
    )


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
