"""Durable bans: `open_store(uri)`, and `attach(engine, uri)` to synchronise an engine with a store."""

from __future__ import annotations

from gobanfast.stores.aio import AsyncStore
from gobanfast.stores.codec import decode_ban, encode_ban, store_name
from gobanfast.stores.store import Change, Changes, Cursor, RecordError, Store, StoreAddressError, StoreError
from gobanfast.stores.sync import Sync, attach
from gobanfast.stores.uri import open_store

__all__ = [
    "AsyncStore",
    "Change",
    "Changes",
    "Cursor",
    "RecordError",
    "Store",
    "StoreAddressError",
    "StoreError",
    "Sync",
    "attach",
    "decode_ban",
    "encode_ban",
    "open_store",
    "store_name",
]
