"""bpf(2) by ctypes: maps, programs, links and pins, without libbpf.

The shipped program needs neither BTF nor CO-RE, so what libbpf would add is a library to install and an ABI that no
type checker sees. The kernel checks what it is given either way; here every attribute is one `struct.pack`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator

from gobanfast._errors import GobanError

SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "i686": 357, "armv7l": 386}
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROGRAM_LOAD, PIN, GET = range(8)
TEST_RUN, INFO, LOOKUP_BATCH, UPDATE_BATCH, DELETE_BATCH, LINK_CREATE, LINK_UPDATE, LINK_DETACH = (
    10, 15, 24, 26, 27, 28, 29, 34,
)  # fmt: skip
XDP_PROGRAM, XDP_ATTACH = 6, 37
GENERIC, NATIVE = 2, 4
HAS_PARTS = 32  # BPF_F_XDP_HAS_FRAGS
UNSUPPORTED = 524  # ENOTSUPP, which has no name outside the kernel
ATTRIBUTES = 128
LOG = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class KernelError(GobanError):
    """What the Linux kernel cannot do or does not permit here; `errno` is how it refused, 0 where it was not asked."""

    def __init__(self, message: str, number: int = 0) -> None:
        self.errno = number
        super().__init__(message)


def bpf(command: int, attributes: bytes) -> int:
    """What bpf(2) returns. Raises OSError."""
    return _call(command, ctypes.create_string_buffer(attributes, max(ATTRIBUTES, len(attributes))))


def _call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    number = SYSCALL.get(platform.machine())
    if number is None or sys.byteorder != "little":
        raise KernelError(f"bpf(2) is not known for {platform.machine()}; use nftables (--nft)")
    done: int = _libc.syscall(number, command, attributes, len(attributes))
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code) if code != UNSUPPORTED else "not supported")
    return done


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


class Map:
    """One map, by its descriptor, which closes with it.

    Attributes:
        name, key_bytes, value_bytes, entries: as it was declared.
    """

    def __init__(self, fd: int, name: str, key_bytes: int, value_bytes: int, entries: int) -> None:
        self.fd, self.name = fd, name
        self.key_bytes, self.value_bytes, self.entries = key_bytes, value_bytes, entries

    @classmethod
    def make(cls, name: str, kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int) -> Map:
        """A new map."""
        head = struct.pack("<5I", kind, key_bytes, value_bytes, entries, flags)
        try:
            fd = bpf(MAP_CREATE, head + struct.pack("<2I", 0, 0) + name.encode()[:15])
        except OSError as error:
            raise KernelError(refusal(f"map {name} cannot be made", error), error.errno or 0) from None
        return cls(fd, name, key_bytes, value_bytes, entries)

    @classmethod
    def pinned(cls, path: str, name: str) -> Map:
        """The map that is pinned there. Raises OSError."""
        fd = get_pinned(path)
        _, _, key_bytes, value_bytes, entries = struct.unpack_from("<5I", info(fd))
        return cls(fd, name, key_bytes, value_bytes, entries)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; of a map per CPU those of all of them, see `cpus`."""
        size = self.value_bytes if self.name != "counts" else self.value_bytes * cpus()
        value, keyed = ctypes.create_string_buffer(size), ctypes.create_string_buffer(key, len(key))
        try:
            bpf(MAP_LOOKUP, struct.pack("<IxxxxQQQ", self.fd, _address(keyed), _address(value), 0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Sets one value. Raises OSError: E2BIG where the map is full."""
        keyed, valued = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
        bpf(MAP_UPDATE, struct.pack("<IxxxxQQQ", self.fd, _address(keyed), _address(valued), 0))

    def delete(self, key: bytes) -> bool:
        """Whether there was such a key, which is no more."""
        keyed = ctypes.create_string_buffer(key, len(key))
        try:
            bpf(MAP_DELETE, struct.pack("<IxxxxQQQ", self.fd, _address(keyed), 0, 0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def put_many(self, keys: bytes, values: bytes) -> int:
        """How many of the packed keys were set: all, or those before the first that had no room (E2BIG)."""
        count = len(keys) // self.key_bytes
        if not count:
            return 0
        keyed, valued = ctypes.create_string_buffer(keys, len(keys)), ctypes.create_string_buffer(values, len(values))
        attributes = self._batch(0, 0, _address(keyed), _address(valued), count)
        try:
            _call(UPDATE_BATCH, attributes)
        except OSError as error:
            if error.errno in {errno.E2BIG, errno.ENOSPC}:
                done: int = struct.unpack_from("<I", attributes, 32)[0]
                return done
            if error.errno not in {UNSUPPORTED, errno.EINVAL, errno.EOPNOTSUPP}:
                raise
            return self._put_each(keys, values, count)
        return count

    def _put_each(self, keys: bytes, values: bytes, count: int) -> int:
        for i in range(count):
            key = keys[i * self.key_bytes : (i + 1) * self.key_bytes]
            try:
                self.put(key, values[i * self.value_bytes : (i + 1) * self.value_bytes])
            except OSError as error:
                if error.errno not in {errno.E2BIG, errno.ENOSPC}:
                    raise
                return i
        return count

    def delete_many(self, keys: bytes) -> int:
        """How many of the packed keys were there, and are no more."""
        size = self.key_bytes
        return sum(self.delete(keys[i : i + size]) for i in range(0, len(keys), size))

    def items(self, at_once: int = 16384) -> Iterator[tuple[bytes, bytes]]:
        """Packed keys and values, `at_once` or fewer at a time; what changes meanwhile may be in it or not."""
        keys = ctypes.create_string_buffer(at_once * self.key_bytes)
        values = ctypes.create_string_buffer(at_once * self.value_bytes)
        cursors = [ctypes.create_string_buffer(max(self.key_bytes, 8)) for _ in range(2)]
        first, ended = True, False
        while not ended:
            start = 0 if first else _address(cursors[0])
            attributes = self._batch(start, _address(cursors[1]), _address(keys), _address(values), at_once)
            try:
                _call(LOOKUP_BATCH, attributes)
            except OSError as error:
                if error.errno in {UNSUPPORTED, errno.EINVAL, errno.EOPNOTSUPP} and first:
                    yield from self._each()
                    return
                if error.errno != errno.ENOENT:
                    raise
                ended = True
            (count,) = struct.unpack_from("<I", attributes, 32)
            if count:
                yield keys.raw[: count * self.key_bytes], values.raw[: count * self.value_bytes]
            cursors.reverse()
            first = False

    def _each(self) -> Iterator[tuple[bytes, bytes]]:
        before: bytes | None = None
        while True:
            following = ctypes.create_string_buffer(self.key_bytes)
            keyed = None if before is None else ctypes.create_string_buffer(before, len(before))
            start = 0 if keyed is None else _address(keyed)
            try:
                bpf(MAP_NEXT_KEY, struct.pack("<IxxxxQQ", self.fd, start, _address(following)))
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            before = following.raw
            value = self.get(before)
            if value is not None:
                yield before, value

    def _batch(self, start: int, end: int, keys: int, values: int, count: int) -> ctypes.Array[ctypes.c_char]:
        packed = struct.pack("<QQQQIIQQ", start, end, keys, values, count, self.fd, 0, 0)
        return ctypes.create_string_buffer(packed, ATTRIBUTES)

    def memory(self) -> int:
        """Bytes that the map takes in the kernel, as it says itself; 0 where it does not."""
        with open(f"/proc/self/fdinfo/{self.fd}", encoding="ascii") as file:
            for line in file:
                if line.startswith("memlock:"):
                    return int(line.split()[1])
        return 0

    def close(self) -> None:
        """Closes the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def load_program(name: str, code: bytes, terms: bytes, flags: int) -> int:
    """Descriptor of an XDP program, which the verifier has accepted."""
    instructions, licensed = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(terms)
    log = ctypes.create_string_buffer(LOG)
    counted = len(code) // 8
    for level in (0, 1):  # the verifier's log costs time, and is only of use where it refuses
        attributes = struct.pack(
            "<IIQQIIQII16sII", XDP_PROGRAM, counted, _address(instructions), _address(licensed), level, LOG * level,
            _address(log) * level, 0, flags, name.encode()[:15], 0, 0,
        )  # fmt: skip
        try:
            return bpf(PROGRAM_LOAD, attributes)
        except OSError as error:
            if level or error.errno in {errno.EPERM, errno.ENOSYS}:
                last = log.value.decode(errors="replace").strip().splitlines()[-3:]
                told = f" ({' / '.join(last)})" if last else ""
                text = refusal("the XDP program is not accepted", error) + told
                raise KernelError(text, error.errno or 0) from None
    raise AssertionError


def link_xdp(program: int, interface: int, mode: int) -> int:
    """Descriptor of a link that holds the program at an interface. Raises OSError."""
    return bpf(LINK_CREATE, struct.pack("<IIII", program, interface, XDP_ATTACH, mode))


def replace_program(link: int, program: int) -> None:
    """Makes a link run another program, between two packets. Raises OSError."""
    bpf(LINK_UPDATE, struct.pack("<IIII", link, program, 0, 0))


def detach(link: int) -> None:
    """Takes the program from the interface, whoever holds the link. Raises OSError."""
    bpf(LINK_DETACH, struct.pack("<I", link))


def linked_interface(link: int) -> int:
    """Index of the interface of a link; 0 when it is gone."""
    index: int = struct.unpack_from("<I", info(link), 16)[0]  # after type, id and program, each 4 bytes, and padding
    return index


def pin(fd: int, path: str) -> None:
    """Keeps an object at a path of a bpffs. Raises OSError."""
    named = ctypes.create_string_buffer(os.fsencode(path))
    bpf(PIN, struct.pack("<QII", _address(named), fd, 0))


def get_pinned(path: str) -> int:
    """Descriptor of the object that is pinned at a path. Raises OSError."""
    named = ctypes.create_string_buffer(os.fsencode(path))
    return bpf(GET, struct.pack("<QII", _address(named), 0, 0))


def info(fd: int) -> bytes:
    """struct bpf_*_info of a descriptor. Raises OSError."""
    told = ctypes.create_string_buffer(256)
    bpf(INFO, struct.pack("<IIQ", fd, len(told), _address(told)))
    return told.raw


def run_frame(program: int, frame: bytes, repeat: int = 1) -> tuple[int, int]:
    """(XDP action, ns of a run on average) for a frame, without a network; BPF_PROG_TEST_RUN. Raises OSError."""
    given, out = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(len(frame) + 256)
    packed = struct.pack(
        "<IIIIQQII", program, 0, len(frame), len(out), _address(given), _address(out), repeat, 0
    )  # fmt: skip
    attributes = ctypes.create_string_buffer(packed, ATTRIBUTES)
    _call(TEST_RUN, attributes)
    action: int = struct.unpack_from("<I", attributes, 4)[0]
    duration: int = struct.unpack_from("<I", attributes, 36)[0]
    return action, duration


def cpus() -> int:
    """CPUs that the kernel may have, so as many values has a map per CPU."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        return sum(
            int(last or first) - int(first) + 1
            for first, _, last in (part.partition("-") for part in file.read().strip().split(","))
        )


def refusal(what: str, error: OSError) -> str:
    """A message for what bpf(2) refused, with what usually helps."""
    hints = {
        errno.EPERM: (
            "it needs CAP_BPF and CAP_NET_ADMIN (before Linux 5.18 CAP_PERFMON, too), and no lockdown of the kernel; "
            "or use nftables (--nft)"
        ),
        errno.ENOSYS: "this kernel has no bpf(2); use nftables (--nft)",
        errno.EINVAL: "this kernel is older than 5.9, or built without it; use nftables (--nft)",
        errno.ENOMEM: "no memory for it; lower --capacity",
        errno.EBUSY: (
            "another XDP program is attached there; ip link show says which, ip link set dev NAME xdp off takes it away"
        ),
        errno.EOPNOTSUPP: "the driver cannot do it in this mode; --attach generic always works",
    }
    hint = hints.get(error.errno or 0)
    return f"{what}: {error.strerror}" + (f"; {hint}" if hint else "")
