"""fail2ban: its bans in a store of ours by its action, its database taken over, and a live log followed as it would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.batch.follow import Follower, Tail
from gobanfast.stores import open_store
from gobanfast.stores.formats import Imported, read_bans

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "examples" / "fail2ban" / "gobanfast.conf"
WAIT = 45.0
LINE = '{} - - [26/Nov/2026:10:00:00 +0000] "GET {} HTTP/1.1" 404 12 "-" "curl/8"\n'
RULES = """
rules: [{id: probe, when: {path: /wp-login.php}, action: ban, for: 1h, reason: probes}]
"""


RAW = """id,source,ip,reason,action,country,as,events_count,expiration,simulated,alert_id
2,cscli,Ip:198.51.100.7,manual,ban,,,1,57m43.5s,false,2
3,cscli,Range:198.51.100.130/25,manual,ban,,,1,1h,false,3
4,cscli,Ip:198.51.100.9,manual,captcha,,,1,1h,false,4
what
"""


def until(holds, seconds=WAIT):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


# ---- the real program


class Fail2ban:
    """A server of its own: configuration, socket, database and log under a folder."""

    def __init__(self, folder, store, ban_seconds):
        self.folder, self.database, self.log = folder, folder / "fail2ban.sqlite3", folder / "auth.log"
        self.log.write_text("")
        for name in ("action.d", "filter.d"):
            (folder / name).mkdir()
        shutil.copy(ACTION, folder / "action.d" / "gobanfast.conf")
        (folder / "filter.d" / "door.conf").write_text("[Definition]\nfailregex = ^.* refused <HOST>$\n")
        (folder / "fail2ban.conf").write_text(
            f"[Definition]\nloglevel = INFO\nlogtarget = {folder}/fail2ban.log\nsyslogsocket = auto\n"
            f"socket = {folder}/fail2ban.sock\npidfile = {folder}/fail2ban.pid\ndbfile = {self.database}\n"
            "dbpurgeage = 1d\ndbmaxmatches = 10\n[Thread]\n"
        )
        command = f"{sys.executable} -m gobanfast"
        (folder / "jail.conf").write_text(
            f"[DEFAULT]\nbackend = polling\nusedns = no\nmaxretry = 2\nfindtime = 10m\nbantime = {ban_seconds}\n"
            f"banaction = gobanfast[store='sqlite:{store}', command='{command}']\naction = %(banaction)s\n"
            f"[door]\nenabled = true\nfilter = door\nlogpath = {self.log}\n"
        )
        self.process = None

    def start(self):
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        with (self.folder / "out").open("w") as out:
            command = [*self.words("fail2ban-server"), "-f", "start"]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environ, start_new_session=True)
        until(lambda: "pong" in self.client("ping"))
        until(lambda: "door" in self.client("status"))

    def words(self, program):
        folder = str(self.folder)
        return [shutil.which(program), "-c", folder, "-s", f"{folder}/fail2ban.sock", "-p", f"{folder}/fail2ban.pid"]

    def client(self, *words):
        command = [*self.words("fail2ban-client"), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout

    def stop(self):
        if self.process is None:
            return
        self.client("stop")
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def told(self):
        path = self.folder / "fail2ban.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def fail2ban(tmp_path):
    for name in ("fail2ban-server", "fail2ban-client"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not on PATH (Debian's package fail2ban)")
    if not ACTION.exists():
        pytest.skip("no source tree around the tests")
    folder = tmp_path / "fail2ban"
    folder.mkdir()
    made = Fail2ban(folder, tmp_path / "bans.db", 3600)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def stored(path):
    store = open_store(f"sqlite:{path}")
    try:
        return {ban.key: ban for ban in store.scan()}
    finally:
        store.close()


def test_fail2ban_bans_through_us_and_back(fail2ban, tmp_path):
    """What its filter finds is banned by an engine with the store until its unban; its database is read."""
    engine = Engine(Ruleset.from_text(RULES))
    from gobanfast.stores import attach

    sync = attach(engine, f"sqlite:{tmp_path / 'bans.db'}")
    try:
        with fail2ban.log.open("a") as log:
            for address in ("198.51.100.7", "2001:db8:1::7"):
                for _ in range(2):
                    log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} door refused {address}\n")
        until(lambda: engine.decide("198.51.100.7").action == "ban")
        until(lambda: engine.decide("2001:db8:1::7").action == "ban")
        ban = engine.ban_table.get("198.51.100.7")
        assert ban.reason == "fail2ban door"
        assert 3400 < ban.expires - time.time() <= 3601

        found = Imported()
        read = {ban.key: ban for ban in read_bans(fail2ban.database, "auto", found, now=time.time())}
        assert read.keys() == {"198.51.100.7", "2001:db8:1::7"}
        assert 3400 < read["198.51.100.7"].expires - time.time() <= 3601

        fail2ban.client("set", "door", "unbanip", "198.51.100.7")
        until(lambda: engine.decide("198.51.100.7").action == "allow")
        assert "198.51.100.7" not in stored(tmp_path / "bans.db")
        assert "ERROR" not in fail2ban.told()
    finally:
        sync.close()


# ---- what it writes


def test_a_database_before_0_11_is_read(tmp_path):
    """Without lengths in it, the latest ban of an address lasts as long as --for says, from when it was made."""
    path = tmp_path / "old.sqlite3"
    now = time.time()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bans(jail TEXT NOT NULL, ip TEXT, timeofban INTEGER NOT NULL, data JSON)")
        rows = [
            ("ssh", "198.51.100.7", now - 5000),
            ("ssh", "198.51.100.7", now - 60),
            ("ssh", "198.51.100.8", now - 9999),
        ]
        db.executemany("INSERT INTO bans VALUES (?, ?, ?, '{}')", rows)
    db.close()
    found = Imported(lasts=3600.0)
    bans = list(read_bans(path, "auto", found, now=now))

    assert [(ban.key, ban.count, round(ban.expires - now)) for ban in bans] == [("198.51.100.7", 2, 3540)]
    assert (found.skipped, found.wrong) == (1, 0)


@pytest.mark.parametrize(("text", "keys", "wrong"), [
    ("null", [], 0),
    ("null\n", [], 0),
    ('[{"value": "198.51.100.130/25", "scope": "Range", "duration": "1d", "type": "ban"}]', ["198.51.100.128/25"], 0),
    ('[{"value": "NL", "scope": "Country", "duration": "1h", "type": "ban"}]', [], 0),
    (RAW, ["198.51.100.7", "198.51.100.128/25"], 1),
])  # fmt: skip
def test_what_cscli_prints_is_read(tmp_path, text, keys, wrong):
    """An empty list, days, host bits, countries and the raw format are no reason to refuse a list."""
    path = tmp_path / "decisions"
    path.write_text(text)
    found = Imported()

    assert keys == [ban.key for ban in read_bans(path, "auto", found, now=time.time())]
    assert wrong == found.wrong


def test_a_plain_list_has_comments_of_both_kinds(tmp_path):
    """`;` begins a comment as it does under prefix_file."""
    path = tmp_path / "list"
    path.write_text("; a list\n198.51.100.7 ; one\n198.51.100.8 # two\n")
    found = Imported()

    assert ["198.51.100.7", "198.51.100.8"] == [ban.key for ban in read_bans(path, "plain", found, now=time.time())]
    assert found.wrong == 0


# ---- a live log


def test_a_tail_loses_no_line_over_rotation(tmp_path):
    """Rename with a new file, truncation, lines in pieces, a file that comes late: each line comes once, in order."""
    path = tmp_path / "access.log"
    tail, seen = Tail(path, start=True), []

    def drain():
        for _ in range(6):
            seen.extend(tail.lines())

    drain()
    path.write_text("1\n2\n3")
    drain()
    with path.open("a") as log:
        log.write("\n4\n")
    drain()
    old = path.open("a")
    path.rename(tmp_path / "access.log.1")
    drain()
    old.write("5\n6")  # the server has not opened the new one yet
    old.flush()
    drain()
    path.write_text("7\n")
    drain()
    old.close()
    with path.open("r+") as log:  # copytruncate
        log.truncate(0)
    drain()
    with path.open("a") as log:
        log.write("8\n")
    drain()
    tail.close()

    assert seen == list("12345678")
    assert tail.rotations == 2


def test_a_line_without_end_takes_no_memory(tmp_path):
    """A line past a mebibyte is passed over, and the next one read."""
    path = tmp_path / "access.log"
    path.write_bytes(b"x" * (3 << 20) + b"\nnext\n")
    tail = Tail(path, start=True)
    seen = [line for _ in range(60) for line in tail.lines()]
    tail.close()

    assert seen == ["next"]


def test_a_follower_bans_as_lines_come(tmp_path):
    """Lines that were there are not decided; of those that come the rule bans, once."""
    path = tmp_path / "access.log"
    path.write_text(LINE.format("198.51.100.1", "/wp-login.php"))
    engine = Engine(Ruleset.from_text(RULES))
    follower = Follower(engine, path)
    with path.open("a") as log:
        for address, asked in (("198.51.100.7", "/"), ("198.51.100.8", "/wp-login.php"), ("198.51.100.8", "/")):
            log.write(LINE.format(address, asked))
        log.write("junk\n")
    while follower.step():
        pass

    assert [ban.key for ban in follower.bans()] == ["198.51.100.8"]
    assert (follower.decided, follower.bad) == (3, 1)
    follower.tail.close()


def test_the_command_follows_and_stores(tmp_path):
    """`scan --follow --store` prints each ban as a JSON line, and others see it in the store; Ctrl-C ends it."""
    path, store = tmp_path / "access.log", f"sqlite:{tmp_path / 'bans.db'}"
    path.write_text(LINE.format("198.51.100.1", "/"))
    (tmp_path / "rules.yaml").write_text(RULES)
    command = [sys.executable, "-m", "gobanfast", "scan", str(path), "-r", str(tmp_path / "rules.yaml"), "--follow"]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen([*command, "--store", store], stdout=out, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:

        def wrote():
            with path.open("a") as log:
                log.write(LINE.format("198.51.100.9", "/wp-login.php"))
            return (tmp_path / "out").read_text()

        until(wrote)
        until(lambda: "198.51.100.9" in stored(tmp_path / "bans.db"))
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
    finally:
        process.kill()
        process.wait()
    told = json.loads((tmp_path / "out").read_text().splitlines()[0])
    assert (told["key"], told["rule"]) == ("198.51.100.9", "probe")


def test_following_takes_one_log(tmp_path):
    """Two logs, or standard input, are a usage error."""
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "a").write_text("")
    for logs in (["-"], [str(tmp_path / "a"), str(tmp_path / "a")]):
        command = [sys.executable, "-m", "gobanfast", "scan", *logs, "-r", str(tmp_path / "rules.yaml"), "--follow"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 2
