"""What every door asks of a ban by hand or from a list: how wide it is, how long it lasts, whether there is room."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
import time
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import Engine, GobanError, Ruleset
from gobanfast.bans import WIDE_FRACTION, ban_key, too_wide
from gobanfast.stores import open_store
from gobanfast.stores.formats import Imported, read_bans

RULES = "trust: [198.51.100.10, 2001:db8:7::/48]\nrules:\n- {id: a, when: {prefix: 192.0.2.1/32}, action: ban}\n"
NOW = 1_800_000_000.0

WIDE = [
    "0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1", "8.0.0.0/7", "2000::/3", "2000::/10", "4000::/2", "::/1",
    "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/31", "172.16.0.0/12", "172.31.0.0/16", "192.168.0.0/24", "192.0.0.0/8",
    "127.0.0.0/8", "127.0.0.0/30", "169.254.0.0/16", "100.64.0.0/10", "0.0.0.0/8", "224.0.0.0/4", "239.1.0.0/16",
    "255.255.255.254/31", "fc00::/7", "fd00::/8", "fd12:3456::/32", "fe80::/10", "fe80::/64", "ff00::/8", "ff02::/16",
    "64:ff9b::/96", "64:ff9b::/64", "64:ff9b:1::/48", "2002::/16", "2002:cb00::/24", "2001::/32", "::/64",
]  # fmt: skip
FINE = [
    "8.8.8.8", "10.0.0.1", "127.0.0.1", "203.0.113.0/24", "100.0.0.0/10", "8.0.0.0/8", "2001:db8::1", "2001:db8::/64",
    "fd12::1", "fd12:3456:789a:1::/64", "2a00::/11", "2600::/12", "AS64500", "gh2:" + "0" * 32,
    f"gh2:{'0' * 32}@10.0.0.1", "172.32.0.0/16", "192.167.0.0/16", "11.0.0.0/8",
]  # fmt: skip


def engine():
    """An engine with two proxies in trust."""
    return Engine(Ruleset.from_text(RULES))


@pytest.mark.parametrize("key", WIDE)
def test_wide_and_special_prefixes_have_to_be_meant(key):
    """Engine.ban names the prefix and refuses it, unless wide=True says that it is meant."""
    made = engine()
    with pytest.raises(ValueError, match=r"if that is meant, say wide=True") as caught:
        made.ban(key, duration=60)
    assert repr(key) in str(caught.value)
    assert 0 == len(made.ban_table)
    assert key == made.ban(key, duration=60, wide=True).key


@pytest.mark.parametrize("key", FINE)
def test_clients_are_banned_without_more(key):
    """Single addresses, /64s and ordinary networks, ASes and fingerprints need no word more."""
    assert key == engine().ban(key, duration=60).key


@pytest.mark.parametrize(
    "key", ["198.51.100.10", "198.51.100.0/24", "2001:db8:7:1::1", "2001:db8:7::/64", "2001:db8::/32"]
)
def test_a_proxy_in_trust_is_not_banned_by_mistake(key):
    """What covers a trusted proxy keeps out all who come through it."""
    made = engine()
    with pytest.raises(ValueError, match=r"which trust: names as a proxy; if that is meant"):
        made.ban(key)
    assert made.ban(key, wide=True).expires
    made.swap(Ruleset.from_text(RULES.partition("\n")[2]))
    assert made.ban(key)


@given(number=st.integers(0, 2**32 - 1), bits=st.integers(0, 32))
def test_the_limit_is_that_of_lint(number, bits):
    """A prefix is never fine when it covers more than 1/256 of its family; a single address always is."""
    key = ban_key(str(ipaddress.ip_network((number >> (32 - bits) << (32 - bits), bits))))
    if 2.0**-bits > WIDE_FRACTION:
        assert too_wide(key) is not None
    if bits == 32:
        assert too_wide(key) is None


def test_an_hour_when_nothing_is_said():
    """Engine.ban without a duration lasts an hour; None and "permanent" are for good."""
    made = engine()

    assert 3599 < made.ban("203.0.113.7").expires - time.time() < 3601
    assert made.ban("203.0.113.8", duration=None).expires is None
    assert made.ban("203.0.113.9", duration="permanent").expires is None


@pytest.mark.parametrize("on_full", ["refuse", "evict"])
def test_a_full_table_says_so(on_full):
    """No room is an error with the reason, and counted; the feed has no change for a ban that is none."""
    made = Engine(Ruleset.from_text(RULES + f"bans: {{capacity: 2, on_full: {on_full}}}\n"))
    _, cursor = made.ban_table.changes()
    for n in range(2):
        made.ban(f"203.0.113.{n}", duration=3600)
    with pytest.raises(
        GobanError, match=r"203.0.113.9 is not banned: the table is full with 2 bans; raise bans: capac"
    ):
        made.ban("203.0.113.9", duration=60)

    told = [(change.event, change.ban.key) for change in made.ban_table.changes(cursor)[0]]
    assert [("add", "203.0.113.0"), ("add", "203.0.113.1")] == told
    assert 1 == made.ban_table.stats()["refused"]


# ---- lists


def read(path, text, **options):
    """The bans of a list, and what reading it came to."""
    path.write_text(text)
    found = Imported(**options)
    return list(read_bans(path, "auto", found, now=NOW)), found


LISTS = {
    "plain": "203.0.113.7\n0.0.0.0/0\n\n10.0.0.0/8 # inside\n::/0\n",
    "jsonl": '{"key":"203.0.113.7"}\n{"key":"0.0.0.0/0"}\n\n{"key":"10.0.0.0/8"}\n{"key":"::/0"}\n',
    "fail2ban": "[{'sshd': ['203.0.113.7']}]\n[{'a': ['0.0.0.0/0']}]\n\n[{'b': ['10.0.0.0/8']}]\n[{'c': ['::/0']}]\n",
    "crowdsec": json.dumps(
        [{"scope": "ip", "type": "ban", "value": key} for key in ("203.0.113.7", "0.0.0.0/0", "10.0.0.0/8", "::/0")]
    ),
}


@pytest.mark.parametrize("form", LISTS)
def test_lists_name_every_wide_line_and_ban_the_rest_for_an_hour(form, tmp_path):
    """All formats alike; with wide they are taken."""
    got, found = read(tmp_path / "list", LISTS[form])

    assert [("203.0.113.7", NOW + 3600)] == [(ban.key, ban.expires) for ban in got]
    assert (1, 3) == (found.bans, found.wrong)
    for problem, key in zip(found.problems, ("0.0.0.0/0", "10.0.0.0/8", "::/0"), strict=True):
        assert repr(key) in str(problem)
        assert "say --wide" in str(problem)
    if form != "crowdsec":
        assert [2, 4, 5] == [problem.line for problem in found.problems]
    got, found = read(tmp_path / "list", LISTS[form], wide=True, lasts=None)
    assert [None] * 4 == [ban.expires for ban in got]
    assert 0 == found.wrong


def test_for_good_where_a_list_says_so(tmp_path):
    """null in JSON lines and -1 in fail2ban are said."""
    got, _ = read(tmp_path / "list", '{"key":"203.0.113.7","expires":null}\n{"key":"203.0.113.8"}\n')

    assert [None, NOW + 3600] == [ban.expires for ban in got]


# ---- the other doors


@pytest.fixture
def run(tmp_path):
    """The `bans` commands on a file of their own."""
    pytest.importorskip("typer", reason="the command line needs the extra cli")
    from typer.testing import CliRunner

    from gobanfast.cli.app import app

    def invoke(*arguments, store=f"sqlite:{tmp_path / 'bans.db'}", status=0):
        result = CliRunner().invoke(app, ["bans", *arguments], env={"GOBANFAST_STORE": store, "COLUMNS": "300"})
        assert status == result.exit_code, result.output
        return result

    return invoke


def test_the_commands_refuse_what_is_wide(run, tmp_path):
    """`add` takes none of its keys when one is wide; `import` lists what it refuses, with status 1."""
    (tmp_path / "list").write_text(LISTS["plain"])

    assert "0.0.0.0/0" in run("add", "203.0.113.7", "0.0.0.0/0", status=2).output
    assert not (tmp_path / "bans.db").exists()
    said = run("import", str(tmp_path / "list"), status=1).output
    for line, key in ((2, "0.0.0.0/0"), (4, "10.0.0.0/8"), (5, "::/0")):
        assert f"list:{line}:1: ban of {key!r}" in said
    run("add", "10.0.0.0/8", "--wide")
    run("import", str(tmp_path / "list"), "--wide", "--for", "permanent")
    with closing(open_store(f"sqlite:{tmp_path / 'bans.db'}")) as store:
        assert {"203.0.113.7", "0.0.0.0/0", "10.0.0.0/8", "::/0"} == {ban.key for ban in store.scan()}
        assert store.get("::/0").expires is None


def test_the_commands_that_read_make_no_file(run, tmp_path):
    """A wrong path is an error of list, remove, export and undo, not an empty store."""
    for arguments in (["list"], ["remove", "203.0.113.7"], ["export"], ["undo", "--rule", "a", "--since", "1h"]):
        assert "there is no such file" in run(*arguments, status=2).output
    assert not list(tmp_path.iterdir())
    (tmp_path / "bans.db").touch()
    assert "there are no bans in it" in run("list", status=2).output
    run("add", "203.0.113.7")
    assert "203.0.113.7" in run("list").output


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("sqlite:///bans.db", "write sqlite:PATH, like sqlite:bans.db"),
        ("sqlite:////var/lib/bans.db", "like sqlite:/var/lib/bans.db"),
        ("sqlite://bans.db", "like sqlite:bans.db"),
        ("sqlite::memory:", "would outlive nothing"),
        ("sqlite:/nowhere/bans.db", "folder '/nowhere' is not there; make it"),
        ("sqlite:/tmp", "it is a folder"),
        ("unix://redis.sock", "write unix:///run/redis/redis.sock"),
    ],
)
def test_places_that_no_waiting_brings(store, words, run, tmp_path):
    """Mistaken addresses are one line at the command line and when an engine is loaded, with what would be right."""
    (tmp_path / "rules.yaml").write_text(RULES)
    for arguments in (["list"], ["add", "203.0.113.7"]):
        assert words in " ".join(run(*arguments, store=store, status=2).output.split())
    with pytest.raises(ValueError, match=r".") as caught:
        Engine.load(tmp_path / "rules.yaml", store=store)
    assert words in str(caught.value)


def test_a_missing_package_is_one_line(monkeypatch, run, tmp_path):
    """Without redis, loading says what to install; the commands, too."""
    monkeypatch.setitem(sys.modules, "redis", None)
    (tmp_path / "rules.yaml").write_text(RULES)
    with pytest.raises(GobanError, match=r"needs redis: pip install 'gobanfast\[redis\]'"):
        Engine.load(tmp_path / "rules.yaml", store="redis://127.0.0.1:1")
    assert "pip install 'gobanfast[redis]'" in run("list", store="redis://127.0.0.1:1", status=2).output


def test_the_service_asks_the_same():
    """POST /bans: an hour when nothing is said, 400 for what is wide, 503 when there is no room."""
    from gobanfast.frontends.authz import DecisionService

    made = Engine(Ruleset.from_text(RULES + "bans: {capacity: 2}\n"))
    service = DecisionService(made, token="0123456789abcdef")  # noqa: S106

    def post(**body):
        sent = []

        async def receive():
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "path": "/bans", "method": "POST", "client": ("127.0.0.1", 1),
                 "headers": [(b"authorization", b"Bearer 0123456789abcdef")]}  # fmt: skip
        asyncio.run(service(scope, receive, send))
        return sent[0]["status"], sent[1]["body"].decode()

    status, body = post(key="203.0.113.7")
    assert (201, True) == (status, 3599 < json.loads(body)["expires"] - time.time() < 3601)
    status, body = post(key="10.0.0.0/8")
    assert (400, True) == (status, 'write "wide": true' in body), body
    assert 400 == post(key="10.0.0.0/8", wide="yes")[0]
    status, body = post(key="10.0.0.0/8", wide=True, duration="permanent")
    assert (201, None) == (status, json.loads(body)["expires"])
    status, body = post(key="203.0.113.9", duration=None)
    assert (503, True) == (status, "the table is full with 2 bans" in body)
