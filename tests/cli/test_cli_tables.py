"""What commands print: tables on terminals of any width and in pipes, help, and words in one and many."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import time
from itertools import pairwise

import pytest

pytest.importorskip("typer")

from gobanfast.bans import Ban
from gobanfast.stores import open_store

COMMAND = [sys.executable, "-m", "gobanfast"]
LONG = "a reason that goes on and on, for longer than any terminal is wide, so that something has to give way somewhere"
PRINT = "gh2:" + "0123456789abcdef" * 2 + "@2001:db8:abcd:12::/64"
KEYS = ["203.0.113.0/24", "46.101.9.2", "2001:db8:1234:5678:9abc:def0:1234:5678", PRINT, "AS14061", "8.0.0.0/8"]


def piped(*arguments, columns="80", **more):
    """(output, errors) of a command whose output is a pipe."""
    environ = os.environ | {"COLUMNS": columns, "FORCE_COLOR": ""} | more
    done = subprocess.run([*COMMAND, *arguments], env=environ, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr


def on_terminal(columns, *arguments):
    """What a terminal that is so wide is sent, without colours."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR", "CI"}}
    process = subprocess.Popen([*COMMAND, *arguments], stdout=theirs, stderr=theirs, env=environ | {"TERM": "xterm"})
    os.close(theirs)
    sent = b""
    try:
        while data := os.read(ours, 65536):
            sent += data
    except OSError:  # Linux: the other end is closed
        pass
    os.close(ours)
    assert 0 == process.wait()
    return re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", sent.decode()).replace("\r\n", "\n")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """URI of a store with a ban on every kind of key, by a person, a rule and a tracker."""
    uri, now = f"sqlite:{tmp_path_factory.mktemp('bans') / 'bans.db'}", time.time()
    bans = open_store(uri)
    for number, key in enumerate(KEYS):
        rule = [None, "distinct_fingerprints", "probes"][number % 3]
        reason = [LONG, "distinct_fingerprints", ""][number % 3]
        bans.set(
            Ban(
                key,
                reason,
                rule,
                now - 5 * 3600,
                None if number == 4 else now + 3 * 86400,
                1,
                "tracker" if rule else "manual",
            )
        )
    bans.close()
    return uri


@pytest.mark.parametrize("columns", ["20", "40", "80", "200"])
def test_rows_are_whole_lines_in_a_pipe(store, columns):
    """Whatever COLUMNS says, a row is one line, nothing is cut, no line ends in blanks, and every key is a word."""
    told, errors = piped("bans", "list", "--store", store, columns=columns)
    coloured, _ = piped("bans", "list", "--store", store, columns=columns, FORCE_COLOR="1")

    assert told == re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    lines = told.splitlines()
    assert len(KEYS) + 1 == len(lines)
    assert sorted(KEYS) == sorted(line.split()[0] for line in lines[1:])
    assert [] == [line for line in lines if line != line.rstrip()]
    assert 2 == told.count(LONG)
    assert all(re.search(r"  (never|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)  ", line) for line in lines[1:])
    assert f"{len(KEYS)} bans\n" == errors


@pytest.mark.parametrize("columns", [20, 40, 80, 120, 200])
def test_keys_are_whole_on_a_terminal(store, columns):
    """However narrow the terminal: keys, makers and times are whole; reasons are cut first, and say so."""
    told = on_terminal(columns, "bans", "list", "--store", store)

    assert [] == [key for key in KEYS if not re.search(rf"^{re.escape(key)}\s", told, re.MULTILINE)]
    assert [] == [word for word in ("distinct_fingerprints", "in 3 days", "5 h ago", "never") if word not in told]
    assert len(KEYS) + 2 == len(told.splitlines())
    assert "…" in told or columns == 200


def test_what_a_row_says(store, tmp_path):
    """A tracker's name is not repeated as its reason, the network of addresses, narrow prefixes and ASes is shown, one
    ban is "1 ban", and a table of none is no header."""
    told, _ = piped("bans", "list", "--store", store)
    row = {line.split()[0]: line for line in told.splitlines()}
    one, many = f"sqlite:{tmp_path / 'one.db'}", f"sqlite:{tmp_path / 'none.db'}"
    for uri in (one, many):
        bans = open_store(uri)
        bans.set(Ban("192.0.2.1", "x", "x", 1.0, None, 1, "rule"))
        if uri == many:
            bans.delete("192.0.2.1")
        bans.close()

    assert 1 == row["46.101.9.2"].count("distinct_fingerprints")
    assert "AS14061 DigitalOcean" in row["46.101.9.2"]
    assert "AS14061 DigitalOcean" in row["AS14061"]
    assert "reason" not in piped("bans", "list", "--store", one)[0]
    assert "1 ban\n" == piped("bans", "list", "--store", one)[1]
    assert ("", "0 bans\n") == piped("bans", "list", "--store", many)
    assert (
        "1 ban would be lifted\n"
        in piped("bans", "undo", "--store", one, "--rule", "x", "--since", "permanent", "--dry-run")[1]
    )


@pytest.mark.parametrize(
    "command", [[], ["scan"], ["serve"], ["bans", "list"], ["rules", "explain"], ["bench"], ["explain"]]
)
def test_help(command):
    """Flags have no "<bool>" beside them, no line of a paragraph ends before the terminal does, and status 3 is listed
    where statuses are."""
    told = on_terminal(200, *command, "--help")

    assert "bool" not in told
    assert "--help" in told
    if "Exit status" in told:
        assert "3 the service could not start" in told
    prose = [line.strip() for line in told.partition("╭")[0].splitlines()]
    assert [] == [line for line, after in pairwise(prose) if line and after and len(line) < 150]


def test_rules_in_a_pipe(tmp_path):
    """A rule's id is one word of one line, however narrow the terminal behind the pipe."""
    name = "hosting-browsers-that-are-none-and-say-otherwise-in-their-headers"
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"rules: [{{id: {name}, when: {{prefix: 192.0.2.0/24}}, action: ban, reason: {LONG!r}}}]\n")

    assert name in piped("rules", "explain", str(rules), columns="30")[0].split()
    assert name in on_terminal(30, "rules", "explain", str(rules)).split()
    assert LONG in piped("check", "192.0.2.1", "--rules", str(rules), columns="30")[0]
