"""Shared counter file of the workers of a host, so that any of them can report the sum.

The file is mapped; each worker owns a slot and writes a snapshot of its counters there, as JSON with a checksum. A
reader that meets a half-written slot sees a wrong checksum and reads again; nobody waits. Slot 0 holds what workers
counted that are gone: a dead worker's slot is added to it under a file lock, so sums never go down.

    header, 64 bytes: "GBFM", version, slots, bytes a slot; then the slots:
    pid u64 | start of the process u64 | bytes u32 | CRC-32 u32 | JSON

Each claim of a slot has a token of its own, in its snapshots: one process may have several slots (several engines), and
the same one twice. Slot 0 names the claim that was added last, so that none is added twice.
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gobanfast._errors import FormatError, GobanError

log = logging.getLogger("gobanfast.telemetry")

MAGIC, VERSION = b"GBFM", 1
HEADER, SLOT = struct.Struct("<4sIII"), struct.Struct("<QQII")
HEADER_BYTES = 64
SLOTS, SLOT_BYTES = 129, 1 << 18  # sparse: only what is written takes memory
ROOM = SLOT_BYTES - SLOT.size
TRIES = 50

Snapshot = dict[str, Any]
_inside = threading.RLock()  # among the SharedCounters of one process, which a file lock does not keep apart


def _renew() -> None:
    """For the child of a fork: a thread that it does not have may hold the lock."""
    global _inside  # noqa: PLW0603
    _inside = threading.RLock()


os.register_at_fork(after_in_child=_renew)
Add = Callable[[Snapshot, Snapshot], Snapshot]


class SharedCounters:
    """The shared file at `path`; made when it is not there. Best on a memory file system, such as /dev/shm or /run.

    Args:
        add: the sum of two snapshots, of what has to outlive a worker; {} is the empty one.
    Raises:
        FormatError: the file is something else, or of another release.
    """

    def __init__(self, path: str | os.PathLike[str], add: Add) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self._add = add
        self._slot: int | None = None
        self._token = ""  # of this claim of the slot
        self._lock = threading.RLock()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        try:
            with self._locked():
                self._map = self._open()
        except BaseException:
            os.close(self._file)
            raise

    def publish(self, snapshot: Snapshot) -> None:
        """Puts this worker's snapshot where the others read it.

        Raises:
            GobanError: every slot belongs to a worker that lives, or the snapshot is over 256 KB.
        """
        data = json.dumps({**snapshot, "claim": self._token}, separators=(",", ":")).encode()
        if len(data) > ROOM:
            raise GobanError(f"{self.path}: {len(data)} bytes of counters do not fit a slot of {ROOM}")
        with self._lock:
            if self._slot is None:
                self._token = secrets.token_hex(8)
                data = json.dumps({**snapshot, "claim": self._token}, separators=(",", ":")).encode()
                self._slot = self._claim()
            self._write(self._slot, os.getpid(), _started(os.getpid()), data)

    def others(self) -> list[Snapshot]:
        """The snapshots of the other workers that live, and that of all that are gone, which comes first."""
        with self._lock:
            found = [self._read(0)[2]]
            for slot in range(1, SLOTS):
                pid, started, snapshot = self._read(slot)
                if not pid or slot == self._slot:
                    continue
                if _started(pid) != started:
                    with self._locked():
                        pid, started, _ = self._read(slot)  # another worker may have taken it meanwhile
                        if pid and _started(pid) != started:
                            self._retire(slot)
                    found[0] = self._read(0)[2]
                else:
                    found.append(snapshot)
            return found

    def update_common(self, change: Callable[[Snapshot], Snapshot]) -> Snapshot:
        """Changes slot 0 under the file's lock; what it is then."""
        with self._locked():
            before = self._read(0)[2]
            after = change(before)
            if after != before:
                self._write(0, 0, 0, json.dumps(after, separators=(",", ":")).encode())
            return after

    def forked(self) -> None:
        """For the child of a fork: a slot of its own, later."""
        self._lock = threading.RLock()
        self._slot = None

    def close(self) -> None:
        """Leaves this worker's counts to the others and lets go of the file."""
        with self._locked():
            if self._slot is not None:
                self._retire(self._slot)
                self._slot = None
        self._map.close()
        with _inside:  # closing any descriptor of a file gives up all the locks that this process has on it
            os.close(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock, _inside:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _open(self) -> mmap.mmap:
        size, full = os.fstat(self._file).st_size, HEADER_BYTES + SLOTS * SLOT_BYTES
        if size == 0:
            os.ftruncate(self._file, full)
            os.pwrite(self._file, HEADER.pack(MAGIC, VERSION, SLOTS, SLOT_BYTES), 0)
        elif size != full or os.pread(self._file, HEADER.size, 0) != HEADER.pack(MAGIC, VERSION, SLOTS, SLOT_BYTES):
            raise FormatError(self.path, 0, f"not counters of version {VERSION}")
        return mmap.mmap(self._file, full)

    def _claim(self) -> int:
        with self._locked():
            for slot in range(1, SLOTS):
                pid, started, _ = self._read(slot)
                if pid and _started(pid) == started:
                    continue
                if pid:
                    self._retire(slot)
                self._write(slot, os.getpid(), _started(os.getpid()), b"{}")
                return slot
        raise GobanError(f"{self.path}: all {SLOTS - 1} slots belong to workers that live")

    def _retire(self, slot: int) -> None:
        """Adds a slot to what is gone. Killed in between, the next one sees that it was added and only clears it."""
        common = self._read(0)[2]
        place, token = common.get("last") or (0, "")
        if token and self._read(place)[2].get("claim") == token:
            self._write(place, 0, 0, b"{}")
        pid, _, snapshot = self._read(slot)
        if not pid:
            return
        if snapshot:  # else it was claimed, and nothing counted
            total = {**common, **self._add(common, snapshot), "last": [slot, snapshot.get("claim", "")]}
            self._write(0, 0, 0, json.dumps(total, separators=(",", ":")).encode()[:ROOM])
        self._write(slot, 0, 0, b"{}")

    def _write(self, slot: int, pid: int, started: int, data: bytes) -> None:
        at = HEADER_BYTES + slot * SLOT_BYTES
        self._map[at + SLOT.size : at + SLOT.size + len(data)] = data
        self._map[at : at + SLOT.size] = SLOT.pack(pid, started, len(data), zlib.crc32(data))

    def _read(self, slot: int) -> tuple[int, int, Snapshot]:
        at = HEADER_BYTES + slot * SLOT_BYTES
        for _ in range(TRIES):
            pid, started, length, crc = SLOT.unpack(self._map[at : at + SLOT.size])
            if not length:
                return pid, started, {}
            data = self._map[at + SLOT.size : at + SLOT.size + min(length, ROOM)]
            if zlib.crc32(data) == crc:
                return pid, started, json.loads(data)
            time.sleep(0.0005)
        log.warning(
            "%s: slot %d cannot be read and is left out", self.path, slot
        )  # its worker was killed while writing
        return pid, started, {}


def _started(pid: int) -> int:
    """When a process started, in ticks since boot; 0 when there is none. A number that came round again differs."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0 if os.path.isdir("/proc/self") else _alive(pid)
    return 0 if fields[0] in {b"Z", b"X"} else int(fields[19])


def _alive(pid: int) -> int:
    """Where there is no /proc: 1 for a process that lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return 0
    except PermissionError:
        pass
    return 1
