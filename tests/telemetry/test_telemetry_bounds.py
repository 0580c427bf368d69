"""The decision log under floods, full disks and sinks that stall or refuse: little memory, whole lines, it goes on."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import socket
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset
from gobanfast._core.log_queue import Budget, weigh
from gobanfast.telemetry import lines as made
from gobanfast.telemetry import log as log_module
from gobanfast.telemetry import sinks
from gobanfast.telemetry.log import DecisionLog
from gobanfast.telemetry.sinks import FileSink, SocketSink, StdoutSink, SyslogSink
from stores_fakes import WAIT, eventually
from test_telemetry_log import RULES, Kept, fits  # noqa: F401 - a fixture

BANNED = "198.51.100.7"


@pytest.fixture(scope="module")
def engine():
    return Engine(Ruleset.from_text(RULES, source="rules.yaml"))


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(log_module, "PAUSE", 0.01)


def asgi(size):
    return {"headers": [(b"host", b"a"), (b"user-agent", b"x" * size)]}


def cookies(size):
    return {"headers": [(b"cookie", b"x" * size)]}


def many(size):
    return {"headers": [(b"a%d" % number, b"") for number in range(size // 64)]}


def environ(size):
    return {"headers": {"HTTP_USER_AGENT": "x" * size, "wsgi.input": bytearray(size), "PATH_INFO": "/"}}


def small_environ(size):
    return {"headers": {"HTTP_USER_AGENT": "x", "wsgi.input": bytearray(size)}}


def path(size):
    return {"path": "/" + "x" * size}


def name(size):
    return {"sni": "x" * size}


@pytest.mark.parametrize("request_of", [asgi, cookies, many, environ, small_environ, path, name])
def test_a_queued_decision_keeps_little_of_a_long_request(request_of, engine, kept):
    """While the sink stalls, 64 KB and 1 MB of headers, path, name or body of each request are not kept alive."""
    kept.gate.clear()
    log = DecisionLog(kept)
    log.observe(engine.decide(BANNED))
    assert eventually(lambda: not log._queue)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for size, count in ((65_000, 200), (1_000_000, 10)):
            for _ in range(count):
                assert log.observe(engine.decide(BANNED, **request_of(size)))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    waiting = log.health()
    kept.gate.set()
    assert log.flush(WAIT)
    log.close()

    assert after - before < 210 * 2 * made.KEEP
    assert 0.3 * (after - before) < waiting["queue_bytes"] < 210 * 2 * made.KEEP
    assert 0 == log.health()["queue_bytes"] == log.dropped


def test_the_queue_is_bounded_in_bytes(engine, kept, caplog):
    """What is over `queue_bytes` is dropped, counted, told by a line and logged, and not once for each."""
    kept.gate.clear()
    log = DecisionLog(kept, queue_bytes=200_000)
    ids = [log.observe(engine.decide(BANNED, **asgi(3000))) for _ in range(500)]
    waiting = log.health()
    kept.gate.set()
    assert log.flush(WAIT)
    log.close()

    assert waiting["queue_bytes"] <= 200_000 == waiting["queue_bytes_room"]
    assert log.dropped == ids.count(None) > 400
    assert ids.count(None) == sum(line["dropped"] for line in kept.lines if line["kind"] == "dropped")
    assert [name for name in ids if name] == [line["id"] for line in kept.lines if line["kind"] == "decision"]
    assert 1 == sum("is full" in text for text in caplog.messages)


def test_a_budget_is_exact():
    """Threads that take and give at once leave nothing behind and never pass the limit."""
    budget, over = Budget(1000), []

    def work():
        for _ in range(5000):
            if budget.take(300):
                over.append(budget.used > 1000 + 3 * 300)  # others may be about to give back what they did not get
                budget.give(300)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

    assert (0, False) == (budget.used, any(over))
    assert [True, False, True] == [budget.take(1000), budget.take(1), budget.take(0)]


def test_weighing_stops_at_its_limit():
    """Ten thousand headers are not all looked at, and each counts more than its text."""
    assert weigh([(b"", b"")] * 10_000, (), 5000) < 6000
    assert weigh(None, ("ab", None, b"c"), 10) + 10 == weigh(None, ("a" * 10, "abc"), 10)


@given(
    value=st.text(max_size=50) | st.sampled_from("\0\x85\u2028\u2029\x7f\u202e\ufeff\xff"),
    times=st.sampled_from([1, 100, 5000, 100_000]),
    where=st.sampled_from(["path", "sni", "method", "user-agent", "many", "name", "address", "id"]),
)
def test_any_line_is_short_whole_and_printable(value, times, where, engine, fits):  # noqa: F811
    """Whatever a request holds, its line is one line for any reader, at most 16 KB, and what was cut is named."""
    text, lines = value * times, []

    class Bytes(Kept):
        def write(self, given):
            lines.extend(given)

    raw = text.encode("utf-8", "surrogatepass")
    signals = {
        "path": {"path": text}, "sni": {"sni": text}, "method": {"method": text}, "address": {}, "id": {},
        "user-agent": {"headers": [(b"user-agent", raw)]}, "many": {"headers": [(b"a", raw[:40])] * times},
        "name": {"headers": [(raw, b"x")]},
    }[where]  # fmt: skip
    log = DecisionLog(Bytes(), sample_allow=1)
    log.observe(
        engine.decide(text if where == "address" else BANNED, **signals), request_id=text if where == "id" else None
    )
    assert log.flush(WAIT)
    log.close()
    line = lines[0].decode()

    assert len(lines[0]) <= made.LINE
    assert [line] == line.splitlines()
    assert not re.search("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", line)
    told = json.loads(line)
    fits(told)
    if len(raw) > 2 * made.LINE:
        assert told["signals"]["cut"]


def test_what_is_cut_is_marked(engine, kept):
    """A line names each value that is shorter than it was, with its length, and how many headers are left out."""
    log = DecisionLog(kept)
    log.observe(engine.decide(BANNED, path="/" + "p" * 5000, headers=[(b"User-Agent", b"u" * 6000), (b"host", b"a")]))
    log.observe(engine.decide(BANNED, headers=[(b"a", b"b")] * 5000))
    log.observe(engine.decide(BANNED, headers=[(b"user-agent", b"u")]))
    assert log.flush(WAIT)
    log.close()
    one, two, three = (line["signals"] for line in kept.lines)

    assert {"path": 5001, "header user-agent": 6000} == one["cut"]
    assert ("/" + "p" * 4095, [["User-Agent", "u" * 4096], ["host", "a"]]) == (one["path"], one["headers"])
    assert 5000 == two["cut"]["headers"] + len(two["headers"])
    assert "cut" not in three


# ---- lines that a sink never takes


class Picky(Kept):
    """A sink that fails at lines which hold a word, as a peer would that refuses them."""

    def __init__(self, problem, *, partly=False):
        super().__init__()
        self.problem, self.partly, self.calls = problem, partly, 0

    def write(self, lines):
        self.calls += 1
        for number, line in enumerate(lines):
            if b"poison" in line:
                if self.partly and number:
                    super().write(lines[:number])
                    return number
                raise self.problem
        return super().write(lines)


PROBLEMS = [
    UnicodeEncodeError("ascii", "\xe9", 0, 1, "ordinal not in range"),
    ValueError("no such line"),
    TypeError("not mine"),
    ConnectionResetError(errno.ECONNRESET, "reset by peer"),
    OSError(errno.EIO, "refused"),
    OSError(errno.EMSGSIZE, "message too long"),
]


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
@pytest.mark.parametrize("places", [[0], [3], [9], [0, 1], [2, 9]])
def test_a_line_that_the_sink_never_takes_is_dropped(problem, partly, places, engine, caplog):
    """First, in the middle or last: after a few tries it is dropped and counted, and all others are written."""
    sink = Picky(problem, partly=partly)
    log = DecisionLog(sink)
    ids = [log.observe(engine.decide(BANNED, path="/poison" if i in places else "/"), now=i) for i in range(10)]
    assert log.flush(WAIT)
    log.close()

    assert sorted(name for i, name in enumerate(ids) if i not in places) == sorted(
        line["id"] for line in sink.lines if line["kind"] == "decision"
    )
    assert (len(places), len(places)) == (log.dropped, log.rejected)
    assert len(places) == sum(line["dropped"] for line in sink.lines if line["kind"] == "dropped")
    assert any("the sink does not take it" in text for text in caplog.messages)
    assert sink.calls < 100


def test_a_poison_line_that_comes_alone_waits_for_others_to_be_judged(engine):
    """One line that fails says nothing of the sink: it is kept until others pass, and then it is dropped."""
    sink = Picky(OSError(errno.EIO, "refused"))
    log = DecisionLog(sink)
    log.observe(engine.decide(BANNED, path="/poison"))
    assert eventually(lambda: log.failures > 10)
    assert 0 == log.dropped
    good = [log.observe(engine.decide(BANNED)) for _ in range(3)]
    assert log.flush(WAIT)
    log.close()

    written = [line["id"] for line in sink.lines if line["kind"] == "decision"]
    assert (1, good) == (log.dropped, sorted(written))  # any of them may have been the one tried before it


def test_a_sink_that_refuses_everything_ends_nothing(engine):
    """Where every line is blamed, each is dropped, requests go on, and the log works again with the sink."""
    sink = Kept()
    good, sink.write = sink.write, lambda lines: (_ for _ in ()).throw(ValueError("no"))
    log = DecisionLog(sink)
    for _ in range(20):
        log.observe(engine.decide(BANNED))
    assert log.flush(WAIT)
    sink.write = good
    last = log.observe(engine.decide(BANNED))
    assert log.flush(WAIT)
    log.close()

    assert (20, [last]) == (log.dropped, [line["id"] for line in sink.lines if line["kind"] == "decision"])


def test_an_outage_drops_nothing_however_long(engine, caplog):
    """A sink that takes no line at all for many tries gets all of them later, in order and once; both is logged."""
    sink = Kept()
    sink.fail = True
    log = DecisionLog(sink)
    ids = [log.observe(engine.decide(BANNED)) for _ in range(1000)]
    assert eventually(lambda: log.failures > 30)
    sink.fail = False
    assert log.flush(WAIT)
    log.close()

    assert ids == [line["id"] for line in sink.lines]
    assert 1 == sum("cannot be written" in text for text in caplog.messages)
    assert 1 == sum("written again" in text for text in caplog.messages)


@pytest.mark.parametrize(("limit", "written"), [(12_000, True), (2_000, True), (300, False)])
def test_a_datagram_too_long_is_shortened_or_dropped(limit, written, engine):
    """A sink with a limit of its own gets a shorter line, or none, and all later ones."""

    class Small(Kept):
        def write(self, lines):
            for number, line in enumerate(lines):
                if len(line) > limit:
                    if number:
                        return number
                    raise OSError(errno.EMSGSIZE, "message too long")
                super().write([line])
            return None

    sink = Small()
    log = DecisionLog(sink)
    headers = [(b"user-agent", b"u" * 65_000), (b"referer", b"\0" * 9000)]
    first = log.observe(engine.decide(BANNED, headers=headers))
    limited = [log.observe(engine.decide(BANNED)) for _ in range(3)]
    assert log.flush(WAIT)
    log.close()

    found = [line["id"] for line in sink.lines if line["kind"] == "decision"]
    assert ([first, *limited], 0) == (found, log.dropped) if written else ([], 4) == (found, log.dropped)


def test_syslog_and_udp_go_on_after_65_kilobytes(engine, tmp_path):
    """The line of a request with 65 KB of headers arrives, cut, and so do later ones, over UDP and a UNIX socket."""
    for address in (("127.0.0.1", 0), str(tmp_path / "log")):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as server:
            server.bind(address)
            server.settimeout(WAIT)
            log = DecisionLog(SyslogSink(server.getsockname()))
            ids = [log.observe(engine.decide(BANNED, **asgi(65_000)))]
            ids += [log.observe(engine.decide(BANNED, path="/")) for _ in range(3)]
            got = [server.recv(1 << 20) for _ in range(4)]
            assert log.flush(WAIT)
            log.close()

        assert ids == [json.loads(text.partition(b": ")[2])["id"] for text in got]
        assert 0 == log.dropped
    sink = SyslogSink(("127.0.0.1", 9))
    with pytest.raises(OSError, match=r"too long"):  # what the log makes shorter
        sink.write([b"x" * 70_000])
    sink.close()


# ---- files


def whole(path):
    """Ids of the lines of a file, each of which is whole."""
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line)["id"] for line in text.splitlines() if b'"kind":"decision"' in line]


def test_a_full_disk_tears_and_doubles_no_line(engine, tmp_path):
    """A file that may not grow (RLIMIT_FSIZE) holds whole lines only; with room again it has every line, once."""
    path = tmp_path / "log.jsonl"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            log = DecisionLog(FileSink(path))
            ids = [log.observe(engine.decide(BANNED)) for _ in range(10)]
            assert log.flush(WAIT)
            for room in (1, 700, 1234, 5000):
                _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))
                failures = log.failures
                ids += [log.observe(engine.decide(BANNED, path="/" + "x" * n)) for n in range(0, 300, 3)]
                assert eventually(lambda failures=failures: log.failures > failures + 1)
                whole(path)  # nothing is torn while there is no room either
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                assert log.flush(WAIT)
            assert ids == whole(path)
            assert 0 == log.dropped
            code = 0
        finally:
            os._exit(code)

    assert 0 == os.waitpid(child, 0)[1]


WRITE = os.write


class Disk:
    """Stands for os.write: takes a number of bytes in all, then ENOSPC."""

    def __init__(self, room):
        self.room = room

    def __call__(self, file, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "no space left on device")
        done = WRITE(file, bytes(data[: self.room]))
        self.room -= done
        return done


@pytest.mark.parametrize("truncates", [True, False])
@given(rooms=st.lists(st.integers(0, 40), max_size=12))
def test_a_torn_line_is_cut_off_or_ended(truncates, rooms, tmp_path_factory):
    """However often the disk is full in the middle of a line, the file has every line once, whole, where it can be cut
    and where it cannot (append-only)."""
    path = tmp_path_factory.mktemp("full") / "log"
    lines = [b"line %d" % number for number in range(12)]
    sink = FileSink(path)
    waiting = list(lines)
    with pytest.MonkeyPatch.context() as patch:
        if not truncates:
            patch.setattr(os, "truncate", lambda *_: (_ for _ in ()).throw(PermissionError("append only")))
        for room in rooms:
            patch.setattr(os, "write", Disk(room))
            try:
                taken = sink.write(waiting)
            except OSError:
                continue
            del waiting[: len(waiting) if taken is None else taken]
            if not waiting:
                waiting = [b"more"]
                lines.append(b"more")
        patch.setattr(os, "write", Disk(10**9))
        sink.write(waiting)
    sink.close()

    assert b"\n".join(lines) + b"\n" == path.read_bytes()


def test_a_torn_line_of_another_process_is_ended(tmp_path):
    """What a killed process left in the middle of a line does not spoil ours; nor does one whose rest is overtaken."""
    path = tmp_path / "log"
    path.write_bytes(b'{"torn":')
    sink = FileSink(path)
    sink.write([b"one"])
    sink.close()

    assert b'{"torn":\none\n' == path.read_bytes()


def test_standard_output_gets_the_rest_of_a_torn_line_first(monkeypatch, capfd):
    """Standard output cannot be cut: the line goes on where it ended."""
    sink = StdoutSink()
    monkeypatch.setattr(os, "write", Disk(9))
    assert 2 == sink.write([b"first", b"second", b"third"])
    monkeypatch.undo()
    sink.write([b"third"])

    assert "first\nsecond\nthird\n" == capfd.readouterr().out


def test_a_file_is_written_beside_a_lock_that_nobody_gives_back(tmp_path):
    """A lock held by someone else delays a batch, it does not stop the log."""
    import fcntl

    path = tmp_path / "log"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        FileSink(path).write([b"one"])

    assert b"one\n" == path.read_bytes()


# ---- streams


def serve(server, got, hold):
    """Accepts connections, reads each to its end once `hold` is set."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        hold.wait(WAIT)
        with connection:
            got.append(b"".join(iter(lambda: connection.recv(65536), b"")))  # noqa: B023


def test_a_stream_that_stalls_gets_every_line_once(monkeypatch, engine):
    """A peer that reads nothing for a while gets all lines, whole, in order and once, over one connection."""
    monkeypatch.setattr(sinks, "TIMEOUT", 0.05)
    got, hold = [], threading.Event()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind(("127.0.0.1", 0))
        server.listen()
        thread = threading.Thread(target=serve, args=(server, got, hold), daemon=True)
        thread.start()
        log = DecisionLog(SocketSink(server.getsockname()))
        ids = [log.observe(engine.decide(BANNED, **asgi(8000))) for _ in range(1500)]
        assert eventually(lambda: log.failures > 3)
        hold.set()
        assert log.flush(WAIT)
        log.close()
        assert eventually(lambda: got)

    assert ids == [json.loads(line)["id"] for line in b"".join(got).splitlines()]
    assert (1, 0) == (len(got), log.dropped)


def test_a_stream_that_dies_and_comes_back(engine):
    """Lines that wait while nobody listens are written when somebody does; a connection closed by the peer is seen."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        address = server.getsockname()
        server.listen()
        log = DecisionLog(SocketSink(address))
        ids = [log.observe(engine.decide(BANNED))]
        connection, _ = server.accept()
        assert log.flush(WAIT)
        first = connection.recv(65536)
        connection.close()
    ids += [log.observe(engine.decide(BANNED)) for _ in range(5)]
    assert eventually(lambda: log.failures > 2)
    got, hold = [], threading.Event()
    hold.set()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen()
        threading.Thread(target=serve, args=(server, got, hold), daemon=True).start()
        assert log.flush(WAIT)
        log.close()
        assert eventually(lambda: got)

    assert ids == [json.loads(line)["id"] for line in (first + got[0]).splitlines()]
