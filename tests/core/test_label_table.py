"""LabelTable against a dict that asks every label: answers, expiry, full tables, the change feed, texts, threads."""

from __future__ import annotations

import os
import random
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gobanfast import Ban, BanTable, GobanError
from gobanfast._core.label_table import LabelTable
from gobanfast.bans import Label, ban_key, label_key, label_of, label_word, uid_key
from oracle import labels as oracle

SESSION = "session:0123abcd:" + "5a" * 16
KEYS = st.sampled_from(
    ["203.0.113.7", "203.0.113.0/24", "2001:db8::/64", "2001:db8::1", "AS64500", f"gh2:{'a' * 32}",
     f"gh2:{'a' * 32}@203.0.113.7", "uid:42", "uid:é", uid_key("auth0|5f7c8ec7c33c6c004bbafe82"), SESSION,
     "session:0123abcd:" + "5b" * 16, "session:0123abce:" + "5a" * 16]
)  # fmt: skip
WORDS = st.sampled_from(["captcha", "vip", "revoked", "tenant-a"])
TIMES = st.integers(1, 20_000).map(lambda ms: ms / 1000)


def tables(**options: object) -> tuple[BanTable, LabelTable]:
    """A table whose engine time is Unix time, and the labels beside it."""
    bans = BanTable(clock=lambda: 0.0, offset=0.0, **options)  # type: ignore[arg-type]
    return bans, bans.labels


class Agreement(RuleBasedStateMachine):
    """Whatever is called in whatever order, the table answers as the dict does, at the millisecond."""

    @initialize()
    def make(self) -> None:
        self.now = 1_000_000.0
        self.bans, self.table = tables()
        self.model = oracle.Table()
        _, self.cursor = self.bans.changes()

    @rule(by=TIMES | st.just(0.0))
    def wait(self, by: float) -> None:
        self.now = oracle.whole(self.now + by)

    @rule(key=KEYS, word=WORDS, duration=TIMES | st.none(), reason=st.sampled_from(["", "a", "captcha"]))
    def add(self, key: str, word: str, duration: float | None, reason: str) -> None:
        label = Label(key, word, reason, self.now, None if duration is None else self.now + duration)

        assert self.model.add(label, self.now) == self.table.add(
            key, word, duration=duration, reason=reason, now=self.now
        )

    @rule(key=KEYS, word=WORDS, after=st.integers(-5_000, 20_000) | st.none())
    def put(self, key: str, word: str, after: int | None) -> None:
        expires = None if after is None else oracle.whole(self.now + after / 1000)
        label = Label(key, word, "put", oracle.whole(self.now - 7.5), expires, "import")
        self.model.add(label, self.now)

        assert self.table.put(label.record, maker="manual", now=self.now)

    @rule(key=KEYS, word=WORDS)
    def remove(self, key: str, word: str) -> None:
        assert self.model.remove(key, word, self.now) == self.table.remove(key, word, now=self.now)

    @rule()
    def purge(self) -> None:
        self.table.purge(now=self.now)

        assert len(self.model.labels(self.now)) == len(self.table)

    @rule(key=KEYS)
    def ask(self, key: str) -> None:
        words = ("captcha", "vip", "revoked", "tenant-a", "never-seen")

        assert self.model.words({key}, self.now) == set(self.table.carries(key, words, now=self.now))
        assert self.model.get(key, "vip", self.now) == self.table.find(key, "vip", now=self.now)

    @rule()
    def follow(self) -> None:
        """A reader that asks for labels is told of all that happened since it last asked, others of none of it."""
        assert ([], self.cursor + len(self.model.events)) == self.bans.changes(self.cursor)
        told, self.cursor = self.bans.changes(self.cursor, labels=True)

        assert told is not None
        assert self.model.events == [(change.event, label_of(change.ban)) for change in told]
        assert {"label"} >= {change.kind for change in told}
        self.model.events.clear()

    @invariant()
    def same_labels(self) -> None:
        if hasattr(self, "table"):
            listed = list(self.table.labels(now=self.now))

            assert self.model.labels(self.now) == {(label.key, label.word): label for label in listed}
            assert {label.record for label in listed} == set(self.table.stored(now=self.now))


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_full_table_refuses_and_bans_stay() -> None:
    """A flood of labels is refused and counted, evicts no ban, and what is over makes room again."""
    bans, table = tables(capacity=2, labels=1000)
    bans.ban("203.0.113.7", duration=None, now=1)
    for number in range(3000):
        table.add(f"AS{1 + number}", "flood", duration=60, now=1)

    assert (1000, 2000, True) == (len(table), table.stats()["refused"], table.saturated)
    assert bans.get("203.0.113.7", now=1) is not None
    assert table.add("AS9999", "late", duration=60, now=62) is not None
    assert 1 == len(list(table.labels(now=62)))


def test_a_key_carries_64_words() -> None:
    """So that one key cannot make a look-up slow."""
    _, table = tables()
    made = [table.add("uid:42", f"w{number}", duration=None, now=1) for number in range(70)]

    assert 64 == sum(label is not None for label in made)
    assert ("w0", "w63") == table.carries("uid:42", ["w0", "w63", "w64"], now=1)
    assert table.add("uid:43", "w64", duration=None, now=1) is not None


def test_many_labels_are_found() -> None:
    """While the index grows, and after most were taken off again."""
    _, table = tables()
    keys = [f"AS{number}" for number in range(1, 20_001)]
    for key in keys:
        table.add(key, "vip", duration=None)
    random.Random(7).shuffle(keys)
    for key in keys[5000:]:
        assert table.remove(key, "vip") is not None

    assert all(("vip",) == table.carries(key, ["vip"]) for key in keys[:5000])
    assert not any(table.carries(key, ["vip"]) for key in keys[5000:])
    assert table.nbytes < 3_000_000


def test_words_outlive_a_sweep_of_texts() -> None:
    """When numbers of texts run out, those of words and reasons in use stay what they are."""
    _, table = tables(labels=1000)
    table.add("uid:42", "vip", duration=None, reason="paid", now=1)
    for number in range(70_000):
        table.add("uid:43", "seen", duration=None, reason=f"reason {number}", now=1)
        table.remove("uid:43", "seen", now=1)

    assert Label("uid:42", "vip", "paid", 1.0) == table.find("uid:42", "vip", now=1)


def test_threads_label_and_ask() -> None:
    """Labels that nobody takes off are found by every look-up."""
    _, table = tables()
    steady = [f"AS{number}" for number in range(1, 200)]
    for key in steady:
        table.add(key, "vip", duration=None)
    stop, wrong = threading.Event(), []

    def write(seed: int) -> None:
        draw = random.Random(seed)
        while not stop.is_set():
            key = f"AS{draw.randrange(1000, 3000)}"
            table.add(key, "vip", duration=1)
            table.remove(key, "vip")

    def read() -> None:
        for _ in range(30):
            wrong.extend(key for key in steady if not table.carries(key, ["vip"]))

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in writers + readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    for thread in writers:
        thread.join()

    assert [] == wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_has_the_labels_of_its_parent() -> None:
    """And goes on labelling."""
    _, table = tables()
    table.add("uid:42", "vip", duration=None)
    child = os.fork()
    if child == 0:
        fine = table.carries("uid:42", ["vip"]) == ("vip",) and table.add("uid:43", "vip", duration=5) is not None
        os._exit(0 if fine else 1)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert () == table.carries("uid:43", ["vip"])


@pytest.mark.parametrize(
    ("name", "key"),
    [("42", "uid:42"), ("Ann Lee", "uid:Ann Lee"), ("é" * 11, "uid:" + "é" * 11), ("x" * 23, "uid:" + "x" * 23),
     ("x" * 24, None), ("#" + "0" * 32, None), ("a\nb", None), ("\ud800", None)],
)  # fmt: skip
def test_names_of_users_are_keys(name: str, key: str | None) -> None:
    """A short name is its own key, and shown; any other is a hash. A name that looks like a hash is hashed, too."""
    made = uid_key(name)
    bans = BanTable()
    bans.ban(made, duration=60)

    assert len(made) <= 37
    assert made == ban_key(made) == label_key(made)
    if key is not None:
        assert key == made
    else:
        assert made.startswith("uid:#")
        assert made != f"uid:{name}"
    found = bans.lookup(uid=name)
    assert found is not None
    assert made == found.key
    assert bans.lookup(uid=name + "x") is None


def test_a_session_is_labelled_not_banned() -> None:
    """A ban of a session would answer the login page with 403, so it is refused, with what to do."""
    with pytest.raises(ValueError, match=r"is a session; label it, as engine\.revoke_session does"):
        ban_key(SESSION)
    assert SESSION == label_key(SESSION)


@pytest.mark.parametrize("word", ["", "Vip", "a b", "-a", "x" * 33, "ä", "a:b"])
def test_what_is_no_word(word: str) -> None:
    """An error says what one looks like."""
    with pytest.raises(ValueError, match="is not a word; write up to 32 of a-z"):
        label_word(word)


@pytest.mark.parametrize(
    "key", ["", "session:12", "session:0123abcd:xyz", "203.0.113.7/33", "gh2:12", "uid:", "label:a:AS1"]
)
def test_what_is_no_key_of_a_label(key: str) -> None:
    """Nothing is labelled."""
    _, table = tables()
    with pytest.raises(ValueError, match=r".+; write |has no name|is not|cannot|has"):
        table.add(key, "vip", duration=5)
    assert 0 == len(table)


def test_a_record_of_a_ban_is_no_label() -> None:
    """As stores might have it."""
    with pytest.raises(ValueError, match="is not about a label"):
        label_of(Ban("203.0.113.7"))


def test_an_engine_labels() -> None:
    """`label`, `labels`, `unlabel` and bans of users, by the names that people use."""
    from gobanfast import Engine, Ruleset

    engine = Engine(Ruleset.from_text("labels: {capacity: 2}\nrules: []\n"))
    label = engine.label("uid:42", "vip", duration="1h", reason="paid")
    engine.label(SESSION, "revoked")

    assert ("uid:42", "vip", "paid", 3600.0) == (label.key, label.word, label.reason, label.expires - label.created)
    assert {"uid:42", SESSION} == {label.key for label in engine.labels()}
    with pytest.raises(GobanError, match="uid:43 is not labelled: there are 2 labels"):
        engine.label("uid:43", "vip")
    assert label == engine.unlabel("uid:42", "vip")
    assert engine.unlabel("uid:42", "vip") is None
    with pytest.raises(TypeError, match="key is 42, int"):
        engine.label(42, "vip")  # type: ignore[arg-type]
    assert "uid:42" == engine.ban("uid:42").key
    assert engine.unban("uid:42") is not None
