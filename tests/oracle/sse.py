"""Event streams the slow way: HTML, "Interpreting an event stream", step by step over the whole body."""

from __future__ import annotations

import re
from typing import NamedTuple


class Parsed(NamedTuple):
    """What a client makes of a stream that ended."""

    events: list[tuple[str, str, str]]  # type, data, lastEventId
    retry: int | None  # milliseconds, where the stream set them
    last_id: str  # what the next request sends as Last-Event-ID; empty: nothing


def parse(stream: bytes) -> Parsed:
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _ = re.split(r"\r\n|\r|\n", text)  # a last line without an end is dropped with what is pending
    events: list[tuple[str, str, str]] = []
    retry: int | None = None
    last_id = id_buffer = data = kind = ""
    for line in lines:
        if line == "":
            last_id = id_buffer
            if data:
                events.append((kind or "message", data.removesuffix("\n"), last_id))
            data = kind = ""
            continue
        name, colon, value = line.partition(":")
        if colon:
            value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            id_buffer = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            retry = int(value)
    return Parsed(events, retry, last_id)
