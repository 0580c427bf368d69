"""Exchanges of the table with an application under the adapter, and what of them the table speaks about."""

from __future__ import annotations

import asyncio
from typing import Any

from adapters import tables


def run(row: dict[str, Any]) -> tuple[bool, list[tuple[str, str]], int]:
    """(whether the application was called, the response's headers in lower case, its status)."""
    called: list[bool] = []
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(True)
        headers = [(name.encode(), value.encode()) for name, value in row["app"]["headers"]]
        await send({"type": "http.response.start", "status": row["app"]["status"], "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": row["request"]["method"], "path": "/", "raw_path": b"/", "query_string": b"",
        "scheme": "https", "client": ("192.0.2.1", 4000), "http_version": "1.1",
        "headers": [(name.encode(), value.encode()) for name, value in row["request"]["headers"]],
    }  # fmt: skip
    asyncio.run(tables.exchange(row["policy"], app)(scope, receive, send))
    headers = [(name.decode().lower(), value.decode()) for name, value in sent[0]["headers"]]
    return bool(called), headers, sent[0]["status"]


def listed(headers: list[tuple[str, str]], name: str) -> list[str]:
    """The members of all lines of a header, in lower case."""
    return [item.strip().lower() for key, value in headers if key == name for item in value.split(",") if item.strip()]


def seen(row: dict[str, Any]) -> dict[str, Any]:
    """What the table's `expect` speaks about, as it was."""
    called, headers, status = run(row)
    expect, request = row["expect"], row["request"]
    lines = {key: [value for name, value in headers if name == key] for key, _ in headers}
    said = {
        "app_called": called,
        "acao": lines.get("access-control-allow-origin", []),
        "acac": lines.get("access-control-allow-credentials", []),
        "expose": sorted(listed(headers, "access-control-expose-headers")),
        "vary_origin": "origin" in listed(headers, "vary"),
        "vary_keeps": [name for name in expect.get("vary_keeps", []) if name in listed(headers, "vary")],
        "only_ours": all(len(found) == 1 for name, found in lines.items() if name.startswith("access-control-")),
        "preflight": not called and request["method"] == "OPTIONS",
        "max_age": lines.get("access-control-max-age", []),
        "browser": browser(row, headers, status, called),
    }
    return {key: said[key] for key in expect if key in said}


def browser(row: dict[str, Any], headers: list[tuple[str, str]], status: int, called: bool) -> str | None:
    """What a browser makes of it; "-": it does not come to that, "blocked" for every step of a preflight."""
    if row["expect"].get("browser") == "-":
        return "-"
    given = dict(row["request"]["headers"])
    request: dict[str, Any] = {
        "origin": given.get("origin", given.get("Origin")),
        "credentials": "include" if row["policy"]["credentials"] else "omit",
    }
    lines = {
        short: [value for name, value in headers if name == f"access-control-{long}"]
        for short, long in (
            ("acao", "allow-origin"), ("acac", "allow-credentials"), ("acam", "allow-methods"),
            ("acah", "allow-headers"),
        )
    }  # fmt: skip
    if called:
        return tables.cors_check(request, lines)
    asked = given.get("access-control-request-headers")
    request |= {"method": given["access-control-request-method"], "headers": asked.split(",") if asked else []}
    return "blocked" if tables.preflight_check(request, lines | {"status": status}) else None
