"""Asynchronous wrapper of a store."""

from __future__ import annotations

import asyncio
from typing import Any

from gobanfast.bans import Ban
from gobanfast.stores.store import Changes, Cursor, Store


class AsyncStore:
    """The same store for coroutines: each call runs in a thread of asyncio's pool, so the loop never waits for it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def set(self, ban: Ban, *, now: float | None = None) -> None:
        """Stores a ban."""
        await asyncio.to_thread(self.store.set, ban, now=now)

    async def get(self, key: str, *, now: float | None = None) -> Ban | None:
        """The ban of this key."""
        return await asyncio.to_thread(self.store.get, key, now=now)

    async def exists(self, key: str, *, now: float | None = None) -> bool:
        """Whether this key is banned."""
        return await asyncio.to_thread(self.store.exists, key, now=now)

    async def delete(self, key: str, *, now: float | None = None) -> bool:
        """Lifts the ban of this key; False if there was none."""
        return await asyncio.to_thread(self.store.delete, key, now=now)

    async def extend(self, key: str, expires: float | None, *, now: float | None = None) -> Ban | None:
        """Makes a ban last at least until `expires`."""
        return await asyncio.to_thread(self.store.extend, key, expires, now=now)

    async def scan(self, prefix: str = "", *, now: float | None = None) -> list[Ban]:
        """All bans whose key begins with `prefix`."""
        return await asyncio.to_thread(lambda: list(self.store.scan(prefix, now=now)))

    async def watch(self, cursor: Cursor | None, *, timeout: float) -> Changes:
        """What changed after `cursor`; waits up to `timeout` seconds."""
        return await asyncio.to_thread(self.store.watch, cursor, timeout=timeout)

    async def health(self) -> dict[str, Any]:
        """What the store says of itself."""
        return await asyncio.to_thread(self.store.health)

    async def close(self) -> None:
        """Closes connections."""
        await asyncio.to_thread(self.store.close)
