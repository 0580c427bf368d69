"""Streaming decompression of logs: gzip, bzip2, xz and zstd, told by content, in a thread of its own."""

from __future__ import annotations

import bz2
import gzip
import importlib
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any

from gobanfast._errors import GobanError

PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip",
}  # fmt: skip
READ_BYTES = 1 << 18
AHEAD = 4  # pieces that wait for whoever reads them
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)

Read = Callable[[int], bytes]
_CRI = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) (?:stdout|stderr) ([FP]) ")


class LogError(GobanError):
    """A log that cannot be read as asked: no such column, a field that is no number. The text names the log."""


class DamagedError(Exception):
    """A packed stream that is cut short or no such stream; the text says what is wrong."""


def packer_of(start: bytes) -> str | None:
    """What packed a file that begins so; None: nothing that we know."""
    return next((packer for magic, packer in PACKED.items() if start.startswith(magic)), None)


def unpacked(stream: BufferedReader, name: str) -> Read:
    """`read1` of the plain bytes. It returns after one read of the file, so a fault loses nothing before it.

    Raises:
        LogError: it is packed by what we cannot unpack. The function: DamagedError.
    """
    packer = packer_of(stream.peek(6)[:6])
    if packer is None:
        return stream.read1
    if packer == "zip":
        raise LogError(f"{name}: it is packed by zip; unpack it first, and give the plain log or - for stdin")
    damaged: tuple[type[BaseException], ...] = DAMAGE
    if packer == "zstd":
        zstd = _zstd(name)
        read1, damaged = zstd.ZstdFile(stream).read1, (*DAMAGE, zstd.ZstdError)
    else:
        openers: dict[str, Any] = {"gzip": _gzip, "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile}
        read1 = openers[packer](stream).read1

    def read(nbytes: int) -> bytes:
        try:
            return bytes(read1(nbytes))
        except damaged as error:
            raise DamagedError(f"{packer} stream is damaged or cut short: {error}") from None

    return read


def _gzip(stream: BufferedReader) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=stream)


def _zstd(name: str) -> Any:
    try:
        return importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError:
        raise LogError(
            f"{name}: it is packed by zstd; install gobanfast[zstd], or give the output of zstd -dc, and - for stdin"
        ) from None


def unwrapped(read: Read, start: bytes) -> Read:
    """`read` of the lines that a container runtime wrapped: Docker's JSON, or the format of CRI (Kubernetes); a file
    that begins otherwise is read as it is."""
    docker = start.startswith((b'{"log":"', b'{"log": "'))
    inner = _docker if docker else _cri if _CRI.match(start) is not None else None
    if inner is None:
        return read
    rest, open_line = b"", b""

    def lines(nbytes: int) -> bytes:
        nonlocal rest, open_line
        while True:
            piece = read(nbytes)
            *whole, rest = (rest + piece).split(b"\n") if piece else [rest, b""]
            found = []
            for line in whole:
                text = inner(line) if line else b""
                open_line += text
                if text.endswith(b"\n") or not line:
                    found.append(open_line)
                    open_line = b""
            if found or not piece:
                last, open_line = (b"", open_line) if piece else (open_line, b"")
                return b"".join([*found, last])

    return lines


def _docker(line: bytes) -> bytes:
    try:
        text = json.loads(line)["log"]
    except (ValueError, LookupError, TypeError):
        return line + b"\n"
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else line + b"\n"


def _cri(line: bytes) -> bytes:
    found = _CRI.match(line)
    if found is None:
        return line + b"\n"
    return line[found.end() :] + (b"\n" if found[1] == b"F" else b"")


def ahead(read: Read) -> Iterator[bytes]:
    """The pieces that `read` returns, read by a thread that is at most AHEAD of them. It ends with the iterator."""
    pieces: Queue[bytes | BaseException] = Queue(AHEAD)
    done = Event()

    def put(piece: bytes | BaseException) -> bool:
        while not done.is_set():
            try:
                pieces.put(piece, timeout=0.2)
            except Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            while put(piece := read(READ_BYTES)) and piece:
                pass
        except BaseException as error:  # noqa: BLE001 - it is raised where the pieces are read
            put(error)

    thread = Thread(target=run, name="gobanfast-unpack", daemon=True)
    thread.start()
    try:
        while True:
            try:
                piece = pieces.get(timeout=1)
            except Empty:
                continue
            if isinstance(piece, BaseException):
                raise piece
            if not piece:
                return
            yield piece
    finally:
        done.set()
        thread.join()
