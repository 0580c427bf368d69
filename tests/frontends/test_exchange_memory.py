"""Response headers whose list changes while an exchange makes its own of it: a finalizer runs where memory is taken."""

from __future__ import annotations

import gc

import pytest

from gobanfast import Engine, Ruleset
from gobanfast._core.exchange import Exchange
from gobanfast.frontends.http import HttpGuard

RULES = "{version: 1, share: [{id: g, when: {path: /owned}, action: grant, expose: [etag]}]}"


class Clearing:
    """Garbage that only the collector finds, and that empties a list when it does."""

    def __init__(self, rows: list[object]) -> None:
        self.rows, self.own = rows, self

    def __del__(self) -> None:
        self.rows.clear()


@pytest.mark.parametrize("threshold", range(1, 7))
@pytest.mark.parametrize("path", ["/owned", "/other"])
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("inner", [tuple, list])
def test_a_list_that_shrinks_is_read_no_further(threshold: int, path: str, text: bool, inner: type) -> None:
    """Each header that comes out is whole, and ours are among them."""
    guard = HttpGuard(Engine(Ruleset.from_text(RULES)))
    exchange = Exchange(guard, [(b"host", b"a")], peer="192.0.2.1", method="GET", path=path)
    exchange.begin()
    pair = ("name", "value") if text else (b"name", b"value")
    rows: list[object] = [inner(pair) for _ in range(500)]
    before = gc.get_threshold()
    gc.disable()
    gc.collect()
    Clearing(rows)
    gc.enable()
    gc.set_threshold(threshold)
    try:
        made = exchange.response_headers(rows, text=text)
    finally:
        gc.set_threshold(*before)

    names = [name.lower() if text else name.decode().lower() for name, _ in made]
    assert 1 == names.count("x-request-id")
    assert (path == "/owned") == ("access-control-allow-origin" in names)
    assert {tuple(pair)} >= {tuple(item) for item, name in zip(made, names, strict=True) if name == "name"}
