"""An engine of bans only, and the servers that tests of stores need."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress

import pytest

from gobanfast._core.ban_table import BanTable
from gobanfast.bans import ban_key
from gobanfast.stores import attach

WAIT = 20  # generous seconds for what should take milliseconds


class FakeEngine:
    """The part of an engine that stores see: a real table."""

    def __init__(self, **options):
        self.ban_table = BanTable(**options)
        self.sync = None

    def ban(self, key, *, duration=None, reason="", rule=None):
        return self.ban_table.ban(ban_key(key), duration=duration, reason=reason, rule=rule)

    def unban(self, key):
        return self.ban_table.unban(ban_key(key))

    def banned(self, key):
        return self.ban_table.get(key) is not None


def eventually(happened, seconds=WAIT):
    """Whether `happened()` comes true, asked until then."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Redis:
    """A redis-server of a test's own."""

    def __init__(self, folder, *options):
        self.port = 65_535
        while self.port + 10_000 > 65_535:  # where a server of a cluster listens, too
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        self.folder, self.options = folder, options
        self.uri = f"redis://127.0.0.1:{self.port}/0"
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [shutil.which("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--dir", str(self.folder), "--appendonly", "no", *self.options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if not eventually(self.answers):
            self.kill()
            pytest.fail(f"redis-server does not answer on port {self.port}")

    def answers(self):
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith(b"+PONG")
        return False

    def kill(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(WAIT)

    def hang(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def redis_server(tmp_path):
    """A running Redis; skips where there is none to run."""
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on PATH")
    server = Redis(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def syncs():
    """Makes attached engines and closes them at the end: syncs(store, ...) -> (engine, sync)."""
    made = []

    def make(store, **options):
        engine = FakeEngine()
        made.append(attach(engine, store, **options))
        return engine, made[-1]

    yield make
    for sync in made:
        sync.close(0.2)
