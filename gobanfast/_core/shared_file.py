"""Files and processes behind shared memory: the path of a host's file, its safe opening, the owner of a slot."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import stat
from contextlib import suppress

from gobanfast._digest import blake2b
from gobanfast._errors import FormatError, GobanError

PID_BITS = 22  # of an owner: a pid has no more (PID_MAX_LIMIT of the Linux kernel); the others are its start
PID = (1 << PID_BITS) - 1


def shared_path(name: str, directory: str | os.PathLike[str] | None = None) -> str:
    """Path of the shared file `name` of this user and host, in a directory; None: /dev/shm.

    A file is of one boot of one machine, and of one container: only there do process ids mean the same to all. Hosts
    that share a directory over a network have a file each.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) is None:
        raise ValueError(f"name {name!r} is not valid; give 1 to 64 letters, digits, - and _")
    where = os.uname().nodename.encode()
    with suppress(OSError):  # a sandbox may have neither
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            where += file.read()
        where += str(os.stat("/proc/self/ns/pid").st_ino).encode()
    host = blake2b(where, digest_size=6).hexdigest()
    folder = "/dev/shm" if directory is None else os.fspath(directory)  # noqa: S108 - a file of others is refused
    return os.path.join(folder, f"gobanfast-{os.geteuid()}-{name}-{host}")


_engines: dict[str, int] = {}  # how many engines of this process count by a path


def shared_limits(source: str | None, directory: str | os.PathLike[str] | None = None) -> str | None:
    """Path of the file in which the limits of rules from the file `source` count, None for rules from no file.

    Workers of a service load the same file and count together. Each further engine that a process makes of it counts by
    itself: the first of one worker with the first of the others.
    """
    if source is None or not os.path.isfile(source):
        return None
    name = blake2b(os.fsencode(os.path.realpath(source)), digest_size=8).hexdigest()
    number = _engines.get(name, 0)
    _engines[name] = number + 1
    return shared_path(f"limits-{name}-{number}", directory)


def open_file(path: str, header: bytes, nbytes: int) -> tuple[mmap.mmap, tuple[int, int]]:
    """(map, (device, inode)) of the file at `path`, which begins with `header`; made when there is none.

    Raises:
        FormatError: it has another header, or not so many bytes.
        GobanError: it is of another user, open to others, or no regular file.
    """
    for _ in range(100):
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            _make(path, header, nbytes)
            continue
        try:
            found = os.fstat(file)
            _check(path, file, found, header, nbytes)
            return mmap.mmap(file, nbytes), (found.st_dev, found.st_ino)
        finally:
            os.close(file)
    raise GobanError(f"{path}: the file is gone as soon as it is made")


def _make(path: str, header: bytes, nbytes: int) -> None:
    """Makes the file under another name, so that it is whole before it has this one."""
    made = f"{path}.{os.urandom(8).hex()}"
    file = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(file, nbytes)  # sparse: only what is written takes memory
        os.pwrite(file, header, 0)
        with suppress(FileExistsError):  # another worker was faster; both are the same
            os.link(made, path)
    finally:
        os.close(file)
        os.unlink(made)


def _check(path: str, file: int, found: os.stat_result, header: bytes, nbytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise GobanError(f"{path}: not a regular file")
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise GobanError(
            f"{path}: owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}; must be {os.geteuid()}, 0600"
        )
    start = os.pread(file, len(header), 0)
    if start != header:
        at = next((i for i, (one, other) in enumerate(zip(start, header, strict=False)) if one != other), len(start))
        raise FormatError(path, at, "not a shared file of this content, size and release")
    if found.st_size != nbytes:
        raise FormatError(path, found.st_size, f"file has {found.st_size} bytes, {nbytes} are needed")


def owner_of(pid: int) -> int:
    """What a process writes into its slot: its pid, and its start, because pids come round again."""
    started = _started(pid)
    if started is None or started < 0:
        raise GobanError(f"/proc does not tell when process {pid} started")
    return started << PID_BITS | pid


def lives(owner: int) -> bool:
    """Whether the process that wrote this lives; when /proc cannot tell, it does."""
    return _started(owner & PID) in {owner >> PID_BITS, -1}


def _started(pid: int) -> int | None:
    """When a process started, in ticks since boot; None: there is none, or it is a zombie; -1: nobody can tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in {b"Z", b"X"} else int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        return None
    except (OSError, IndexError, ValueError):
        return -1


def join_file(path: str, header: bytes, nbytes: int) -> tuple[mmap.mmap, int]:
    """(map, descriptor) of the file at `path`, which those who use it share as long as one of them does.

    Whoever comes when nobody else has it open gets it empty, so that nothing of an earlier run counts: a shared lock on
    the descriptor says that it is in use, and the kernel lets go of it when a process is killed. Raises as `open_file`.
    """
    for _ in range(100):
        try:
            mapped, identity = open_file(path, header, nbytes)
        except FormatError:
            if not _take_away(path):
                raise
            continue
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                fcntl.flock(file, fcntl.LOCK_SH)
            else:
                if any(mapped[len(header) : 2 * len(header)]):  # where whoever uses one begins to write
                    mapped[len(header) :] = bytes(nbytes - len(header))
                fcntl.flock(file, fcntl.LOCK_SH)
            found = os.stat(path, follow_symlinks=False)
            if (found.st_dev, found.st_ino) == identity:  # it was not taken away meanwhile
                return mapped, file
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        mapped.close()
    raise GobanError(f"{path}: taken away again and again")


def _take_away(path: str) -> bool:
    """Takes a file away of another format that nobody has open: killed workers of an earlier release, or of other
    settings, have left it. False: it is in use."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        leave_file(path, file)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def leave_file(path: str, file: int) -> None:
    """Takes the file away if nobody else uses it; the descriptor stays open, and the map as it is."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.stat(path, follow_symlinks=False)
        mine = os.fstat(file)
        if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
            os.unlink(path)
