"""Slots of shared memory: whole payloads of workers that live, whoever was killed and whatever the file is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gobanfast import FormatError, GobanError
from gobanfast._core.shared import SharedSlots
from gobanfast._core.shared_file import shared_path

CONTENT = b"test 1"
Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return shared_path("t", tmp_path)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a worker on a file; waits for the line that it prints. All are killed in the end."""
    started = []

    def start(path: str, code: str, *, slots: int = 64, room: int = 65536) -> subprocess.Popen[str]:
        head = f"""
            import os, sys, time
            from gobanfast._core.shared import SharedSlots
            shared = SharedSlots(sys.argv[1], content={CONTENT!r}, slots={slots}, room={room})
        """
        text = textwrap.dedent(head) + textwrap.dedent(code)
        worker = subprocess.Popen([sys.executable, "-c", text, path], stdout=subprocess.PIPE, text=True)
        started.append(worker)
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.communicate()


SLEEPER = """
    shared.publish(b"%d" % os.getpid())
    print("ready", flush=True)
    time.sleep(600)
"""
WRITER = """
    at = 0
    shared.publish(bytes(60000))
    print("ready", flush=True)
    while True:
        at = (at + 1) % 256
        shared.publish(bytes([at]) * 60000)
"""


def kill(worker: subprocess.Popen[str]) -> None:
    worker.send_signal(signal.SIGKILL)
    worker.wait()


def test_what_is_published_is_read_by_all(path: str) -> None:
    """Each object has a slot, and the last thing that it published is what all read; any length up to the room."""
    shared = [SharedSlots(path, content=CONTENT, slots=4, room=100) for _ in range(3)]
    assert [] == shared[0].read()
    for i, one in enumerate(shared):
        assert None is one.slot
        one.publish(b"old")
        one.publish(bytes([i]) * (41 * i))

    expected = [(i, os.getpid(), bytes([i]) * (41 * i)) for i in range(3)]

    assert all(expected == one.read() for one in shared)
    assert [0, 1, 2] == [one.slot for one in shared]


def test_a_slot_is_left_and_taken(path: str) -> None:
    """`close` and the end of an object leave its slot; more workers than slots is an error."""
    one, other = (SharedSlots(path, content=CONTENT, slots=1) for _ in range(2))
    one.publish(b"a")
    with pytest.raises(GobanError, match="all 1 slots belong to workers that live"):
        other.publish(b"b")
    one.close()
    other.publish(b"b")

    assert [(0, os.getpid(), b"b")] == one.read()
    with pytest.raises(GobanError, match="closed"):
        one.publish(b"c")
    del other
    assert [] == one.read()


@pytest.mark.parametrize("killed", [0, 7, 15])
def test_a_killed_worker_stops_nobody(path: str, spawn: Spawn, killed: int) -> None:
    """Sixteen workers: the one that is killed is read no more, and its slot goes to the next that comes."""
    workers = [spawn(path, SLEEPER, slots=16) for _ in range(16)]
    shared = SharedSlots(path, content=CONTENT, slots=16)
    pids = {worker.pid for worker in workers}
    assert pids == {pid for _, pid, payload in shared.read() if payload == b"%d" % pid}

    kill(workers[killed])

    assert pids - {workers[killed].pid} == {pid for _, pid, _ in shared.read()}
    shared.publish(b"mine")
    assert 16 == len(shared.read())
    assert b"mine" == {pid: payload for _, pid, payload in shared.read()}[os.getpid()]


def test_killed_while_writing(path: str, spawn: Spawn) -> None:
    """Workers that do nothing but write are killed, again and again: what is read is whole, and the slot is taken."""
    shared = SharedSlots(path, content=CONTENT, slots=2)
    shared.publish(b"reader")
    for _ in range(12):
        worker = spawn(path, WRITER, slots=2)
        for _ in range(50):
            for slot, pid, payload in shared.read():
                assert (slot, pid, payload) == (0, os.getpid(), b"reader") or payload == payload[:1] * 60000
        kill(worker)
        assert [(0, os.getpid(), b"reader")] == shared.read()


def test_a_half_written_payload_is_skipped(path: str) -> None:
    """A sequence that stays odd, as a writer that was killed leaves it, is read by nobody, and ends with the next
    payload."""
    one, other = (SharedSlots(path, content=CONTENT, slots=2) for _ in range(2))
    one.publish(b"one")
    other.publish(b"other")
    with open(path, "r+b") as file:
        file.seek(64 + 8)
        file.write((5).to_bytes(8, "little"))

    assert [b"other"] == [payload for _, _, payload in other.read()]
    one.publish(b"again")
    assert [b"again", b"other"] == [payload for _, _, payload in other.read()]


def test_lengths_and_owners_of_a_file_are_not_trusted(path: str) -> None:
    """A length beyond the room, a payload that another one wrote, an owner that never lived: none is read."""
    shared = SharedSlots(path, content=CONTENT, slots=3, room=64)
    others = [SharedSlots(path, content=CONTENT, slots=3, room=64) for _ in range(3)]
    for other in others:
        other.publish(b"payload")
    with open(path, "r+b") as file:
        for slot, field, value in [(0, 24, 65), (1, 16, 1 << 40), (2, 0, 4_194_303)]:
            file.seek(64 + slot * 128 + field)
            file.write(value.to_bytes(8, "little"))

    assert [] == shared.read()


def test_another_process_with_the_pid_is_another_owner(path: str) -> None:
    """A pid that came round again has started later: the payload is not its own, and the slot is free."""
    shared = SharedSlots(path, content=CONTENT, slots=1)
    shared.publish(b"old")
    with open(path, "r+b") as file:
        owner = int.from_bytes(file.read()[64:72], "little")
        earlier = owner - (1 << 22)
        for field in (0, 16):
            file.seek(64 + field)
            file.write(earlier.to_bytes(8, "little"))
    later = SharedSlots(path, content=CONTENT, slots=1)

    assert [] == later.read()
    later.publish(b"new")
    assert [(0, os.getpid(), b"new")] == later.read()


def test_a_zombie_has_no_slot(path: str, spawn: Spawn) -> None:
    """A worker that ended, and whose parent has not asked yet, is dead."""
    worker = spawn(path, "shared.publish(b'x')\nprint('ready', flush=True)\nos.kill(os.getpid(), 9)")
    shared = SharedSlots(path, content=CONTENT)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)

    assert [] == shared.read()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_a_slot_of_its_own(path: str) -> None:
    """The parent's slot stays the parent's: published in the child, ended in the child."""
    shared = SharedSlots(path, content=CONTENT)
    shared.publish(b"parent")
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            inherited = shared.slot
            shared.publish(b"child")
            found = [payload for _, _, payload in shared.read()]
            os.write(writer, repr((inherited, shared.slot, found)).encode())
            shared.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert repr((None, 1, [b"parent", b"child"])) == os.read(reader, 1000).decode()
    assert [(0, os.getpid(), b"parent")] == shared.read()
    assert 0 == shared.slot


def test_threads_read_whole_payloads(path: str) -> None:
    """Of a writer in the same process, too."""
    shared, reader = SharedSlots(path, content=CONTENT), SharedSlots(path, content=CONTENT)
    torn, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            torn.extend(payload for _, _, payload in reader.read() if payload != payload[:1] * len(payload))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(300):
        shared.publish(bytes([i % 256]) * (65536 - i))
    stop.set()
    for thread in threads:
        thread.join()

    assert [] == torn


def test_workers_that_start_at_once_share_one_file(path: str, spawn: Spawn) -> None:
    """Whoever comes first makes the file, whole before it has its name; nothing else is left in the folder."""
    started = [threading.Thread(target=spawn, args=(path, SLEEPER)) for _ in range(8)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    shared = SharedSlots(path, content=CONTENT)

    assert 8 == len(shared.read())
    assert [Path(path).name] == [file.name for file in Path(path).parent.iterdir()]
    assert 0o600 == os.stat(path).st_mode & 0o777


def damaged(path: str, how: Callable[[bytearray], None]) -> str:
    SharedSlots(path, content=CONTENT, slots=2, room=64)
    data = bytearray(Path(path).read_bytes())
    how(data)
    Path(path).write_bytes(data)
    return path


def cut(n: int) -> Callable[[bytearray], None]:
    def how(data: bytearray) -> None:
        del data[n:]

    return how


def put(at: int, value: int) -> Callable[[bytearray], None]:
    def how(data: bytearray) -> None:
        data[at] = value

    return how


@pytest.mark.parametrize("how", [cut(0), cut(63), cut(64), cut(319), *(put(at, 200) for at in (0, 4, 8, 12, 16, 40))])
def test_a_foreign_or_truncated_file_is_refused(path: str, how: Callable[[bytearray], None]) -> None:
    with pytest.raises(FormatError, match=r"at offset \d+"):
        SharedSlots(damaged(path, how), content=CONTENT, slots=2, room=64)


@pytest.mark.parametrize("other", [{"content": b"test 2"}, {"slots": 3}, {"room": 65}])
def test_a_file_of_another_layout_is_refused(path: str, other: dict[str, object]) -> None:
    layout: dict[str, object] = {"content": CONTENT, "slots": 2, "room": 64}
    kept = SharedSlots(path, **layout)
    with pytest.raises(FormatError, match="not a shared file of this content, size and release"):
        SharedSlots(path, **{**layout, **other})
    assert kept.current


def test_a_file_cut_short_meanwhile_is_an_error(path: str) -> None:
    """And no SIGBUS; one that was deleted or replaced is not current."""
    shared = SharedSlots(path, content=CONTENT)
    shared.publish(b"x")
    os.truncate(path, 100)

    assert not shared.current
    for call in (shared.read, lambda: shared.publish(b"y")):
        with pytest.raises(FormatError, match="was cut short"):
            call()
    os.unlink(path)
    assert not shared.current
    anew = SharedSlots(path, content=CONTENT)
    assert anew.current
    assert not shared.current


def test_files_that_others_can_write_are_refused(path: str, tmp_path: Path) -> None:
    """Neither a file that is open to others, nor a link, nor a folder or FIFO."""
    SharedSlots(path, content=CONTENT)
    os.chmod(path, 0o620)
    with pytest.raises(GobanError, match="mode 0620; must be"):
        SharedSlots(path, content=CONTENT)
    link, fifo = tmp_path / "link", tmp_path / "fifo"
    link.symlink_to(path)
    os.mkfifo(fifo, 0o600)
    with pytest.raises(OSError, match="symbolic"):
        SharedSlots(link, content=CONTENT)
    with pytest.raises(GobanError, match="not a regular file"):
        SharedSlots(fifo, content=CONTENT)


def test_paths_are_of_a_user_a_host_and_a_name(tmp_path: Path) -> None:
    default = Path(shared_path("rates"))

    assert Path("/dev/shm") == default.parent  # noqa: S108
    assert default.name.startswith(f"gobanfast-{os.geteuid()}-rates-")
    assert tmp_path / default.name == Path(shared_path("rates", tmp_path))
    for name in ("", "a/b", "..", "x" * 65, "a b"):
        with pytest.raises(ValueError, match="is not valid"):
            shared_path(name)


def test_two_hosts_in_one_directory_keep_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spawn: Spawn) -> None:
    """As over a network file system: pids of the other host mean nothing here, so it has a file of its own."""
    here = shared_path("rates", tmp_path)
    uname = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((uname[0], "elsewhere", *uname[2:])))
    there = shared_path("rates", tmp_path)
    pids = {path: {spawn(path, SLEEPER).pid for _ in range(4)} for path in (here, there)}

    assert here != there
    for path in (here, there):
        assert pids[path] == {pid for _, pid, _ in SharedSlots(path, content=CONTENT).read()}


def test_two_services_keep_apart(tmp_path: Path, spawn: Spawn) -> None:
    """Two files with workers each: none sees the other's, whoever is killed."""
    paths = [shared_path(name, tmp_path) for name in ("one", "two")]
    workers = {path: [spawn(path, SLEEPER) for _ in range(3)] for path in paths}
    kill(workers[paths[0]].pop())

    for path in paths:
        expected = {worker.pid for worker in workers[path]}
        assert expected == {pid for _, pid, _ in SharedSlots(path, content=CONTENT).read()}


@pytest.mark.parametrize(
    ("layout", "message"),
    [({"content": b""}, "has 0 bytes"), ({"content": b"x" * 17}, "has 17 bytes"), ({"slots": 0}, "slots=0"),
     ({"slots": 4097}, "slots=4097"), ({"room": 0}, "room=0")],
)  # fmt: skip
def test_layouts_that_cannot_be_are_refused(path: str, layout: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SharedSlots(path, **{"content": CONTENT, **layout})
    assert not os.path.exists(path)


def test_what_does_not_fit_is_refused(path: str) -> None:
    shared = SharedSlots(path, content=CONTENT, room=64)
    shared.publish(bytes(64))
    with pytest.raises(ValueError, match="payload has 65 bytes; give at most 64"):
        shared.publish(bytes(65))
