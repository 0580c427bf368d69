"""Store URIs: the store that one names, imported when it is."""

from __future__ import annotations

from gobanfast.stores.store import Store


def open_store(uri: str, *, create: bool = True) -> Store:
    """The store that a URI names. Nothing is connected before the first call.

    Args:
        create: False: an SQLite file that is not there is a StoreError in place of a new file.

    | `memory:` | this process only |
    | `sqlite:PATH` | a file for all processes of a host; the default choice |
    | `redis://[user:password@]host[:port][/db][?prefix=app:]`, `rediss://` | Redis or Valkey, all hosts |
    | `unix://PATH[?db=1&password=..&prefix=app:]` | the same, on a socket of this host |

    Raises:
        ValueError: another URI. StoreAddressError, which is one, too: the package that the store needs is missing.
    """
    if not isinstance(uri, str):
        raise TypeError(
            f"store is {uri!r:.80}, {type(uri).__name__} and not str; write memory:, sqlite:PATH or redis://"
        )
    scheme, colon, rest = uri.partition(":")
    if colon and scheme == "memory" and not rest:
        from gobanfast.stores.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite" and rest.startswith("//"):
        path = rest.removeprefix("//").removeprefix("/") or "bans.db"
        raise ValueError(f"store {uri!r} is written as SQLAlchemy does; write sqlite:PATH, like sqlite:{path}")
    if uri == "sqlite::memory:":
        raise ValueError("store 'sqlite::memory:' would outlive nothing; write sqlite:PATH, or memory:")
    if colon and scheme == "sqlite" and rest:
        from gobanfast.stores.sqlite import SqliteStore

        return SqliteStore(rest, create=create)
    if scheme in {"redis", "rediss", "unix"} and rest.startswith("//"):
        from gobanfast.stores.redis import RedisStore

        return RedisStore(uri)
    shown = uri.rpartition("@")[2]  # a password is in front of it
    if "sentinel" in scheme or "cluster" in scheme:
        what = f"store {shown!r} is of Redis {'Sentinel' if 'sentinel' in scheme else 'Cluster'}, which is not asked"
        raise ValueError(f"{what}; write redis://host:port/db of one server, by a name that follows the primary")
    raise ValueError(
        f"store {shown!r} is not a store address; write memory:, sqlite:PATH, redis://host:port/db or unix://PATH"
    )
