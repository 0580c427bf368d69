"""Lists of bans: every format in and out, from what the other programs write; and the `bans` commands."""

from __future__ import annotations

import io
import json
import sqlite3
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import FormatError
from gobanfast.bans import Ban
from gobanfast.stores import open_store
from gobanfast.stores.formats import Imported, guess, read_bans, write_bans

NOW = 1_800_000_000.0

keys = st.one_of(
    st.integers(1, 2**32 - 1).map(lambda n: f"AS{n}"),
    st.ip_addresses(v=4).map(str),
    st.integers(0, 2**128 - 1).map(lambda n: f"gh2:{n:032x}"),
)
bans = st.builds(
    Ban, keys, st.text(max_size=9), st.none() | st.text(max_size=9), st.floats(0, NOW),
    st.none() | st.floats(NOW + 1, 4e9), st.integers(1, 99), st.sampled_from(["manual", "rule", "import"]),
)  # fmt: skip


def read(path, text, form="auto", now=NOW):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = Imported()
    return list(read_bans(path, form, found, now=now)), found


@given(made=st.lists(bans, max_size=9))
def test_json_lines_come_back(made, tmp_path_factory):
    """Writing and reading our own format changes nothing."""
    written = io.StringIO()
    count = write_bans(made, written, "jsonl", now=NOW)
    got, found = read(tmp_path_factory.mktemp("list") / "bans.jsonl", written.getvalue(), "jsonl")

    assert (made, len(made), 0, 0) == (got, count, found.skipped, found.wrong)


def test_plain_lists(tmp_path):
    """A key a line, comments and blanks aside; keys become canonical, bad ones are named by their line."""
    text = "# list\n203.0.113.7\n::ffff:203.0.113.8 # why\n\n10.0.0.1/8\nas64500\nnothing\n"
    got, found = read(tmp_path / "list.txt", text)

    assert ["203.0.113.7", "203.0.113.8", "AS64500"] == [ban.key for ban in got]
    assert [(5, "10.0.0.0/8"), (7, "not valid")] == [
        (problem.line, words)
        for problem, words in zip(found.problems, ("10.0.0.0/8", "not valid"), strict=True)
        if words in str(problem)
    ]


CSCLI = """[
{"capacity": 5, "created_at": "2026-11-26T12:00:00Z", "decisions": [
  {"duration": "3h59m10.5s", "id": 3, "origin": "crowdsec", "scenario": "crowdsecurity/ssh-bf", "scope": "Ip",
   "simulated": false, "type": "ban", "value": "203.0.113.7"},
  {"duration": "4h", "scope": "Ip", "type": "captcha", "value": "203.0.113.8", "scenario": "x"}]},
{"decisions": null},
{"decisions": [
  {"duration": "-5m", "scope": "Ip", "type": "ban", "value": "203.0.113.9", "scenario": "x"},
  {"duration": "24h", "scope": "Range", "type": "ban", "value": "198.51.100.0/24", "scenario": "lists"},
  {"duration": "24h", "scope": "AS", "type": "ban", "value": "64500", "scenario": "x"},
  {"duration": "24h", "scope": "Country", "type": "ban", "value": "XX", "scenario": "x"},
  {"duration": "soon", "scope": "Ip", "type": "ban", "value": "192.0.2.1", "scenario": "x"},
  {"duration": "1h", "scope": "Ip", "type": "ban", "value": "192.0.2.2", "scenario": "x", "simulated": true}]}
]"""


def test_crowdsec_decisions(tmp_path):
    """What `cscli decisions list -o json` prints: bans by address, range and AS; the rest skipped or named."""
    got, found = read(tmp_path / "list.json", CSCLI)

    assert [
        ("203.0.113.7", "crowdsecurity/ssh-bf", NOW + 3 * 3600 + 59 * 60 + 10.5),
        ("198.51.100.0/24", "lists", NOW + 86400),
        ("AS64500", "x", NOW + 86400),
    ] == [(ban.key, ban.reason, ban.expires) for ban in got]
    assert (3, 4, 1) == (found.bans, found.skipped, found.wrong)
    assert "duration 'soon' of '192.0.2.1' is not valid" in str(found.problems[0])


def test_crowdsec_stream_and_import_forms(tmp_path):
    """The LAPI's stream, and the list that `cscli decisions import` reads, which is what we write."""
    stream = {"new": [{"duration": "1h", "scope": "ip", "type": "ban", "value": "203.0.113.7"}], "deleted": None}
    got, _ = read(tmp_path / "a.json", json.dumps(stream))
    written = io.StringIO()
    count = write_bans([*got, Ban("AS64500"), Ban("gh2:" + "0" * 32)], written, "crowdsec", now=NOW)
    again, _ = read(tmp_path / "b.json", written.getvalue())

    assert 2 == count
    assert ["203.0.113.7", "AS64500"] == [ban.key for ban in again]
    assert {"duration": "1h0m0s", "reason": "crowdsec", "scope": "ip", "type": "ban", "value": "203.0.113.7"} == (
        json.loads(written.getvalue())[0]
    )


def fail2ban_database(path, now=NOW):
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE bips(ip TEXT NOT NULL, jail TEXT NOT NULL, timeofban INTEGER NOT NULL,"
            " bantime INTEGER NOT NULL, bancount INTEGER NOT NULL default 1, data JSON, PRIMARY KEY(ip, jail))"
        )
        db.executemany(
            "INSERT INTO bips VALUES(?, ?, ?, ?, ?, '{}')",
            [("203.0.113.7", "sshd", now - 60, 600, 3), ("203.0.113.8", "sshd", now - 6000, 600, 1),
             ("2001:db8::1", "web", now - 60, -1, 1), ("user@host", "web", now, 60, 1)],
        )  # fmt: skip
    db.close()


def test_fail2ban_database(tmp_path):
    """Its bips table: time of ban plus ban time is the end, -1 is for good, the count goes along."""
    path = tmp_path / "fail2ban.sqlite3"
    fail2ban_database(path)
    found = Imported()
    got = list(read_bans(path, "auto", found, now=NOW))

    assert [
        Ban("203.0.113.7", "fail2ban sshd", None, NOW - 60, NOW + 540, 3, "import"),
        Ban("2001:db8::1", "fail2ban web", None, NOW - 60, None, 1, "import"),
    ] == sorted(got, key=lambda ban: ban.key, reverse=True)
    assert (1, 1) == (found.skipped, found.wrong)
    assert "'user@host'" in str(found.problems[0])


@pytest.mark.parametrize(
    "text",
    [
        "[{'sshd': ['203.0.113.7', '203.0.113.8']}, {'web': []}]\n",
        "Status for the jail: sshd\n|- Filter\n`- Actions\n   `- Banned IP list:\t203.0.113.7 203.0.113.8\n",
    ],
)
def test_fail2ban_client_output(text, tmp_path):
    """What `fail2ban-client banned` and `status JAIL` print."""
    got, found = read(tmp_path / "out.txt", text)

    expected = [("203.0.113.7", "fail2ban sshd", NOW + 3600), ("203.0.113.8", "fail2ban sshd", NOW + 3600)]
    assert expected == [(ban.key, ban.reason, ban.expires) for ban in got]
    assert 0 == found.wrong


def test_fail2ban_banip_with_time(tmp_path):
    """`get JAIL banip --with-time`, in local time."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW))
    line = f"203.0.113.7 \t{stamp} + 600 = {stamp}\n203.0.113.8 \t{stamp} + -1 = {stamp}\n"
    got, _ = read(tmp_path / "out.txt", line)

    assert [("203.0.113.7", NOW + 600), ("203.0.113.8", None)] == [(ban.key, ban.expires) for ban in got]


def test_formats_are_told_apart(tmp_path):
    """By what a file begins with, never by its name; an unknown name of a format is refused."""
    for text, expected in (("1.2.3.4\n", "plain"), ('{"v":1', "jsonl"), ("[{", "crowdsec"), ("", "plain")):
        (tmp_path / "x").write_text(text)
        assert expected == guess(tmp_path / "x")
    with pytest.raises(ValueError, match="format 'csv' is not one of auto, jsonl"):
        list(read_bans(tmp_path / "x", "csv", Imported(), now=NOW))
    with pytest.raises(ValueError, match="format 'fail2ban' is not one of jsonl, plain, crowdsec"):
        write_bans([], io.StringIO(), "fail2ban", now=NOW)


# ---- the commands


@pytest.fixture
def run(tmp_path):
    pytest.importorskip("typer", reason="the command line needs the extra cli")
    from typer.testing import CliRunner

    from gobanfast.cli.app import app

    def invoke(*arguments, status=0):
        uri = f"sqlite:{tmp_path / 'bans.db'}"
        result = CliRunner().invoke(app, ["bans", *arguments], env={"GOBANFAST_STORE": uri, "COLUMNS": "200"})
        assert status == result.exit_code, result.output
        return result

    return invoke


def test_add_list_remove(run):
    """Keys become canonical; lists show what is in force; lifting what is not there is status 1."""
    run("add", "::ffff:203.0.113.7", "as64500", "--for", "7d", "--reason", "spam")
    run("add", "2001:db8::/64", "--for", "permanent")

    shown = run("list").stdout
    for words in ("203.0.113.7", "AS64500", "spam", "2001:db8::/64", "never"):
        assert words in shown
    listed = [json.loads(line)["key"] for line in run("list", "--begins", "2", "--json").stdout.splitlines()]
    assert ["203.0.113.7", "2001:db8::/64"] == listed
    run("remove", "203.0.113.7")
    assert "203.0.113.7: not banned" in run("remove", "203.0.113.7", status=1).output
    assert "203.0.113.0/24" in run("add", "203.0.113.7/24", status=2).output
    run("add", "203.0.113.7", "--for", "3", status=2)


def test_undo_lifts_what_one_rule_made(run, tmp_path):
    """Exactly the bans of that rule since then, and not before a dry run has shown them."""
    store, now = open_store(f"sqlite:{tmp_path / 'bans.db'}"), time.time()
    for n, (rule, age) in enumerate([("bad", 60), ("bad", 7200), ("good", 60), (None, 60)]):
        store.set(Ban(f"10.0.0.{n}", "", rule, now - age))

    assert "10.0.0.0\n" == run("undo", "--rule", "bad", "--since", "1h", "--dry-run").stdout
    assert 4 == sum(1 for _ in store.scan())
    assert "10.0.0.0\n" == run("undo", "--rule", "bad", "--since", "1h").stdout
    assert {"10.0.0.1", "10.0.0.2", "10.0.0.3"} == {ban.key for ban in store.scan()}
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now - 9000))
    assert "10.0.0.1\n" == run("undo", "--rule", "bad", "--since", since).stdout
    run("undo", "--rule", "bad", "--since", "yesterday", status=2)


def test_import_and_export(run, tmp_path):
    """All formats go in; what goes out goes in again; what cannot be read is said, with status 1."""
    fail2ban_database(tmp_path / "f2b.sqlite3", time.time())
    (tmp_path / "cscli.json").write_text(CSCLI)
    (tmp_path / "plain.txt").write_text("192.0.2.77\nx y\n")
    result = run("import", *(str(tmp_path / name) for name in ("f2b.sqlite3", "cscli.json", "plain.txt")),
                 "--for", "1h", status=1)  # fmt: skip
    assert "plain.txt:2:1: ban key 'x y' is not valid" in result.output
    store = open_store(f"sqlite:{tmp_path / 'bans.db'}")
    stored = {ban.key for ban in store.scan()}
    assert {"192.0.2.77", "203.0.113.7", "198.51.100.0/24", "AS64500", "2001:db8::1"} == stored
    assert 3000 < store.get("192.0.2.77").expires - time.time() <= 3600

    run("export", "--to", str(tmp_path / "out.jsonl"))
    for key in stored:
        store.delete(key)
    run("import", str(tmp_path / "out.jsonl"))
    assert stored == {ban.key for ban in store.scan()}
    assert stored == set(run("export", "--format", "plain").stdout.split())


def test_commands_refuse_what_is_no_shared_store(run):
    """A URI that names no store, and memory:, which no other process sees, are usage errors."""
    run("list", "--store", "http://x", status=2)
    run("list", "--store", "memory:", status=2)


def test_an_unreachable_store_is_one_line(run, tmp_path):
    """A store that fails is a message and status 2, not a traceback."""
    result = run("list", "--store", f"sqlite:{tmp_path / 'none' / 'bans.db'}", status=2)

    assert "unable to open database file: folder" in result.output
    assert 1 == result.output.count("\n")


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\x1f\x8b\x08\0", "it is packed by gzip; unpack it first"), (b"\x89GBF\r\n\0", "it is no text and no database")],
)
def test_what_is_no_list_is_told_once(data, words, tmp_path):
    """Not as a wrong key on each of its lines."""
    with pytest.raises(FormatError, match=words):
        read(tmp_path / "bans", data)
