"""Addresses of Redis: sockets, databases and passwords in them, servers that are none of ours."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.bans import Ban
from gobanfast.stores import StoreAddressError, StoreError, attach, open_store
from stores_fakes import Redis, eventually


def start(folder, *options):
    """A Redis; skips where there is none to run."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on PATH")
    return Redis(folder, *options)


@pytest.fixture
def on_a_socket():
    """The path of the socket of a Redis that asks for a password."""
    pytest.importorskip("redis")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for a socket
        path = Path(folder) / "redis.sock"
        server = start(folder, "--unixsocket", str(path))
        with closing(open_store(f"unix://{path}")) as store:
            store._ask("CONFIG", "SET", "requirepass", "hush:hu/sh?")
        yield path
        server.kill()


def test_unix_sockets(on_a_socket):
    """The path, database, password and prefix of a unix:// address are used; the password is never shown."""
    one = open_store(f"unix://{on_a_socket}?db=2&password=hush%3Ahu%2Fsh%3F&prefix=app:")
    one.set(Ban("203.0.113.7"))
    two = open_store(f"unix://:hush%3Ahu%2Fsh%3F@{on_a_socket}?db=2")
    assert 1 == two._ask("EXISTS", "app:ban:203.0.113.7")
    assert [] == list(open_store(f"unix://{on_a_socket}?password=hush%3Ahu%2Fsh%3F").scan())
    for store in (one, two):
        assert "hush" not in store.uri
        assert str(on_a_socket) in store.uri
        store.close()
    with pytest.raises(StoreError, match=r"password") as caught:
        open_store(f"unix://{on_a_socket}?password=hushwrong").health()
    assert "hushwrong" not in str(caught.value)


@pytest.mark.parametrize("path", ["/nowhere/redis.sock", "/"])
def test_a_socket_that_is_not_there(path):
    """A StoreError that says so, not a traceback of the client library; an engine goes on without it."""
    pytest.importorskip("redis")
    store = open_store(f"unix://{path}")
    with pytest.raises(StoreError, match=f"unix://{path}: "):
        list(store.scan())
    engine = Engine(Ruleset.from_text("rules:\n- {id: a, when: {prefix: 192.0.2.1/32}, action: ban}\n"))
    sync = attach(engine, store, wait=0)
    engine.ban("203.0.113.7")
    assert eventually(lambda: sync.outage)
    assert "ban" == engine.decide("203.0.113.7").action
    sync.close(0.1)


def test_a_cluster_is_refused_at_once(tmp_path):
    """One server of a cluster has not all bans: an error when the engine is loaded, with what would be right."""
    pytest.importorskip("redis")
    server = start(tmp_path, "--cluster-enabled", "yes")
    try:
        engine = Engine(Ruleset.from_text("rules:\n- {id: a, when: {prefix: 192.0.2.1/32}, action: ban}\n"))
        before = set(threading.enumerate())
        with pytest.raises(StoreAddressError, match="is a Redis Cluster, where no server has all bans"):
            attach(engine, f"{server.uri}?prefix={{gobanfast}}:")
        assert engine.sync is None
        assert set() == set(threading.enumerate()) - before
    finally:
        server.kill()


def test_a_server_that_is_no_redis():
    """Something else that listens there is a store that does not answer, within its timeouts."""
    pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        store = open_store(f"redis://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(StoreError):
            store.health()
        store.close()
