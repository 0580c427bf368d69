"""Every firm row of the tables of right answers, through the adapters. The tables come with GOBANFAST_DATA."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters import exchanges, tables

Row = dict[str, Any]
Check = Callable[[Row], tuple[Any, Any]]

#: By table: what the adapter says of a row, and what is right.
CHECKS: dict[str, Check] = {
    "origins": lambda row: (
        tables.origin(row["patterns"], row["credentials"], lines(row["origin"])) is not None,
        row["allow"],
    ),
    "acrh": lambda row: (tables.acrh(row["allowed"], row["credentials"], lines(row["lines"])), row["accept"]),
    "config": lambda row: (tables.config(row["policy"]), row["problems"]),
    "cors_check": lambda row: (tables.cors_check(row["request"], row["response"]), row["step"]),
    "preflight_check": lambda row: (tables.preflight_check(row["request"], row["response"]), row["step"]),
    "sampling_decide": lambda row: (tables.sample(row), row["result"]),
    "sampling_parse": lambda row: (tables.ot(row["ot"]), {"th": row["th"], "rv": row["rv"]}),
    "sampling_th": lambda row: (tables.th(row["probability"], row["precision"]), row["th"]),
    "sla_rate": lambda row: (tables.sla_rate(row["weight"], row["p99_ms"], row["error_rate"]), row["rate"]),
    "safelist": lambda row: (tables.preflight_headers(row["headers"]), row["preflight_headers"]),
    "traceparent": lambda row: (tables.traceparent(lines(row["lines"])), row["context"]),
    "tracestate": lambda row: one_of(tables.tracestate(lines(row["lines"])), row["members"], *row.get("or", ())),
    "tracestate_set": lambda row: (
        tables.tracestate_set(lines(row["lines"]), row["key"], row["value"]),
        text(row["header"]),
    ),
    "baggage": lambda row: (tables.baggage(lines(row["lines"])), row["members"]),
    "b3": lambda row: (tables.b3(row["headers"]), row["context"]),
    "extract": lambda row: (tables.extract(row["headers"]), row["winner"]),
    "log_fields": lambda row: (tables.log_fields(row["context"]), row["fields"]),
    "csrf": lambda row: (tables.csrf(row["request"]), row["allow"]),
    "guard": lambda row: (tables.guard(row["policy"], row["request"]), row["status"]),
    "exchange": lambda row: (exchanges.seen(row), row["expect"]),
    "sse_streams": lambda row: (
        tables.sse_parse(b64decode(row["stream_b64"])),
        {key: row[key] for key in ("events", "retry", "last_id")},
    ),
    "sse_encode": lambda row: one_of(
        encoded(row["fields"]),
        *(["error"] if row.get("error") else [{key: row[key] for key in ("events", "retry", "last_id")}]),
        *(["error"] if row.get("or_error") else []),
    ),
}


def lines(value: Any) -> list[str]:
    """Field lines of a row; recipes stand for long ones."""
    return [line for item in ([value] if isinstance(value, dict) else value or ()) for line in line_of(item)]


def line_of(item: Any) -> list[str]:
    if isinstance(item, str):
        return [item]
    if "line" in item:
        return [item["line"]] * item["times"]
    if "join" in item:
        return [",".join(item["join"] % number for number in range(item["range"]))]
    return [item.get("first", "") + item["repeat"] * item["times"] + item.get("then", "")]


def text(value: Any) -> str:
    """One text of a row, as it is or by a recipe."""
    (line,) = line_of(value)
    return line


def one_of(found: Any, *right: Any) -> tuple[Any, Any]:
    """What was found beside the right answer that it is; of several the first when it is none."""
    return found, found if found in right else right[0]


def encoded(fields: dict[str, Any]) -> Any:
    """What a client reads of an event that was encoded; "error" where it was refused."""
    try:
        return tables.sse_parse(tables.sse_encode(fields))
    except ValueError:
        return "error"


def wrong_rows(table: dict[str, Any], check: Check) -> list[str]:
    wrong = []
    for row in table["rows"]:
        found, right = check(row)
        if found != right and row.get("firm", True):
            wrong.append(f"{row['id']} ({row['why']}): {found!r:.200}, not {right!r:.200}")
    return wrong


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_every_firm_row_is_right(name: str, real_data: Path) -> None:
    folder = next(real_data / part for part in ("share", "record") if (real_data / part / f"{name}.json").exists())
    wrong = wrong_rows(json.loads((folder / f"{name}.json").read_text()), CHECKS[name])
    assert not wrong, "\n".join(wrong)


#: Adapters that are not called as their table is.
ADAPTERS = {
    "origins": "origin",
    "safelist": "preflight_headers",
    "sampling_decide": "sample",
    "sampling_parse": "ot",
    "sampling_th": "th",
    "sse_streams": "sse_parse",
}


def test_every_check_has_an_adapter() -> None:
    assert [name for name in CHECKS if not hasattr(tables, ADAPTERS.get(name, name))] == []
