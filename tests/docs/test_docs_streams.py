"""What docs/streams.md shows runs, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gobanfast import sse
from oracle.sse import parse

PAGE = (Path(__file__).parents[2] / "docs" / "streams.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EVENTS = [("message", f"number {number}", f"{number}") for number in (1, 2, 3)] + [("end", "that was all", "3")]


def block(name: str) -> str:
    """The block that holds a text."""
    (found,) = [text for text in BLOCKS if name in text]
    return found


def test_the_printed_event() -> None:
    """Byte for byte."""
    (expected,) = re.findall(r"```text\n(: for people.*?)```", PAGE, re.DOTALL)
    code = block("for people")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert expected == done.stdout


def test_the_fastapi_example() -> None:
    """All events; behind a Last-Event-ID the rest of them; one that is none is the start."""
    pytest.importorskip("fastapi")
    client_of = pytest.importorskip("fastapi.testclient").TestClient
    names: dict[str, Any] = {"__name__": "streams_fastapi"}
    exec(block("from fastapi import"), names)  # noqa: S102
    client = client_of(names["app"])

    for last, first in (("", 0), ("2", 2), ("²", 0), ("9" * 5000, 0), ("-1", 0)):
        answer = client.get("/events", headers={"last-event-id": last.encode()})
        assert set(sse.TEXT_HEADERS) <= set(answer.headers.items())
        parsed = parse(answer.content)
        assert (EVENTS[first:], 2000) == (parsed.events, parsed.retry)


def test_public_names_are_on_the_page() -> None:
    """Each name of the module."""
    assert [] == [name for name in sse.__all__ if f"`{name}" not in PAGE]
