"""Server-sent events: the encoder against a parser written from the specification, headers, heartbeats."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import sse
from gobanfast.sse import encode, with_heartbeats
from oracle.sse import parse

#: Letters that line splitting gets wrong, and others.
SPECIAL = "\r\n\0\v\f\x1c\x1d\x1e\x85\u2028\u2029\ufeff :xé中😀"
LETTERS = st.sampled_from(SPECIAL) | st.characters(exclude_categories=["Cs"])
TEXTS = st.text(LETTERS)
LINES = TEXTS.map(lambda text: re.sub("[\r\n]", "", text))
NUMBERS = st.integers(0, 2**63 - 1)


def with_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@given(
    data=st.none() | TEXTS,
    as_bytes=st.booleans(),
    event=st.none() | LINES,
    last_id=st.none() | LINES.map(lambda text: text.replace("\0", "")) | st.integers(),
    retry=st.none() | NUMBERS,
    comment=st.none() | TEXTS,
)
def test_a_client_reads_what_was_encoded(
    data: str | None,
    as_bytes: bool,
    event: str | None,
    last_id: str | int | None,
    retry: int | None,
    comment: str | None,
) -> None:
    """Every field comes back; of the data each line end is LF; nothing else is dispatched."""
    given_data = data.encode() if as_bytes and data is not None else data
    parsed = parse(encode(given_data, event=event, id=last_id, retry=retry, comment=comment))
    expected_id = "" if last_id is None else str(last_id)
    events = [] if data is None else [(event or "message", with_lf(data), expected_id)]

    assert events == parsed.events
    assert (retry, expected_id) == (parsed.retry, parsed.last_id)


@given(st.lists(TEXTS))
def test_events_of_a_stream_stay_apart(texts: list[str]) -> None:
    """Blocks put one behind the other are the events in order."""
    stream = b"".join(encode(text, id=number) for number, text in enumerate(texts))

    assert [("message", with_lf(text), str(number)) for number, text in enumerate(texts)] == parse(stream).events


@given(TEXTS)
def test_a_name_or_id_that_would_break_the_stream_is_refused(text: str) -> None:
    """A line end in either, a NUL in an id; no other letter."""
    ends = "\r" in text or "\n" in text
    for name, refused in (("event", ends), ("id", ends or "\0" in text)):
        with pytest.raises(ValueError, match="has a line end") if refused else nullcontext():
            encode("x", **{name: text})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"id": "a\0"}, "id 'a\\x00' has a line end or NUL"),
        ({"event": "a\nb"}, "event 'a\\nb' has a line end"),
        ({"retry": -1}, "retry -1 is not a whole number"),
        ({"retry": 2**63}, "retry 9223372036854775808 is not a whole number"),
        ({"retry": 1.5}, "retry 1.5 is not a whole number"),
        ({"retry": "3s"}, "retry '3s' is not a whole number"),
        ({"retry": True}, "retry True is not a whole number"),
        ({"data": "\ud800"}, "surrogates not allowed"),
        ({"data": b"\xff"}, "invalid start byte"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], says: str) -> None:
    """A ValueError shows the value and what would be right."""
    with pytest.raises(ValueError, match=re.escape(says)):
        encode(**fields)


@pytest.mark.parametrize("name", ["data", "event", "id", "comment"])
def test_other_types_are_refused(name: str) -> None:
    """A TypeError names the argument and its type."""
    with pytest.raises(TypeError, match=f"^{name} is of type dict; give"):
        encode(**{name: {}})  # type: ignore[arg-type]


def test_headers() -> None:
    """No cache, no transformation, no buffering, and nothing that HTTP/2 forbids."""
    assert sse.HEADERS == (
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-store, no-transform"),
        (b"x-accel-buffering", b"no"),
    )
    assert sse.TEXT_HEADERS == tuple((name.decode(), value.decode()) for name, value in sse.HEADERS)
    assert parse(sse.HEARTBEAT) == ([], None, "")


class Source:
    """A stream that a test feeds; it notes that it was closed."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = False

    async def events(self) -> AsyncIterator[bytes]:
        try:
            while (item := await self.items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


def test_heartbeats_come_while_nothing_else_does() -> None:
    """They fill a silence, lose no event, and end with the stream."""

    async def run() -> list[bytes]:
        source = Source()
        source.items.put_nowait(b"1")
        found: list[bytes] = []
        async for item in with_heartbeats(source.events(), 0.01):
            found.append(item)
            if found.count(sse.HEARTBEAT) == 2 and b"2" not in found:
                source.items.put_nowait(b"2")
                source.items.put_nowait(None)
        assert source.closed
        return found

    found = asyncio.run(run())

    assert [b"1", b"2"] == [item for item in found if item != sse.HEARTBEAT]
    assert [b"1", sse.HEARTBEAT, sse.HEARTBEAT] == found[:3]


@pytest.mark.parametrize("waits", [False, True])
def test_a_stream_that_is_closed_closes_its_source(waits: bool) -> None:
    """In the middle of a wait, too."""

    async def run() -> bool:
        source = Source()
        source.items.put_nowait(b"1")
        stream = with_heartbeats(source.events(), 0.01 if waits else 60)
        assert b"1" == await anext(stream)
        if waits:
            assert sse.HEARTBEAT == await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return source.closed

    assert asyncio.run(run())


def test_an_error_of_the_source_is_the_streams() -> None:
    """It ends the stream."""

    async def run() -> None:
        source = Source()
        source.items.put_nowait(RuntimeError("mine"))
        async for _ in with_heartbeats(source.events()):
            pass

    with pytest.raises(RuntimeError, match="mine"):
        asyncio.run(run())


def test_an_error_while_a_stream_is_closed_is_not_told() -> None:
    """No "exception was never retrieved" of the event loop, and the source is closed."""
    told: list[object] = []

    async def events() -> AsyncIterator[bytes]:
        yield b"1"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("on the way out") from None

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        stream = with_heartbeats(events(), 0.01)
        assert [b"1", sse.HEARTBEAT] == [await anext(stream), await anext(stream)]
        await stream.aclose()  # type: ignore[attr-defined]
        gc.collect()

    asyncio.run(run())

    assert [] == told


def test_heartbeats_need_a_time() -> None:
    """At once, not at the first event."""
    with pytest.raises(ValueError, match="every=0 is not a number of seconds above 0"):
        with_heartbeats(Source().events(), 0)
