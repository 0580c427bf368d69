"""The nftables drop set against a dict: entries, ends, room, allow sets, arming; in a network namespace of a thread."""

from __future__ import annotations

import ctypes
import random
import threading
import time

import numpy as np
import pytest

from gobanfast.frontends.kernel.bpf import KernelError
from gobanfast.frontends.kernel.maps import FOREVER, Allowed, Entries, Entry, boot_seconds
from gobanfast.frontends.kernel.nft import NftDrops, listed
from kernel_lab import WAIT, banned, key, needs_nft

NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def isolated(law) -> None:
    """Runs a test in a thread that has a network namespace of its own; it and its tables end with the thread."""
    needs_nft()
    raised: list[BaseException] = []

    def inside() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK) != 0:
                pytest.skip("no network namespace can be made here")
            law()
        except BaseException as error:  # noqa: BLE001 - raised again where pytest sees it
            raised.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join(4 * WAIT)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


def columns(entries: dict) -> Entries:
    """Entries as a plan has them."""
    return Entries(
        np.frombuffer(b"".join(packed for packed, _ in entries), np.uint8).reshape(-1, 16),
        np.array([bits for _, bits in entries], np.uint8),
        np.array([entry.end for entry in entries.values()], np.float64),
        np.ones(len(entries), np.uint8),
    )


def test_sets_equal_a_dict() -> None:
    """After any puts, removals and replacements the sets hold what a dict would, with their ends to two seconds."""

    def law() -> None:
        draw = random.Random(7)
        drops = NftDrops.make(capacity=1000)
        model: dict = {}
        texts = [f"10.0.{i}.{j}" for i in range(2) for j in range(6)]
        texts += ["10.0.0.0/24", "10.0.0.0/16", "10.0.1.0/25", "2001:db8::1", "2001:db8::/64", "2001:db8::/48"]
        for _ in range(60):
            chosen = draw.sample(texts, draw.randrange(1, 5))
            ends = [time.time() + draw.choice([600, 3600, 7200]), FOREVER]
            act = draw.random()
            if act < 0.55:
                entries = {found: Entry(draw.choice(ends), 1) for found in map(key, chosen)}
                assert [] == drops.put(entries)
                model |= entries
            elif act < 0.8:
                drops.remove(list(map(key, chosen)))
                for found in map(key, chosen):
                    model.pop(found, None)
            else:
                model = {found: Entry(draw.choice(ends), 1) for found in map(key, draw.sample(texts, 7))}
                drops.replace(columns(model))
            held = dict(drops._held(time.time()))
            assert set(model) == set(held)
            for found, entry in model.items():
                assert entry.end == held[found] or abs(entry.end - held[found]) < 3
        again = NftDrops.present_table()
        assert again is not None
        assert sum(again.status()["entries"].values()) == len(model)
        drops.down()
        assert NftDrops.present_table() is None

    isolated(law)


def test_full_set_takes_nothing() -> None:
    """Entries that find no room are returned; what is there stays."""

    def law() -> None:
        drops = NftDrops.make(capacity=3)
        assert [] == drops.put(banned("10.0.0.1", "10.0.0.2"))
        more = banned("10.0.0.3", "10.0.0.4", "10.0.0.5")
        assert set(more) == set(drops.put(more))
        assert set(banned("10.0.0.1", "10.0.0.2")) == set(dict(drops._held(time.time())))

    isolated(law)


def test_arming_and_allow_sets() -> None:
    """It is armed by an element with a timeout; nested allow prefixes are merged."""

    def law() -> None:
        drops = NftDrops.make(capacity=10)
        drops.allow(Allowed(frozenset(map(key, ("10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "2001:db8::1"))),
                            frozenset({key("192.0.2.9")[0]}), (22, 2222)))  # fmt: skip
        drops.attach()
        assert drops.armed() == 0.0
        drops.arm(boot_seconds() + 100)
        assert 90 < drops.armed() - boot_seconds() <= 101
        drops.arm(None)
        assert drops.armed() is None
        text = listed("list", "table", "inet", "gobanfast", as_json=False)
        assert "elements = { 10.0.0.0/8 }" in text
        assert "elements = { 2001:db8::/32 }" in text
        assert "th dport { 22, 2222 }" in text
        drops.arm(0.0)
        assert drops.armed() == 0.0

    isolated(law)


def test_discard_leaves_no_table() -> None:
    """A set that never got in force is gone after `discard`; one that was in force stays."""

    def law() -> None:
        NftDrops.make(capacity=10).discard()
        assert NftDrops.present_table() is None
        NftDrops.make(capacity=10).attach()
        NftDrops.make(capacity=10).discard()
        assert NftDrops.present_table() is not None

    isolated(law)


def test_without_nft_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program `nft` is an error that names the package."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)

    with pytest.raises(KernelError, match="install nftables"):
        NftDrops.make(capacity=10)
