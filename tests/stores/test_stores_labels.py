"""Labels in stores: names, propagation, two hosts at once, outages, floods; bans beside them are untouched."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stores_fakes
from gobanfast import Engine, Ruleset
from gobanfast.bans import Ban, Label, label_of, uid_key
from gobanfast.stores import attach, open_store
from gobanfast.stores.codec import key_of_name, read_record, store_name, write_record
from gobanfast.stores.memory import MemoryStore
from gobanfast.stores.sync import Sync
from stores_fakes import FakeEngine, eventually

redis_server, syncs = stores_fakes.redis_server, stores_fakes.syncs

SESSION = "session:0123abcd:" + "5a" * 16
NOW = 1_800_000_000.0


@pytest.fixture(params=["memory", "sqlite", "redis"])
def place(request, tmp_path):
    """What several engines can share: a store object, or a URI."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'bans.db'}"
    return request.getfixturevalue("redis_server").uri


def carries(engine: FakeEngine, key: str, word: str = "revoked") -> bool:
    return engine.ban_table.labels.find(key, word) is not None


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("uid:42", "ban:uid:42"),
        ("uid:#" + "a" * 32, "ban:uid:#" + "a" * 32),
        (f"label:revoked:{SESSION}", f"label:revoked:{SESSION}"),
        ("label:captcha:203.0.113.0/24", "label:captcha:203.0.113.0/24"),
        ("label:vip:uid:asn:1", "label:vip:uid:asn:1"),
    ],
)
def test_names_in_stores(key, name):
    """A user's ban is stored as `ban:uid:42`; a label under its word and key. Names are read back."""
    assert name == store_name(key)
    assert key == key_of_name(name)
    record = Ban(key, "x", None, NOW, NOW + 60)
    assert record == read_record(key, write_record(key, record))


@pytest.mark.parametrize(
    "name", ["ban:uid:", "label:Vip:AS1", "label:vip", "label:vip:", "label:vip:session:1", "label:"]
)
def test_what_is_no_name(name):
    """What others wrote under such a name is passed over by stores."""
    with pytest.raises(ValueError, match=r"."):
        key_of_name(name)


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_any_name_of_a_user_is_a_key_with_one_name(name):
    """Whatever the text: its key is one line of a store, and the name of that key is read back as the same key."""
    if name:
        key = uid_key(name)

        assert key == key_of_name(store_name(key))
        assert key.isprintable()


def test_labels_reach_other_engines(place, syncs):
    """A label of one is carried in the other, with all that was known of it; so is its end. Scans keep them apart."""
    one, sync = syncs(place)
    two, other = syncs(place)
    made = one.ban_table.labels.add(SESSION, "revoked", duration=3600, reason="log-out")
    one.ban("uid:42", duration=60)

    assert sync.flush()
    assert eventually(lambda: carries(two, SESSION) and two.banned("uid:42"))
    assert made == two.ban_table.labels.find(SESSION, "revoked")
    assert ["uid:42"] == [ban.key for ban in sync.store.scan()]
    assert [made] == [label_of(record) for record in sync.store.scan("label:")]
    assert [] == list(sync.store.scan("label:vip:"))
    two.ban_table.labels.remove(SESSION, "revoked")
    assert eventually(lambda: not carries(one, SESSION))
    assert other.flush()
    assert one.banned("uid:42")


def test_a_new_engine_starts_with_the_labels_that_are_stored(place, syncs):
    """Attaching brings them in before it returns, and stores those that the engine had already."""
    one, sync = syncs(place)
    one.ban_table.labels.add("uid:1", "vip", duration=None)
    assert sync.flush()
    engine = FakeEngine()
    engine.ban_table.labels.add("uid:2", "vip", duration=600)
    late = attach(engine, place)

    assert carries(engine, "uid:1", "vip")
    assert late.flush()
    assert eventually(lambda: carries(one, "uid:2", "vip"))
    late.close()


def test_two_hosts_label_and_unlabel_at_once(place, syncs):
    """The store's order is the truth: whatever came last there holds everywhere, and everywhere the same."""
    engines = [syncs(place) for _ in range(2)]
    for round_ in range(30):
        for at, (engine, _) in enumerate(engines):
            labels = engine.ban_table.labels
            if (round_ + at) % 2:
                labels.add(SESSION, "revoked", duration=600 + round_)
            else:
                labels.remove(SESSION, "revoked")
    assert all(sync.flush() for _, sync in engines)
    store = engines[0][1].store

    def agree() -> bool:
        stored = store.exists(f"label:revoked:{SESSION}")
        return {stored} == {carries(engine, SESSION) for engine, _ in engines}

    assert eventually(agree)


def test_a_session_revoked_while_the_store_is_cut(tmp_path, redis_server, syncs):
    """It is revoked here at once; the others learn it when the store answers again."""
    one, sync = syncs(redis_server.uri)
    two, _ = syncs(redis_server.uri)
    redis_server.kill()
    one.ban_table.labels.add(SESSION, "revoked", duration=3600)

    assert carries(one, SESSION)
    assert not sync.flush(0.2)
    redis_server.start()
    assert eventually(lambda: carries(two, SESSION))
    assert sync.flush(10)


def test_a_full_label_table_is_told_and_bans_go_on(tmp_path, syncs, caplog):
    """More labels in the store than there is room for: counted as refused and logged; bans are all there."""
    store = open_store(f"sqlite:{tmp_path / 'bans.db'}")
    store.apply([(f"label:vip:AS{n}", Label(f"AS{n}", "vip", "", NOW, None).record) for n in range(1, 51)])
    store.apply([(f"198.51.100.{n}", Ban(f"198.51.100.{n}", "", None, NOW, None)) for n in range(50)])
    engine = FakeEngine(labels=10)
    sync = attach(engine, store)

    assert (50, 10, 40) == (len(engine.ban_table), len(engine.ban_table.labels), sync.health()["refused"])
    assert "the label table is full; raise labels: capacity" in caplog.text
    sync.close()


def test_a_label_that_another_release_wrote_is_passed_over(tmp_path, syncs):
    """A word that is none, or a record in the place of another, harms no other record."""
    path = tmp_path / "bans.db"
    one, sync = syncs(f"sqlite:{path}")
    one.ban_table.labels.add("uid:42", "vip", duration=None)
    assert sync.flush()
    store = sync.store
    with store._lock:
        store._open().execute(
            "INSERT INTO bans(key, seq, expires, changed, record) VALUES('label:NEW:uid:1', 99, 1e300, 0, '{}')"
        )
    engine = FakeEngine()
    late = attach(engine, f"sqlite:{path}")

    assert ["vip"] == [label.word for label in engine.ban_table.labels.labels()]
    assert 1 <= late.store.unreadable
    late.close()


def test_the_clock_is_set(tmp_path):
    """A jump of the wall clock ends no label here, and the store gets its end anew."""
    wall = [0.0]
    engine = FakeEngine()
    store = open_store(f"sqlite:{tmp_path / 'bans.db'}")
    sync = Sync(engine, store, clock=lambda: time.time() + wall[0])
    sync.start()
    assert sync.ready(10)
    engine.ban_table.labels.add("uid:42", "vip", duration=600)
    assert sync.flush()
    wall[0] = 86_400.0

    def moved() -> bool:
        record = store.get("label:vip:uid:42", now=time.time())
        return record is not None and record.expires > time.time() + 80_000

    assert eventually(moved)
    assert carries(engine, "uid:42", "vip")
    sync.close()


def test_an_engine_with_a_store(tmp_path):
    """`Engine.label` reaches the other engine by the same store as its bans."""
    uri = f"sqlite:{tmp_path / 'bans.db'}"
    one, two = (Engine(Ruleset.from_text("rules: []")) for _ in range(2))
    syncs_ = [attach(one, uri), attach(two, uri)]
    one.label(SESSION, "revoked", duration="1h")

    assert eventually(lambda: [SESSION] == [label.key for label in two.labels()])
    two.unlabel(SESSION, "revoked")
    assert eventually(lambda: not list(one.labels()))
    for sync in syncs_:
        sync.close()
