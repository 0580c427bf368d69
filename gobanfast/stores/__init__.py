"""Bans that outlive the process: `open_store(uri)`, and `attach(engine, uri)` to keep an engine and a store in step."""

from __future__ import annotations

from gobanfast.stores.aio import AsyncStore
from gobanfast.stores.record import decode_ban, encode_ban, store_name
from gobanfast.stores.store import Change, Changes, Cursor, Store, StoreError
from gobanfast.stores.sync import Sync, attach

__all__ = [
    "AsyncStore",
    "Change",
    "Changes",
    "Cursor",
    "Store",
    "StoreError",
    "Sync",
    "attach",
    "decode_ban",
    "encode_ban",
    "open_store",
    "store_name",
]


def open_store(uri: str) -> Store:
    """The store that a URI names. Nothing is connected before the first call.

    | `memory:` | this process only |
    | `sqlite:PATH` | a file for all processes of a host; the default choice |
    | `redis://[user:password@]host[:port][/db][?prefix=app:]`, `rediss://`, `unix://` | Redis or Valkey, all hosts |

    Raises:
        ValueError: another URI.
    """
    scheme, colon, rest = uri.partition(":")
    if colon and scheme == "memory" and not rest:
        from gobanfast.stores.memory import MemoryStore

        return MemoryStore()
    if colon and scheme == "sqlite" and rest:
        from gobanfast.stores.sqlite import SqliteStore

        return SqliteStore(rest)
    if scheme in {"redis", "rediss", "unix"} and rest.startswith("//"):
        from gobanfast.stores.redis import RedisStore

        return RedisStore(uri)
    shown = uri.rpartition("@")[2]  # a password is in front of it
    raise ValueError(f"store {shown!r} is not one; write memory:, sqlite:PATH, redis://host:port/db or unix://PATH")
