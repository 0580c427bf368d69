"""Rules that follow their files: what is taken, what is refused, and what never happens on the way."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import followed
from followed import RULES, TEST, action, put
from gobanfast import AsnTable, Engine, RuleError
from gobanfast.reload.loader import file_lock
from gobanfast.reload.watch import Watcher
from gobanfast.rules import Ruleset, ruleset_file
from stores_fakes import eventually

rules = followed.rules


@pytest.fixture(params=["watchfiles", "polling"])
def engine(rules: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that watches `rules`, in both ways there are to notice a change."""
    if request.param == "polling":
        monkeypatch.setitem(sys.modules, "watchfiles", None)
    else:
        pytest.importorskip("watchfiles", reason="needs the extra watch")
    engine = Engine.load(rules)
    with engine.watch(rules, interval=0.05):
        time.sleep(0.1)
        yield engine


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# ---- what is noticed


@pytest.mark.parametrize("how", ["rename", "in place", "vim", "same time"])
def test_a_change_is_taken_however_it_is_written(engine: Engine, rules: Path, how: str) -> None:
    """Written in place, renamed over, moved away and written anew, or with the old modification time."""
    text, old = RULES.format(action="challenge"), rules.stat()
    if how == "rename":
        put(rules, text)
    elif how == "vim":
        rules.rename(rules.with_name("rules.yaml~"))
        rules.write_text(text)
        rules.with_name("rules.yaml~").unlink()
    else:
        rules.write_text(text)
    if how == "same time":
        os.utime(rules, ns=(old.st_atime_ns, old.st_mtime_ns))

    assert eventually(lambda: action(engine) == "challenge")
    assert (2, False) == (engine.generation, engine.status()["stale"])


def test_a_configmap_swap_is_taken(tmp_path: Path) -> None:
    """Kubernetes changes what the link ..data points to; the files themselves are never written."""
    pytest.importorskip("watchfiles", reason="needs the extra watch")
    for name, what in (("..one", "ban"), ("..two", "challenge")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rules.yaml").write_text(RULES.format(action=what))
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "rules.yaml").symlink_to("..data/rules.yaml")
    engine = Engine.load(tmp_path / "rules.yaml")
    with engine.watch(tmp_path / "rules.yaml"):
        (tmp_path / "..tmp").symlink_to("..two")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        shutil.rmtree(tmp_path / "..one")

        assert eventually(lambda: action(engine) == "challenge")


def test_lists_and_included_files_count(engine: Engine, rules: Path) -> None:
    """A change of a list, and a new file that a glob matches, are changes; so are those of a file included since."""
    (rules.parent / "d").mkdir()
    (rules.parent / "list").write_text("198.51.100.0/24\n")
    put(rules, "include: d/*.yaml\nrules: [{id: a, when: {prefix_file: list}, action: ban}]")
    assert eventually(lambda: engine.generation == 2)
    (rules.parent / "list").write_text("192.0.2.0/24\n")
    assert eventually(lambda: action(engine) == "ban")
    (rules.parent / "d/one.yaml").write_text("rules: [{id: b, when: any, action: challenge, priority: 1}]")
    assert eventually(lambda: action(engine) == "challenge")
    (rules.parent / "d/one.yaml").write_text("rules: [{id: b, when: any, action: allow}]")
    assert eventually(lambda: action(engine) == "allow")


def test_a_compiled_file_is_followed_too(rules: Path, tmp_path: Path) -> None:
    """Another compiled file in its place is taken; a damaged one is refused."""
    compiled = tmp_path / "rules.gbf"
    Ruleset.load(rules).save(compiled)
    engine = Engine.load(compiled)
    watcher = Watcher(engine, compiled)
    watcher.check()
    rules.write_text(RULES.format(action="challenge"))
    Ruleset.load(rules).save(compiled)
    assert (True, "challenge") == (watcher.check(), action(engine))
    (tmp_path / "cut.gbf").write_bytes(compiled.read_bytes()[:-64])
    (tmp_path / "cut.gbf").replace(compiled)

    assert (False, "challenge", True) == (watcher.check(), action(engine), watcher.stale)
    assert f"{compiled}: size in the header is not the size of the file" in watcher.problems[0]


def test_only_content_counts(engine: Engine, rules: Path) -> None:
    """A touched file, and another file beside it, change nothing."""
    for _ in range(3):
        rules.touch()
        (rules.parent / "other").write_text(str(time.time()))
        time.sleep(0.2)

    assert (1, 0) == (engine.generation, engine.status()["reload"]["reloads"])


# ---- what is refused


def test_bad_rules_change_nothing_and_are_seen(engine: Engine, rules: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Errors and failed tests keep the old rules: status, log and counters say why, until the file is good again."""
    for number, (bad, why) in enumerate(
        (
            ("rules: [{id: a}]", ":1:9: missing key 'when'"),
            ("", ":1:1: the file is empty"),
            (RULES.format(action="ban") + TEST.format(expect="allow"), ":3:9: test expects allow, the rules say ban"),
        ),
        1,
    ):
        put(rules, bad)
        assert eventually(lambda count=number: engine.watcher.failures == count)  # type: ignore[misc]
        status = engine.status()
        assert (True, 1, "ban") == (status["stale"], engine.generation, action(engine))
        assert str(rules) + why in status["problems"][0]
        assert status["reload"]["stale_since"] <= time.time()
    assert 3 == len([record for record in caplog.records if record.levelno == logging.ERROR])
    put(rules, RULES.format(action="challenge"))

    assert eventually(lambda: action(engine) == "challenge")
    assert (False, []) == (engine.status()["stale"], engine.status()["problems"])


def test_a_deleted_file_changes_nothing(engine: Engine, rules: Path) -> None:
    """Without its file the engine goes on and says so; with its directory gone too; and takes the file that comes."""
    shutil.rmtree(rules.parent)
    assert eventually(lambda: engine.status()["stale"])
    assert "ban" == action(engine)
    rules.parent.mkdir()
    put(rules, RULES.format(action="challenge"))

    assert eventually(lambda: action(engine) == "challenge")


def test_a_file_cut_while_it_is_written_is_waited_for(engine: Engine, rules: Path) -> None:
    """A slow writer is waited for: no half of its file is ever in force."""
    text = RULES.format(action="challenge") + "".join(
        f"- {{id: r{n}, when: {{prefix: 10.0.{n}.0/24}}, action: ban}}\n" for n in range(20)
    )
    with rules.open("w") as file:
        for line in text.splitlines(keepends=True):
            file.write(line)
            file.flush()
            time.sleep(0.01)

    assert eventually(lambda: action(engine) == "challenge")
    assert (2, 21) == (engine.generation, len(engine.ruleset.rules))


def test_a_file_replaced_all_the_time_is_read_at_last(engine: Engine, rules: Path) -> None:
    """A hundred changes a second: some are taken, within the ceiling, whole; the last one in the end."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.01):
            number += 1
            put(rules, f"rules: [{{id: r{number}, when: {{prefix: 192.0.2.0/24}}, action: ban}}]")
        put(rules, RULES.format(action="challenge"))

    writer = threading.Thread(target=write)
    writer.start()
    taken = eventually(lambda: engine.generation > 1)
    stop.set()
    writer.join()

    assert taken
    assert engine.generation < 10
    assert eventually(lambda: action(engine) == "challenge")
    assert not engine.status()["stale"]


# ---- the last good rules


def test_last_good_rules_of_another_format(
    rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What an older version kept is compiled anew; where the file is broken, its problems are raised, and the log says
    that the kept rules are of no use."""
    kept = tmp_path / "kept.gbf"
    with monkeypatch.context() as patch:
        patch.setattr(ruleset_file, "FORMAT", 2)
        Engine.load(rules, last_good=kept)
    good = rules.read_text()
    rules.write_text("rules: [")
    with pytest.raises(RuleError, match="not YAML"):
        Engine.load(rules, last_good=kept)
    rules.write_text(good)

    assert action(Engine.load(rules)) == action(Engine.load(rules, last_good=kept))
    assert "neither can the last good rules" in caplog.text
    assert "has format 2, this gobanfast reads 3" in caplog.text
    assert ruleset_file.load(kept, Ruleset).compiled.content_hash


def test_a_restart_with_a_broken_file_boots_on_the_last_good_rules(rules: Path, tmp_path: Path) -> None:
    """What was in force is kept, compiled; it is used when the file is broken, and only then it is stale."""
    kept = tmp_path / "kept.gbf"
    engine = Engine.load(rules, last_good=kept)
    with engine.watch(rules, last_good=kept):
        put(rules, RULES.format(action="challenge"))
        assert eventually(lambda: action(engine) == "challenge")
    rules.write_text("rules: [")
    with pytest.raises(RuleError):
        Engine.load(rules)

    booted = Engine.load(rules, last_good=kept)

    assert ("challenge", True) == (action(booted), booted.status()["stale"])
    assert "not YAML" in booted.status()["problems"][0]
    with booted.watch(rules, last_good=kept):
        assert booted.status()["stale"]
        put(rules, RULES.format(action="ban"))
        assert eventually(lambda: action(booted) == "ban")
        assert not booted.status()["stale"]


def test_workers_compile_once(rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the kept rules are those of the file they are mapped; after a change they are compiled, once."""
    compiled: list[str] = []
    load = Ruleset.load.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Ruleset], path: Path, **kwargs: Any) -> Ruleset:
        compiled.append(str(path))
        return load(cls, path, **kwargs)

    monkeypatch.setattr(Ruleset, "load", classmethod(counted))
    kept = tmp_path / "kept.gbf"
    first, second = Engine.load(rules, last_good=kept), Engine.load(rules, last_good=kept)
    assert (1, first.ruleset.content_hash) == (len(compiled), second.ruleset.content_hash)
    put(rules, RULES.format(action="challenge"))

    assert "challenge" == action(Engine.load(rules, last_good=kept))
    assert 2 == len(compiled)


def test_where_nothing_can_be_kept_the_rules_are_in_force_all_the_same(rules: Path, tmp_path: Path) -> None:
    """A last good file that cannot be written, for want of its directory, is told and holds up nothing."""
    engine = Engine.load(rules, last_good=tmp_path / "missing/kept.gbf")

    assert ("ban", False) == (action(engine), engine.status()["stale"])


def test_the_file_of_the_as_table_is_followed(rules: Path, tmp_path: Path) -> None:
    """New AS numbers are new rules; a table cut short, or gone, changes nothing and is seen."""
    table, kept = tmp_path / "asn.csv", tmp_path / "kept.gbf"
    table.write_text("192.0.2.0/24,64500\n")
    rules.write_text("rules: [{id: as, when: {asn: 64501}, action: ban}]")
    engine = Engine.load(rules, asn=table, last_good=kept)
    watcher = Watcher(engine, rules, asn=table, last_good=kept)
    assert ("allow", False) == (action(engine), watcher.check())
    table.write_text("192.0.2.0/24,64501\n")
    assert (True, "ban") == (watcher.check(), action(engine))
    table.write_text("192.0.2.0/24,x\n")
    assert (False, "ban", True) == (watcher.check(), action(engine), watcher.stale)
    assert f"{table}:1:" in watcher.problems[0]
    assert "ban" == action(Engine.load(rules, asn=table, last_good=kept))
    table.unlink()

    assert (False, "ban", True) == (watcher.check(), action(engine), watcher.stale)


@pytest.mark.parametrize("kept", [None, "kept.gbf"])
def test_large_rules_are_compiled_by_another_process(
    rules: Path, tmp_path: Path, kept: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rules come into force, and the same problems are told, with places; nothing is left behind."""
    monkeypatch.setattr("gobanfast.reload.compile_process.LARGE", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    last_good = None if kept is None else tmp_path / kept
    networks = AsnTable.from_arrays(bytes(10) + b"\xff\xff\xc0\0\2\0", bytes([120]), (64500).to_bytes(4, "little"))
    engine = Engine.load(rules, asn=networks, last_good=last_good)
    watcher = Watcher(engine, rules, asn=networks, last_good=last_good)
    rules.write_text("rules: [{id: as, when: {asn: 64500}, action: challenge}]\n" + TEST.format(expect="challenge"))
    assert (True, "challenge") == (watcher.check(), action(engine))
    assert engine.ruleset.overlay is None  # it came out of a file
    assert not watcher.check()
    rules.write_text(RULES.format(action="ban") + TEST.format(expect="allow") + "nonsense: 1\n")
    assert not watcher.check()
    assert f"{rules}:4:1: unknown key 'nonsense'" in watcher.problems[0]
    rules.write_text(RULES.format(action="ban"))
    assert (True, "ban") == (watcher.check(), action(engine))
    assert [] == list((tmp_path / "tmp").iterdir())
    if last_good is not None:
        assert "ban" == action(Engine.load(last_good))
    engine.explain(engine.decide("192.0.2.1"))


def test_a_child_that_dies_changes_nothing(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiling process that is killed, or says nothing, is a reason to stay with the old rules."""
    monkeypatch.setattr("gobanfast.reload.compile_process.LARGE", 0)
    monkeypatch.setattr(
        "gobanfast.reload.compile_process._CHILD", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    engine = Engine.load(rules)
    watcher = Watcher(engine, rules)
    rules.write_text(RULES.format(action="challenge"))

    assert (False, "ban") == (watcher.check(), action(engine))
    assert "compiling in another process ended with status -9" in watcher.problems[0]


# ---- processes, memory, readers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_follows_on_its_own(rules: Path) -> None:
    """The thread of the parent does not exist in a child; the child starts its own."""
    engine = Engine.load(rules)
    with engine.watch(rules, interval=0.05):
        child = os.fork()
        if child == 0:
            os._exit(0 if eventually(lambda: action(engine) == "challenge", 20) else 1)
        time.sleep(0.2)
        put(rules, RULES.format(action="challenge"))

        assert eventually(lambda: action(engine) == "challenge")
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


SLOW_WATCHFILES = """
import time
time.sleep(0.5)

def watch(*directories, stop_event, **options):
    while not stop_event.wait(0.02):
        yield set()
"""
FORKING = """
import os, sys, time
from gobanfast import Engine

engine = Engine.load(sys.argv[1])
engine.watch(sys.argv[1])
time.sleep(0.1)  # the thread is in the middle of importing now
child = os.fork()
if child == 0:
    end = time.monotonic() + 20
    while engine.generation == 1 and time.monotonic() < end:
        time.sleep(0.01)
    os._exit(engine.generation != 2 or not engine.status()["reload"]["watching"])
time.sleep(1.0)  # what the child's thread finds at its start is not what this is about
with open(sys.argv[1], "a") as rules:
    rules.write("# changed\\n")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_never_has_half_a_module(rules: Path, tmp_path: Path) -> None:
    """A fork while the thread imports is made when it has: a half-imported module would end the child's thread."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "watchfiles.py").write_text(SLOW_WATCHFILES)
    path = os.pathsep.join([str(modules), str(Path(__file__).parents[2])])
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, rules], env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (0, "") == (found.returncode, found.stderr)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_does_not_keep_the_lock_on_the_last_good_rules(tmp_path: Path) -> None:
    """A child that was forked while a process wrote them has the lock's file open; others write them all the same."""
    stay, end = os.pipe()
    with file_lock(tmp_path / "rules.gbf"):
        child = os.fork()
        if child == 0:
            os.close(end)
            os.read(stay, 1)
            os._exit(0)
    try:
        with (tmp_path / "rules.gbf.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(end)
        os.close(stay)
        os.waitpid(child, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_a_thousand_reloads_leak_nothing_and_tear_nothing(rules: Path) -> None:
    """Memory stays, and every decision is one of the two rulesets whole: action, rule and reason belong together."""
    rule = "- {{id: {0}{2}, when: {{prefix: 192.0.{2}.0/24, sni: .{0}.example}}, action: {1}, reason: {0}}}\n"
    texts = [
        "rules:\n" + "".join(rule.format(name, action, number) for number in range(4))
        for name, action in (("a", "ban"), ("b", "challenge"))
    ]
    rules.write_text(texts[0])
    networks = AsnTable.from_arrays(b"", b"", b"")
    engine = Engine.load(rules, asn=networks)
    watcher = Watcher(engine, rules, asn=networks)
    stop, torn, asked = threading.Event(), [], [0]
    whole = (("ban", "a2", "a"), ("challenge", "b2", "b"), ("allow", None, None))

    def ask() -> None:
        while not stop.is_set():
            for sni in ("x.a.example", "x.b.example"):
                d = engine.decide("192.0.2.1", sni=sni)
                asked[0] += 1
                if (d.action, d.rule, d.reason) not in whole:
                    torn.append(d)
            time.sleep(0.005)

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    memory = []
    for number in range(1, 1001):
        rules.write_text(texts[number % 2])
        assert watcher.check()
        if number % 100 == 0:
            gc.collect()
            memory.append(resident())
    stop.set()
    for client in clients:
        client.join()

    assert ([], 1001) == (torn, engine.generation)
    assert asked[0] > 200
    assert max(memory[2:]) - memory[1] < 4 << 20
