"""Pydantic models of the section `limits:`: whom a limit is about, what it counts and by which key."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from gobanfast.rules.rule import Mode, RateLimit, Rule
from gobanfast.rules.text.conditions import When, condition
from gobanfast.rules.text.fields import Duration, Identifier, Model, OneOrMany, schema, validator
from gobanfast.rules.text.settings_schema import DEFAULT_BAN, empty_as_defaults, integer, model_error, seconds

MOST = 1_000_000_000  # requests of a limit
GRAIN = 0.01  # seconds: the clock of decisions is a few milliseconds late
MAX_KEYS = 100_000_000

_KEY = re.compile(r"(header|cookie):([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64})", re.ASCII)
_KEYS = ("client", "fingerprint", "asn", "session", "uid", "given")


def limit_key(value: Any) -> str:
    if value in _KEYS:
        return str(value)
    found = _KEY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f"key {str(value)[:80]!r} is nothing to count by; write {', '.join(_KEYS)}, header:NAME or cookie:NAME"
        )
    return f"header:{found[2].lower()}" if found[1] == "header" else f"cookie:{found[2]}"


def statuses(value: Any) -> tuple[int, int]:
    """A range of statuses from 404, "4xx" or "400-404"."""
    text = str(value)
    if re.fullmatch(r"[1-5]xx", text):
        return 100 * int(text[0]), 100 * int(text[0]) + 99
    found = re.fullmatch(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?", text)
    if found is None or isinstance(value, bool) or int(found[1]) > int(found[2] or found[1]):
        raise ValueError(f"status {text[:40]!r} is not valid; write 401, 4xx or 400-404")
    return int(found[1]), int(found[2] or found[1])


Statuses = Annotated[
    list[Annotated[tuple[int, int], PlainValidator(validator(statuses))]],
    OneOrMany,
    schema("statuses of answers: 401, 4xx, 400-404", {"type": ["integer", "string"]}),
]


class LimitModel(Model):
    """One entry of `limits:`."""

    id: Identifier
    when: Annotated[When, BeforeValidator(condition)]
    limit: Annotated[int, PlainValidator(integer("limit", 1, MOST))] = Field(description="requests that are let in")
    window: Annotated[float, PlainValidator(seconds("window", 1, 86400))] = 60.0
    burst: Annotated[int, PlainValidator(integer("burst", 1, MOST))] | None = Field(
        default=None, description="a token bucket of this size in place of a window"
    )
    cost: Annotated[int, PlainValidator(integer("cost", 1, MOST))] = 1
    key: Annotated[str, PlainValidator(validator(limit_key))] = "client"
    on_status: Statuses = Field(default_factory=list)
    clear_on: Statuses = Field(default_factory=list)
    action: Literal["limit", "challenge", "ban"] = "limit"
    lasts: Duration = Field(default=None, alias="for")
    mode: Mode = "enforce"
    reason: str = ""

    @model_validator(mode="after")
    def fits(self) -> LimitModel:
        if self.burst is not None and self.burst > self.limit:
            raise model_error(f"burst {self.burst} is above limit {self.limit}; a bucket holds at most one window's")
        if self.burst is not None and self.burst * self.window < GRAIN * self.limit:
            least = -int(-GRAIN * self.limit // self.window)
            raise model_error(f"burst {self.burst} comes back within the clock's 10 ms; write {least} or more")
        if self.cost > (self.burst or self.limit):
            raise model_error(f"cost {self.cost} is above {self.burst or self.limit}, which no request would pass")
        if self.clear_on and not self.on_status:
            raise model_error("'clear_on' without 'on_status', and requests are not cleared; write on_status: [401]")
        if self.on_status and self.key == "given":
            raise model_error("'on_status' with key 'given', which only the application counts; remove one of them")
        if self.action == "limit" and self.lasts is not None:
            raise model_error(f"'for' on action '{self.action}'; only a ban lasts, remove it")
        if self.action == "ban" and self.key not in ("client", "fingerprint"):
            raise model_error(f"action 'ban' with key '{self.key}', which is no client's own; write action: limit")
        return self

    def rule(self, source: str, line: int, column: int, names: tuple[str, ...]) -> Rule:
        limit = RateLimit(
            self.limit, self.window, self.burst or 0, self.cost, self.key, self.action, tuple(self.on_status),
            tuple(self.clear_on),
        )  # fmt: skip
        duration = (self.lasts or DEFAULT_BAN) if self.action == "ban" else None
        return Rule(
            self.id, "limit", self.mode, duration, 0, self.reason, source, line, column, self.when.conditions(names),
            limit=limit,
        )  # fmt: skip


class LimitTableModel(Model):
    """Section `limit_table:`, where the counts of `limits:` are."""

    capacity: Annotated[int, PlainValidator(integer("capacity", 8, MAX_KEYS))] = 65_536
    share: bool = Field(default=True, description="with other processes of this user that load the same rules file")


LimitTableSection = Annotated[LimitTableModel, BeforeValidator(empty_as_defaults)]
