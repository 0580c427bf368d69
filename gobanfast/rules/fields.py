"""The field types both schemas are built from: what people write in, parsed values out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from gobanfast._address import parse_prefix
from gobanfast._errors import Problem
from gobanfast.rules.lists import ListError, read_list
from gobanfast.rules.regex import compile_regex
from gobanfast.rules.rule import PrefixList
from gobanfast.rules.values import parse_asn, parse_duration

T = TypeVar("T")


@dataclass(slots=True)
class Reading:
    """What the validators of one file share: where list files are, and the problems found inside them."""

    directory: Path
    problems: list[Problem] = field(default_factory=list)
    lists: dict[Path, PrefixList] = field(default_factory=dict)


def checked(parse: Callable[[Any], T]) -> Callable[[Any], T]:
    """`parse` for pydantic: its ValueError "what; hint" becomes the message of the problem."""

    def validate(value: Any) -> T:
        try:
            return parse(value)
        except ValueError as error:
            raise PydanticCustomError("value", "{text}", {"text": str(error)}) from None

    return validate


def one_or_more(value: Any) -> Any:
    if isinstance(value, list):
        if not value:
            raise ValueError("an empty list matches nothing; remove the condition or give it a value")
        return value
    return [value]


def prefix(value: Any) -> tuple[bytes, int]:
    if not isinstance(value, str):
        raise ValueError(f"prefix {value!r} is not text; write 192.0.2.0/24 or '2001:db8::/32'")
    packed, bits = parse_prefix(value)
    return packed, bits


def regex(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"regex {value!r} is not text; quote it")
    try:
        compile_regex(value)
    except ValueError as error:
        raise ValueError(
            f"regex '{value}' is not one: {error}; RE2 has no look-around and no back-references"
        ) from None
    return value


def identifier(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"id {value!r} is not text; quote it")
    if not value or len(value) > 100 or not value.isprintable() or value != value.strip():
        raise ValueError(f"id {value[:100]!r} is not one; use 1 to 100 printable characters")
    if value.startswith("ban_rules["):
        raise ValueError(f"id '{value}' is the form that entries of ban_rules: get; choose another")
    return value


def prefix_list(value: Any, info: ValidationInfo) -> PrefixList:
    reading = info.context
    if not isinstance(reading, Reading):
        raise TypeError("rules are validated with a Reading as context")
    if not isinstance(value, str) or not value or "\0" in value:
        raise PydanticCustomError("value", "{text}", {"text": f"list file {value!r} is not a path"})
    path = reading.directory / value
    if path not in reading.lists:
        try:
            reading.lists[path], problems = read_list(path)
        except ListError as error:
            text = f"list file '{value}' cannot be read: {error}; paths are relative to the rules file"
            raise PydanticCustomError("value", "{text}", {"text": text}) from None
        reading.problems += problems
    return reading.lists[path]


Several = BeforeValidator(checked(one_or_more))
AsnRanges = Annotated[list[Annotated[tuple[int, int], PlainValidator(checked(parse_asn))]], Several]
Regexes = Annotated[list[Annotated[str, PlainValidator(checked(regex))]], Several]
Prefixes = Annotated[list[Annotated[tuple[bytes, int], PlainValidator(checked(prefix))]], Several]
PrefixLists = Annotated[list[Annotated[PrefixList, PlainValidator(prefix_list)]], Several]
Identifier = Annotated[str, PlainValidator(checked(identifier))]
Duration = Annotated[float | None, PlainValidator(checked(parse_duration))]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)
