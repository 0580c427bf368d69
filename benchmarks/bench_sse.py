"""Server-sent events beside sse-starlette: fields to bytes, each text a fresh one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.cases import Case, Data, few, timed

SUITE = "sse"
CAPTION = "Server-sent events: ns median (times the no-op call)"
COUNT = 20_000
LINE = "a line of the text of number "

Fields = tuple[str, str | None, str | None, int | None, str | None]


def data_alone(number: int) -> Fields:
    return f"{LINE}{number}", None, None, None, None


def every_field(number: int) -> Fields:
    text = f"{number}"
    return LINE + text, "up" + text, "n" + text, 3000 + number, "of " + text


def lines(number: int) -> Fields:
    return "\n".join([f"{LINE}{number}"] * 20), None, None, None, None


def json_text(number: int) -> Fields:
    return f'{{"user": {number}, "text": "grün, 中文, 😀 and more words behind"}}', None, f"n{number}", None, None


def ours(items: list[Fields], encode: Callable[..., bytes]) -> None:
    for data, event, last_id, retry, comment in items:
        encode(data, event=event, id=last_id, retry=retry, comment=comment)


def theirs(items: list[Fields], make: Callable[..., Any]) -> None:
    for data, event, last_id, retry, comment in items:
        make(data, event=event, id=last_id, retry=retry, comment=comment).encode()


def encode_each(items: list[Any]) -> None:
    """Objects that were made before the clock ran."""
    for item in items:
        item.encode()


def each(items: list[str], call: Callable[[str], object]) -> None:
    for item in items:
        call(item)


def cases(data: Data) -> Iterator[Case]:
    from sse_starlette import ServerSentEvent

    from benchmarks.floor import noop
    from gobanfast.sse import encode

    def made(make: Callable[[int], Fields], number: int) -> Any:
        text, event, last_id, retry, comment = make(number)
        return ServerSentEvent(text, event=event, id=last_id, retry=retry, comment=comment)

    groups: list[tuple[str, Callable[[int], Fields]]] = [
        ("data", data_alone), ("every field", every_field), ("20 lines", lines), ("JSON beyond ASCII", json_text),
    ]  # fmt: skip
    for group, make in groups:
        fresh = partial(few, make, COUNT)
        yield Case(SUITE, group, "no-op call", "yardstick", COUNT, partial(few, str, COUNT), partial(each, call=noop))
        yield Case(SUITE, group, "gobanfast", "ours", COUNT, fresh, partial(ours, encode=encode))
        yield Case(
            SUITE, group, "sse-starlette encode()", "peer", COUNT, partial(few, partial(made, make), COUNT), encode_each
        )
        yield Case(SUITE, group, "sse-starlette", "peer", COUNT, fresh, partial(theirs, make=ServerSentEvent))


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
