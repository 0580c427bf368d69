"""One record that cannot be read or written is counted, logged and passed over: no outage, no other waits."""

from __future__ import annotations

import json
import logging
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stores_fakes
from gobanfast.bans import Ban
from gobanfast.stores import RecordError, decode_ban, encode_ban, open_store
from gobanfast.stores.codec import key_of_name, read_record, store_name
from stores_fakes import WAIT, eventually

redis_server, syncs = stores_fakes.redis_server, stores_fakes.syncs

GOOD = {f"10.0.0.{n}" for n in range(10)}
RECORDS = {
    "10.1.0.1": '{"v":2,"key":"10.1.0.1"}',
    "10.1.0.2": "1",
    "10.1.0.3": "{junk",
    "10.1.0.4": "",
    "10.1.0.5": '{"v":1,"key":"10.0.0.1"}',
    "10.1.0.6": '{"v":1,"key":"10.1.0.6","expires":"soon"}',
    "10.1.0.7": '{"v":1,"key":"10.1.0.7","expires":1e400}',
    "10.1.0.8": '{"v":1,"key":"10.1.0.8","reason":' + "[" * 5000,
    "10.1.0.9": '{"v":1,"key":"10.1.0.9","count":' + "9" * 5000 + "}",
    "10.1.0.10": '{"v":1,"key":"10.1.0.10","created":null}',
    "10.1.0.11": "\x00",
    "10.1.0.12": '{"v":1,"key":["10.1.0.12"]}',
    "10.1.0.13": '{"v":1,"key":"10.1.0.13","by":7}',
    "nonsense": '{"v":1,"key":"nonsense"}',
    "10.1.0.14/24": '{"v":1,"key":"10.1.0.14/24"}',
    "1" * 300: '{"v":1,"key":"' + "1" * 300 + '"}',
}


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    """The URI of a store, and a function that puts anything at all under a key."""
    if request.param == "sqlite":
        path = tmp_path / "bans.db"

        def put(key, record):
            db = sqlite3.connect(path, isolation_level=None)
            db.execute("UPDATE state SET seq = seq + 1")
            db.execute("INSERT OR REPLACE INTO bans VALUES(?, (SELECT seq FROM state), 1e300, 0, ?)", (key, record))
            db.close()

        yield f"sqlite:{path}", put
        return
    import redis

    server = request.getfixturevalue("redis_server")
    client = redis.Redis(port=server.port)
    yield server.uri, lambda key, record: client.set(store_name(key).encode(), record)
    client.close()


def fill(uri):
    """Ten good bans."""
    store = open_store(uri)
    store.apply([(key, Ban(key)) for key in GOOD])
    store.close()


def fine(sync):
    """Whether nothing of it is an outage."""
    return {"outage": False, "outages": 0, "writes": "closed", "reads": "closed"}.items() <= sync.health().items()


def test_unreadable_records_are_passed_over(place, syncs, caplog):
    """A new engine has all good bans, reads on, and says how many it passed over, in one log line."""
    uri, put = place
    fill(uri)
    for key, record in RECORDS.items():
        put(key, record)
    put("10.1.0.20", b'{"v":1,"key":"10.1.0.20","reason":"\xff"')
    engine, sync = syncs(uri)

    assert {ban.key for ban in engine.ban_table.bans()} == GOOD
    assert sync.health()["unreadable"] >= len(RECORDS)
    assert fine(sync)
    assert 1 == sum("passed over" in text for text in caplog.messages)
    other, _ = syncs(uri)
    other.ban("10.2.0.1", duration=600)
    assert eventually(lambda: engine.banned("10.2.0.1"))
    store = open_store(uri)
    assert GOOD | {"10.2.0.1"} == {ban.key for ban in store.scan()}
    assert store.get("10.1.0.1") is None
    assert not store.exists("10.1.0.3")
    store.close()


def test_a_record_that_turns_bad_under_a_running_engine(place, syncs):
    """What becomes unreadable while engines follow the store changes nothing for them, and the next change arrives."""
    uri, put = place
    fill(uri)
    (one, sync), (two, other) = syncs(uri), syncs(uri)
    for key, record in RECORDS.items():
        put(key, record)
    put("10.0.0.1", RECORDS["10.1.0.1"])
    one.ban("10.2.0.1", duration=600)
    assert sync.flush(WAIT)
    assert eventually(lambda: two.banned("10.2.0.1"))

    assert two.banned("10.0.0.1")
    assert fine(sync)
    assert fine(other)


def test_a_bad_record_is_lifted_or_banned_anew(place, syncs):
    """A ban over an unreadable record takes its place, and lifting one removes it."""
    uri, put = place
    engine, sync = syncs(uri)
    for key in ("10.1.0.1", "10.1.0.3"):
        put(key, RECORDS[key])
    engine.ban("10.1.0.1", duration=600)
    assert sync.flush(WAIT)
    store = open_store(uri)
    store.delete("10.1.0.3")
    store.set(Ban("10.1.0.3", "again"))

    assert ("", "again") == (store.get("10.1.0.1").reason, store.get("10.1.0.3").reason)
    store.close()


def test_changes_that_cannot_be_written_hold_up_no_other(place):
    """Keys that are none, or not in their one form, and times that are no numbers: named, and the rest stored."""
    store = open_store(place[0])
    bad = [
        ("nonsense", Ban("nonsense")), ("10.0.0.1/8", Ban("10.0.0.1/8")), ("10.3.0.1", Ban("10.3.0.2")),
        ("10.3.0.3", Ban("10.3.0.3", expires=float("inf"))), ("10.3.0.4", Ban("10.3.0.4", created=float("nan"))),
        ("10.3.0.5", Ban("10.3.0.5", count=1.5)), ("a\0b", Ban("a\0b")), ("::ffff:10.3.0.6", Ban("::ffff:10.3.0.6")),
        ("1" * 9999, Ban("1" * 9999)), ("\ud800", None),
    ]  # fmt: skip
    good = [(key, Ban(key)) for key in sorted(GOOD)]
    with pytest.raises(RecordError) as caught:
        store.apply([item for pair in zip(bad, good, strict=True) for item in pair])

    assert {key for key, _ in bad} == set(caught.value.problems)
    assert "'nonsense' is not stored: ban key 'nonsense' is not valid" in str(caught.value)
    assert GOOD == {ban.key for ban in store.scan()}
    store.set(Ban("10.3.0.7", "half \ud800 of a pair, \0 and all", expires=1e14))
    assert "half ? of a pair, \0 and all" == store.get("10.3.0.7").reason
    store.close()


# ---- SQLite


def test_rows_of_other_types(tmp_path, syncs):
    """Keys, records, numbers and times of the wrong type are passed over, as is text that is no UTF-8."""
    path = tmp_path / "bans.db"
    fill(f"sqlite:{path}")
    engine, sync = syncs(f"sqlite:{path}")
    record = encode_ban(Ban("10.1.0.1"))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("INSERT INTO bans VALUES(x'ff', 12, 1e300, 0, ?)", (record,))
    db.execute("INSERT INTO bans VALUES(CAST(x'ff31' AS TEXT), 13, 1e300, 0, ?)", (record,))
    db.execute("INSERT INTO bans VALUES('10.1.0.2', 'x', 1e300, 0, ?)", (record,))
    db.execute("INSERT INTO bans VALUES('10.1.0.3', 15, 'soon', 'now', x'00')")
    db.execute("INSERT INTO bans VALUES('10.1.0.4', 16, 1e300, 0, CAST(x'7bff' AS TEXT))")
    db.execute("INSERT INTO bans VALUES('10.1.0.5', 9223372036854775807, 1e300, 0, 7)")
    db.execute("UPDATE state SET seq = 20")
    db.close()
    engine.ban("10.2.0.1", duration=600)
    assert sync.flush(WAIT)
    fresh, other = syncs(f"sqlite:{path}")

    expected = GOOD | {"10.2.0.1"}
    assert expected == {ban.key for ban in fresh.ban_table.bans()} == {ban.key for ban in engine.ban_table.bans()}
    assert fine(sync)
    assert fine(other)
    assert other.health()["unreadable"] >= 3


def test_a_row_that_the_file_refuses_is_isolated(tmp_path, syncs):
    """A constraint that one key breaks keeps that key out and no other; flush is False while it is missing."""
    path = tmp_path / "bans.db"
    fill(f"sqlite:{path}")
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(
        "CREATE TRIGGER no BEFORE INSERT ON bans WHEN NEW.key = '10.2.0.5' BEGIN SELECT RAISE(ABORT, 'not this'); END"
    )
    engine, sync = syncs(f"sqlite:{path}")
    for n in range(10):
        engine.ban(f"10.2.0.{n}", duration=600)
    assert not sync.flush(WAIT)
    assert fine(sync)
    assert {"unwritten": 1, "unwritable": 1, "queue": 0}.items() <= sync.health().items()
    expected = GOOD | {f"10.2.0.{n}" for n in range(10)}
    store = open_store(f"sqlite:{path}")
    assert expected - {"10.2.0.5"} == {ban.key for ban in store.scan()}
    db.execute("DROP TRIGGER no")
    db.close()
    sync._try_again()  # as once a minute
    assert sync.flush(WAIT)
    assert expected == {ban.key for ban in store.scan()}
    store.close()


# ---- Redis


def test_foreign_names_and_types_in_redis(redis_server, syncs):
    """Names that are no bans and values of other types are passed over; a batch isolates the key it cannot write."""
    import redis

    fill(redis_server.uri)
    client = redis.Redis(port=redis_server.port)
    client.set("ban:foo", 1)
    client.set("ban:", "x")
    client.set(b"ban:\xff\xfe", b"\xff")
    client.set("ban:net:10.0.0.1", encode_ban(Ban("10.0.0.1")))
    client.rpush("ban:10.1.0.1", "a")
    client.hset("ban:asn:1", "a", "b")
    client.sadd("ban:fp:x", "a")
    engine, sync = syncs(redis_server.uri)
    other, tie = syncs(redis_server.uri)
    assert GOOD == {ban.key for ban in engine.ban_table.bans()}
    for key in ("10.2.0.1", "10.1.0.1", "AS1", "10.2.0.2"):
        engine.ban(key, duration=600)
    assert not sync.flush(WAIT)
    assert eventually(lambda: other.banned("10.2.0.1") and other.banned("10.2.0.2"))
    assert fine(sync)
    assert fine(tie)
    assert 2 == sync.health()["unwritten"]
    client.delete("ban:10.1.0.1")
    engine.unban("AS1")
    sync._try_again()
    assert sync.flush(WAIT)
    assert b"hash" == client.type("ban:asn:1")
    assert eventually(lambda: other.banned("10.1.0.1"))
    client.close()


@pytest.mark.parametrize("idle", [True, False])
def test_junk_in_the_stream_and_the_meta_key(redis_server, syncs, idle):
    """Entries of others, a stream or a meta key of another type: engines find their way back by themselves."""
    import redis

    fill(redis_server.uri)
    client = redis.Redis(port=redis_server.port)
    (one, sync), (two, tie) = syncs(redis_server.uri), syncs(redis_server.uri)
    expected = set(GOOD)
    for number, spoil in enumerate(
        [
            lambda: client.xadd("gobanfast:changes", {"a": "b"}),
            lambda: client.xadd("gobanfast:changes", {"k": "AS1"}, id="99999999999999-5"),
            lambda: client.xadd("gobanfast:changes", {"k": "10.9.9.9", "r": "{junk"}, id="999999999999999-0"),
            lambda: (client.delete("gobanfast:changes"), client.set("gobanfast:changes", "x")),
            lambda: client.delete("gobanfast:changes"),
            lambda: client.hset("gobanfast:meta", "seq", "junk"),
            lambda: client.pipeline().delete("gobanfast:meta").rpush("gobanfast:meta", "x").execute(),
        ]
    ):
        spoil()
        if idle:  # the readers meet it before a writer does
            assert not eventually(lambda: sync.outage or tie.outage, 0.7)
        one.ban(f"10.3.0.{number}", duration=600)
        two.ban(f"10.4.0.{number}", duration=600)
        expected |= {f"10.3.0.{number}", f"10.4.0.{number}"}
        assert sync.flush(WAIT)
        assert tie.flush(WAIT)
        for engine in (one, two):
            assert eventually(lambda: expected == {ban.key for ban in engine.ban_table.bans()}), number  # noqa: B023
    assert fine(sync)
    assert fine(tie)
    client.close()


# ---- names and records


@given(key=st.sampled_from(["203.0.113.7", "2001:db8::1", "203.0.113.0/24", "AS64500", "gh2:" + "0" * 32]))
def test_names_say_their_key(key):
    """The name of a ban in Redis says which key it is of."""
    assert key == key_of_name(store_name(key))


@given(text=st.text(max_size=40) | st.binary(max_size=9) | st.none() | st.integers())
def test_reading_anything_is_a_ban_or_a_value_error(text):
    """No record, whatever it is, raises anything else."""
    with pytest.raises(ValueError, match=r"."):
        read_record("10.0.0.1", text)


def test_makers_of_later_releases_are_stores():
    """A record made by something this release does not know is read; who made it shows as the store."""
    text = json.dumps({"v": 1, "key": "AS1", "by": "feed"})

    assert "store" == decode_ban(text).by


def test_what_is_passed_over_is_logged_once_a_minute(caplog, monkeypatch):
    """A hundred bad records are one line, and a minute later one more with how many there were since."""
    from gobanfast.stores import codec

    now = [0.0]
    monkeypatch.setattr(codec.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.WARNING)
    passed = codec.PassedOver("x:")
    for _ in range(100):
        passed.note("bad")
    now[0] = 61.0
    passed.note("worse")

    assert ["x:: passed over: bad", "x:: passed over: worse (and 99 others since the last line)"] == caplog.messages
    assert 101 == passed.count
