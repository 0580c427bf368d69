"""Stores: how soon a ban of one worker is enforced by another, and how fast a list is imported."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.cases import Case, Data, Row

SUITE = "stores"
CAPTION = "From a ban in one process to its being in force in another; one ban imported: median (best)"
TURNS = 150
BETWEEN = 0.02  # seconds, more or less, so that polls are met at any moment
LISTED = 100_000
BATCH = 20_000


class Bans:
    """As much of an engine as a store sees."""

    def __init__(self) -> None:
        from gobanfast._core.ban_table import BanTable

        self.ban_table = BanTable()

    def ban(self, key: str) -> None:
        self.ban_table.ban(key, duration=3600)


def cases(data: Data) -> Iterator[Case]:
    """None: what is measured is waiting; see `facts`."""
    return iter(())


def facts(data: Data) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for group, uri in stores(Path(folder), data):
            with uri as place:
                rows.append(Row(SUITE, group, "ban to ban", "ours", "ns", propagation(place)))
                rows += [
                    Row(SUITE, group, f"import, {form}", "ours", "ns", imported(Path(folder), place, form))
                    for form in ("jsonl", "plain")
                ]
    return rows


def stores(folder: Path, data: Data) -> Iterator[tuple[str, object]]:
    @contextmanager
    def sqlite():
        yield f"sqlite:{folder / 'bans.db'}"

    yield "SQLite", sqlite()
    program = shutil.which("redis-server")
    if program is None:
        data.skipped["stores Redis"] = "redis-server is not on PATH"
        return

    @contextmanager
    def redis():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [program, "--port", str(port), "--save", "", "--dir", str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for _ in range(500):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()

    yield "Redis", redis()


def propagation(uri: str) -> list[float]:
    """ns from `ban` in this process until a child has it in its table; the child looks every 0.2 ms."""
    from gobanfast.stores import attach

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        engine = Bans()
        attach(engine, uri, wait=10)
        os.write(write, b"\n")
        for n in range(TURNS):
            while engine.ban_table.get(f"10.0.{n >> 8}.{n & 255}") is None:
                time.sleep(0.0002)
            os.write(write, f"{time.monotonic_ns()}\n".encode())
        signal.pause()
    engine = Bans()
    sync = attach(engine, uri, wait=10)
    taken = []
    with os.fdopen(read) as seen:
        seen.readline()
        for n in range(TURNS):
            time.sleep(BETWEEN + n % 20 / 1000)
            started = time.monotonic_ns()
            engine.ban(f"10.0.{n >> 8}.{n & 255}")
            taken.append(float(int(seen.readline()) - started))
    os.close(write)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    sync.close()
    return taken


def imported(folder: Path, uri: str, form: str) -> list[float]:
    """ns a ban, wall time: reading a list, and writing it to the store."""
    from gobanfast.bans import Ban
    from gobanfast.cli.bans import batches
    from gobanfast.stores import encode_ban, open_store
    from gobanfast.stores.formats import Imported, read_bans

    path, now, taken = folder / f"list.{form}", time.time(), []
    store = open_store(uri)
    for turn in range(3):
        keys = [f"{11 + turn}.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(LISTED)]
        path.write_text("".join(f"{encode_ban(Ban(k, 'x', 'r', now)) if form == 'jsonl' else k}\n" for k in keys))
        started = time.perf_counter_ns()
        for batch in batches(read_bans(path, form, Imported(), now=now), BATCH):
            store.apply([(ban.key, ban) for ban in batch], now=now)
        taken.append((time.perf_counter_ns() - started) / LISTED)
    store.close()
    return taken
