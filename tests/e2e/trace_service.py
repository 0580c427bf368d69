"""Service that makes the calls its request's body lists, a JSON array of {url, arguments}, as the W3C harness asks."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from adapters.w3c import inject, wrap


def call(url: str, arguments: Any, headers: dict[str, str]) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("POST", parts.path, json.dumps(arguments), {"content-type": "application/json", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


async def service(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    for action in json.loads(body or b"[]"):
        headers: dict[str, str] = {}
        inject(headers)
        await asyncio.to_thread(call, action["url"], action.get("arguments") or [], headers)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"done"})


app = wrap(service)
