"""Sinks of decision log lines. All are called by the log's one thread; what fails raises OSError."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

TIMEOUT = 2.0  # seconds for a socket
STALL = 60.0  # seconds after which a connection that takes nothing is opened anew
LOCK_SECONDS = 0.25  # that the lock of a file is waited for
SYSLOG = "/dev/log"
PRIORITY = 16 * 8 + 6  # local0.info, RFC 3164
PASSING = {errno.EMSGSIZE, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}  # errors of a datagram that its socket outlives


class Sink(Protocol):
    """Takes whole lines."""

    def write(self, lines: list[bytes]) -> int | None:
        """Number of lines taken, from the first on, each passed without its line feed; None: all.

        Raises:
            OSError: nothing was taken for certain; the log tries again. With errno EMSGSIZE the first line is too long:
                the log makes it shorter. Any other exception blames the line, which is dropped after a few tries.
        """

    def close(self) -> None:
        """Lets go of what is open; a later write opens it again."""


class StdoutSink:
    """Standard output, by its descriptor. What is left of a line that it took in part goes first the next time."""

    def __init__(self) -> None:
        self._rest = b""

    def write(self, lines: list[bytes]) -> int | None:
        """See `Sink`."""
        taken, self._rest, error = write_lines(1, self._rest, lines)
        return settled(taken, error)

    def close(self) -> None:
        """See `Sink`; standard output stays open."""


class FileSink:
    """A file that grows. Several processes may share it: a batch of lines is one write at its end, under a lock.

    Before each write the name is looked at: when it leads to another file (log rotation), that one is opened. A line
    that was written in part, because the disk is full, is cut off again; where that cannot be, its rest goes first the
    next time. A torn line that a killed process left is ended before ours.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._file = self._process = -1
        self._inode = (0, 0)
        self._rest = b""  # of a line whose beginning could not be cut off
        self._end = 0  # where that ended

    def write(self, lines: list[bytes]) -> int | None:
        """See `Sink`."""
        try:
            found = os.stat(self.path)
            here = found.st_dev, found.st_ino
        except FileNotFoundError:
            here = 0, 0
        new = self._file < 0 or here != self._inode or self._process != os.getpid()
        if new:
            self.close()
            self._file, self._process = open_to_append(self.path), os.getpid()
            found = os.fstat(self._file)
            self._inode = found.st_dev, found.st_ino
        with locked(self._file):
            found = os.fstat(self._file)
            before, regular = found.st_size, stat.S_ISREG(found.st_mode)
            if self._rest and regular and before != self._end:
                self._rest = b"\n"  # others wrote behind the torn line
            if new and regular and before and read_at(self._file, before - 1, 1) not in {b"", b"\n"}:
                self._rest = b"\n"
            taken, rest, error = write_lines(self._file, self._rest, lines)
            if rest and taken and regular and self._cut_off(before):
                taken, rest = taken - 1, b""
            self._rest = rest
            if rest:
                self._end = os.fstat(self._file).st_size
        return settled(taken, error)

    def _cut_off(self, before: int) -> bool:
        """Whether the torn line at the end, which began at or after `before`, is gone."""
        written = read_at(self._file, before, os.fstat(self._file).st_size - before)
        try:
            os.truncate(self._file, before + written.rfind(b"\n") + 1)
        except OSError:
            return False
        return bool(written)

    def close(self) -> None:
        """See `Sink`."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._rest = -1, b""


class SocketSink:
    """Lines over TCP or a UNIX stream socket, or one datagram a line over UDP."""

    def __init__(self, address: tuple[str, int] | str, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self.address, self.kind = address, kind
        self._socket: socket.socket | None = None
        self._torn = self._rest = b""  # the line that a connection took in part, and what is left of it
        self._moved = 0.0  # when a connection last took something

    def write(self, lines: list[bytes]) -> int | None:
        """See `Sink`."""
        return self._stream(lines) if self.kind == socket.SOCK_STREAM else self._datagrams(lines)

    def _stream(self, lines: list[bytes]) -> int | None:
        sock = self._socket
        if sock is None or is_over(sock):
            self.close()
            sock = self._connect()
            self._rest, self._moved = self._torn, time.monotonic()  # a new connection gets the whole line
        data = self._rest + b"\n".join(lines) + b"\n"
        done = 0
        try:
            while done < len(data):
                done += sock.send(memoryview(data)[done : done + 65536])
            self._torn = self._rest = b""
        except TimeoutError as error:
            now = time.monotonic()
            if done:
                self._moved = now
            elif now - self._moved > STALL:
                self.close()
                raise
            begun = data.rfind(b"\n", 0, done) + 1
            taken, rest = progress(data, len(self._rest), done)
            if not rest:
                self._torn = b""
            elif begun >= len(self._rest):
                self._torn = data[begun : data.index(b"\n", done) + 1]
            self._rest = rest
            return settled(taken, error)
        except OSError:
            self.close()
            raise
        self._moved = time.monotonic()
        return None

    def _datagrams(self, lines: list[bytes]) -> int | None:
        sock = self._socket or self._connect()
        for number, line in enumerate(lines):
            try:
                sock.send(self.frame(line))
            except OSError as error:
                if error.errno not in PASSING and not isinstance(error, TimeoutError):
                    self.close()
                if error.errno == errno.ECONNREFUSED and not isinstance(self.address, str):
                    number = max(0, number - 1)  # noqa: PLW2901 - the error tells of the datagram before
                if number:
                    return number
                raise
        return None

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

    def write(self, lines: list[bytes]) -> int | None:
        """See `Sink`. Where a handler raises, the lines before are taken."""
        for number, line in enumerate(lines):
            try:
                self.logger.info("%s", line.decode())
            except Exception:
                if number:
                    return number
                raise
        return None

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
        f"sink {uri!r} is not a sink address; write stdout:, file:PATH, tcp://host:port, udp://host:port, unix:PATH, "
        "syslog: or logging:NAME"
    )


def write_lines(file: int, rest: bytes, lines: list[bytes]) -> tuple[int, bytes, OSError | None]:
    """(lines taken, what is left of a torn one, error) of writing `rest` and then the lines.

    A line that was written in part counts as taken: its rest is owed.
    """
    data = rest + b"\n".join(lines) + b"\n"
    done = 0
    try:
        while done < len(data):
            done += os.write(file, memoryview(data)[done:])
    except OSError as error:
        return *progress(data, len(rest), done), error
    return len(lines), b"", None


def progress(data: bytes, rest: int, done: int) -> tuple[int, bytes]:
    """(lines taken, what is left of a torn one) after `done` bytes of data, the first `rest` of which were owed."""
    if done == 0:
        return 0, data[:rest]
    torn = b"" if data[done - 1] == 10 else data[done : data.index(b"\n", done) + 1]
    return data.count(b"\n", rest, done) + (bool(torn) and done > rest), torn


def settled(taken: int, error: OSError | None) -> int | None:
    """What `Sink.write` returns: an error waits for the next write where lines were taken before it."""
    if error is None:
        return None
    if not taken:
        raise error
    return taken


@contextmanager
def locked(file: int) -> Iterator[None]:
    """Keeps other processes that log into this file out; without the lock where it cannot be had in time."""
    import fcntl

    until = time.monotonic() + LOCK_SECONDS
    held = False
    while not held:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            if time.monotonic() > until:
                break
            time.sleep(0.002)
        except OSError:  # a file system, or a pipe, that has no locks
            break
    try:
        yield
    finally:
        if held:
            fcntl.flock(file, fcntl.LOCK_UN)


def open_to_append(path: Path) -> int:
    """Descriptor of a file to append to; one that can be read, too, where that is allowed."""
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_RDWR, 0o640)
    except PermissionError:
        return os.open(path, flags | os.O_WRONLY, 0o640)


def read_at(file: int, at: int, nbytes: int) -> bytes:
    """Bytes of a file; none where it cannot be read."""
    try:
        return os.pread(file, nbytes, at)
    except OSError:
        return b""


def is_over(sock: socket.socket) -> bool:
    """Whether the peer of a stream has closed it: what is sent then is lost without a word."""
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
    finally:
        sock.settimeout(TIMEOUT)
