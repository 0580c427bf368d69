"""Shared memory of the workers of a host: a mapped file of slots, one a worker, without locks."""

import os

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from posix.unistd cimport getpid

from gobanfast._core.made cimport only_whole
from gobanfast._core.native.base cimport (
    GBF_SHARED_CONTENT, GBF_SHARED_HEADER, GBF_SHARED_NOTHING, gbf_shared_at, gbf_shared_claim, gbf_shared_leave,
    gbf_shared_nbytes, gbf_shared_owner, gbf_shared_read, gbf_shared_slot, gbf_shared_start, gbf_shared_write,
)

from gobanfast._core.shared_file import lives, open_file, owner_of
from gobanfast._errors import FormatError, GobanError

cdef enum:
    OWNER_PID = (1 << 22) - 1  # the pid in an owner, see shared_file.py


@cython.final
cdef class SharedSlots:
    """One worker's view of a file of slots: it publishes bytes in a slot of its own, and reads those of the others.

    A killed worker stops nobody: its slot is taken by the next one that needs one, and its bytes are read no more. The
    file is made where there is none, readable by its user alone.

    Args:
        path: see `shared_file.shared_path`.
        content: what the bytes are, and their version, in at most 16 bytes; a file of another content is refused.
        slots: how many workers there may be.
        room: bytes that one may publish.
    Raises:
        FormatError: the file is something else, cut short, or of another release.
        GobanError: the file belongs to another user, or others may write to it.
    Threads: one publishes; any number read. A forked child has no slot until it publishes.
    Source: csrc/DESIGN.md, "Shared memory".
    """
    cdef readonly str path
    cdef readonly uint32_t slots
    cdef readonly uint32_t room
    cdef uint32_t _slot_bytes
    cdef Py_buffer _view
    cdef object _map
    cdef tuple _identity  # device and inode of the file
    cdef uint64_t _owner  # this process, once it has a slot
    cdef Py_ssize_t _slot  # or -1
    cdef bint _closed

    @staticmethod
    def _make(path, *, bytes content not None, uint32_t slots=64, uint32_t room=65536):
        cdef SharedSlots made
        cdef uint32_t slot_bytes
        if not 1 <= len(content) <= GBF_SHARED_CONTENT:
            raise ValueError(f"content {content!r} has {len(content)} bytes; give 1 to {GBF_SHARED_CONTENT}")
        if not 1 <= slots <= 4096:
            raise ValueError(f"slots={slots} is out of range; give 1 to 4096")
        if not 1 <= room <= 1 << 28:
            raise ValueError(f"room={room} is out of range; give 1 to {1 << 28} bytes")
        slot_bytes = (room + 63) // 64 * 64 + 64
        name = os.path.abspath(os.fsdecode(path))
        mapped, identity = open_file(name, header_of(content, slots, slot_bytes), gbf_shared_nbytes(slots, slot_bytes))
        made = SharedSlots.__new__(SharedSlots)
        made._slot = -1
        made.path, made.slots, made.room, made._slot_bytes = name, slots, slot_bytes - 64, slot_bytes
        made._map, made._identity = mapped, identity
        PyObject_GetBuffer(mapped, &made._view, PyBUF_WRITABLE)
        return made

    def __dealloc__(self):
        if self._view.buf != NULL:
            self.leave()
            PyBuffer_Release(&self._view)

    def publish(self, bytes payload not None, /):
        """Puts `payload` where the others read it, in the place of what this worker published before.

        Raises:
            ValueError: it has more bytes than there is room for.
            GobanError: every slot belongs to a worker that lives, or the slots are closed.
        """
        if PyBytes_GET_SIZE(payload) > self.room:
            raise ValueError(f"payload has {len(payload)} bytes; give at most {self.room}")
        if self._closed:
            raise GobanError(f"{self.path}: closed")
        self.check()
        if self.mine() and self.write(payload):
            return
        self.claim()
        self.write(payload)

    def read(self):
        """[(slot, pid, payload)] of the workers that live and have published, this one included; by slot."""
        cdef uint32_t slot
        cdef uint64_t owner, nbytes
        cdef bytes space = PyBytes_FromStringAndSize(NULL, self.room)
        cdef char *out = PyBytes_AS_STRING(space)
        found = []
        self.check()
        for slot in range(self.slots):
            owner = gbf_shared_owner(self.at(slot))
            if owner == 0 or not lives(owner):
                continue
            nbytes = gbf_shared_read(self.at(slot), owner, out, self.room)
            if nbytes != GBF_SHARED_NOTHING:
                found.append((slot, owner & OWNER_PID, PyBytes_FromStringAndSize(out, nbytes)))
        return found

    @property
    def slot(self):
        """The slot of this worker; None before it publishes."""
        return self._slot if self.mine() and self._owner == gbf_shared_owner(self.at(self._slot)) else None

    @property
    def current(self):
        """Whether the path still leads to this file, and nobody cut it short; open a new one when it does not."""
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity and found.st_size == self._view.len

    def close(self):
        """Leaves this worker's slot to the others."""
        self._closed = True
        self.leave()

    cdef gbf_shared_slot *at(self, uint32_t slot) noexcept:
        return gbf_shared_at(self._view.buf, slot, self._slot_bytes)

    cdef bint mine(self) noexcept:
        """Whether this process took the slot: not the one that it was forked from."""
        return self._slot >= 0 and self._owner & OWNER_PID == <uint64_t>getpid()

    cdef int check(self) except -1:
        """Reading past the end of a file that was cut short would be a SIGBUS."""
        if self._map.size() < self._view.len:
            raise FormatError(self.path, self._map.size(), f"file was cut short; it had {self._view.len} bytes")
        return 0

    cdef int leave(self) noexcept:
        if self.mine():
            gbf_shared_leave(self.at(self._slot), self._owner)
        self._slot = -1
        return 0

    cdef int write(self, bytes payload) noexcept:
        return gbf_shared_write(
            self.at(self._slot), self._owner, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload)
        )

    cdef int claim(self) except -1:
        cdef uint64_t owner, before
        cdef uint32_t slot
        owner = owner_of(getpid())
        self._slot = -1
        for slot in range(self.slots):
            before = gbf_shared_owner(self.at(slot))
            if before != 0 and lives(before):
                continue
            if gbf_shared_claim(self.at(slot), before, owner):
                self._slot, self._owner = slot, owner
                return 0
        raise GobanError(f"{self.path}: all {self.slots} slots belong to workers that live")


cdef bytes header_of(bytes content, uint32_t slots, uint32_t slot_bytes):
    cdef uint8_t header[GBF_SHARED_HEADER]
    cdef bytes padded = content.ljust(GBF_SHARED_CONTENT, b"\0")
    gbf_shared_start(header, slots, slot_bytes, <const uint8_t *>PyBytes_AS_STRING(padded))
    return header[:GBF_SHARED_HEADER]


only_whole(SharedSlots)
