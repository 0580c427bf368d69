"""Rules about sharing by example: what cannot be read, preflights, ownership, counters, swaps, and rules without them."""

from __future__ import annotations

from typing import Any

import pytest

from gobanfast import Engine, Ruleset
from gobanfast._core.headers import PartialHeaders
from rules_fakes import FakeAsnTable

APP = (b"origin", b"https://app.example.com")
HOST = (b"host", b"api.example.com")


def engine_of(share: str = "[]", rules: str = "[]", head: str = "") -> Engine:
    text = f"{head}rules: {rules}\nshare: {share}\n"
    return Engine(Ruleset.from_text(text, asn=FakeAsnTable()))  # type: ignore[arg-type]


def preflight(method: bytes = b"PUT", names: bytes | None = None, **more: Any) -> dict[str, Any]:
    headers = [HOST, APP, (b"access-control-request-method", method)]
    if names is not None:
        headers.append((b"access-control-request-headers", names))
    headers += more.pop("headers", [])
    return {"method": "OPTIONS", "path": "/x", "headers": headers, **more}


# ---- who writes


@pytest.mark.parametrize(
    ("method", "headers", "share"),
    [
        ("X" * 33, [APP, HOST], "refused"),
        ("a b", [APP, HOST], "refused"),
        (None, [APP, HOST], None),
        ("POST", [APP, HOST], "refused"),
        ("POST", [(b"origin", b"https://api.example.com"), HOST], None),
        ("POST", [(b"origin", b"evil.example/x://api.example.com"), HOST], "refused"),
        ("POST", [(b"origin", b"://api.example.com"), HOST], "refused"),
        ("POST", [(b"origin", b"1s://api.example.com"), HOST], "refused"),
        ("POST", PartialHeaders([APP], ("origin", "sec-fetch-site")), None),
        ("POST", PartialHeaders([APP], ("origin", "sec-fetch-site", "host")), "refused"),
        ("POST", PartialHeaders([(b"sec-fetch-site", b"cross-site")], ("sec-fetch-site",)), "refused"),
        ("POST", PartialHeaders([(b"sec-fetch-site", b"none")], ("sec-fetch-site",)), None),
        ("POST", PartialHeaders([], ("sec-fetch-site",)), None),
        ("POST", [(b"x", b"\0"), APP, HOST], None),
    ],
    ids=str,
)
def test_cross_origin_writes(method: str | None, headers: Any, share: str | None) -> None:
    """Only GET, HEAD and OPTIONS change nothing, so that what is no method may; an Origin without a scheme is of no host;
    headers that a source does not keep are not absent ones."""
    engine = engine_of("[{id: writes, when: {cross_origin_write: true}, action: refuse}]")

    assert share == engine.decide("192.0.2.1", method=method, path="/x", headers=headers).share
