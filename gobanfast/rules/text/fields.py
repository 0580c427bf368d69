"""Field types of both schemas: validators from YAML values to parsed values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainValidator,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from gobanfast._core.address import parse_prefix
from gobanfast._errors import Problem
from gobanfast._values import parse_asn, parse_duration
from gobanfast.names import parse_pattern
from gobanfast.rules.regex import compile_regex
from gobanfast.rules.rule import NameList, PrefixList
from gobanfast.rules.settings import FeedSettings
from gobanfast.rules.sources import Inputs
from gobanfast.rules.text.feeds_schema import MARK, feed_values
from gobanfast.rules.text.name_lists import read_names
from gobanfast.rules.text.prefix_lists import ListError, read_list

T = TypeVar("T")

SNI_WORDS = ("absent", "malformed")
ECH_WORDS = ("outer", "inner", "none")
TLS_VERSIONS = {"1.0": 0x0301, "1.1": 0x0302, "1.2": 0x0303, "1.3": 0x0304}

_JA4_FORM = re.compile(r"[tqd](?:1[0-3]|[sd][0-9]|00)[di][0-9]{4}[0-9A-Za-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}", re.ASCII)
_JA4_EXAMPLE = "t13d1516h2_8daaf6152771_02713d6af862"


@dataclass(slots=True)
class ValidationContext:
    """Context of the validators of one file: the directory of list files, and the problems found inside them."""

    directory: Path
    problems: list[Problem] = field(default_factory=list)
    lists: dict[Path, PrefixList] = field(default_factory=dict)
    names: dict[Path, NameList] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=Inputs)
    sets: Mapping[str, Mapping[str, Any] | None] | None = None  # by name: values by key; None: the set has problems
    used: set[tuple[str, str]] = field(default_factory=set)  # (set, key) pairs that conditions name
    feeds: Mapping[str, FeedSettings | None] = field(default_factory=dict)  # by name; None: the feed has problems
    feeds_folder: Path = Path()
    fetched: dict[tuple[str, str], list[Any]] = field(default_factory=dict)  # entries of feeds by kind and name
    unfetched: set[str] = field(default_factory=set)  # feeds that conditions name, and that have none


@dataclass(frozen=True, slots=True)
class SetValues:
    """The values of a set, in the place where "@name" stands."""

    values: list[Any]


def validator(parse: Callable[[Any], T]) -> Callable[[Any], T]:
    """`parse` for pydantic: its ValueError "what; hint" becomes the message of the problem."""

    def validate(value: Any) -> T:
        try:
            return parse(value)
        except ValueError as error:
            context = {"text": str(error), "code": getattr(error, "reason", "")}
            raise PydanticCustomError("value", "{text}", context) from None

    return validate


def set_validator(parse: Callable[[Any], T]) -> Callable[[Any, ValidationInfo], T | SetValues]:
    """`validator(parse)` for the values of a condition that sets can list too: "@name" stands for those of a set."""
    validate_one = validator(parse)

    def validate(value: Any, info: ValidationInfo) -> T | SetValues:
        if isinstance(value, str) and value.startswith("@"):
            return validator(lambda text: set_values(text[1:], info))(value)
        return validate_one(value)

    return validate


_SET_KEYS = {"outside": "prefix", "outside_file": "prefix_file"}


def set_values(name: str, info: ValidationInfo) -> SetValues:
    """What the set `name` lists under the key being validated, or under the one that is the opposite of.

    Raises:
        ValueError: no such set, or it lists nothing there.
    """
    key, context = str(info.field_name), info.context
    key = _SET_KEYS.get(key, key)
    if not isinstance(context, ValidationContext):
        raise TypeError("rules are validated with a ValidationContext as context")
    if name.startswith(MARK):
        return SetValues(feed_values(name.removeprefix(MARK), key, context))
    if context.sets is None:
        raise ValueError(f"'@{name}' inside a set; a set lists values, not other sets")
    if name not in context.sets:
        known = ", ".join(sorted(context.sets)) or "there are none"
        raise ValueError(f"no set is called '{name}'; sets: {known}")
    found = context.sets[name]
    context.used.add((name, key))
    if found is not None and not found.get(key):
        keys = ", ".join(key for key, values in found.items() if values)
        raise ValueError(f"set '{name}' has no {key}; it has {keys}, write '@{name}' there")
    return SetValues([] if found is None else list(found[key]))


def one_or_more(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """A list of values from one or several, with the members of sets in the place of their names."""
    if isinstance(value, list):
        if not value:
            text = "an empty list matches nothing; remove the condition or give it a value"
            raise PydanticCustomError("value", "{text}", {"text": text})
    else:
        value = [value]
    flat: list[Any] = []
    for item in handler(value):
        flat += item.values if isinstance(item, SetValues) else [item]
    return flat


def text_of(what: str, value: Any) -> str:
    """`value`, which is text; ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{what} {value!r} is not text; quote it")
    return value


def one_of(what: str, words: Sequence[str]) -> Callable[[Any], str]:
    """A function that answers one of `words`, or raises ValueError with all of them."""

    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError(f"{what} {str(value)[:80]!r} is not one of {', '.join(words)}")
        return str(value)

    return parse


def prefix(value: Any) -> tuple[bytes, int]:
    if not isinstance(value, str):
        raise ValueError(f"prefix {value!r} is not text; write 192.0.2.0/24 or '2001:db8::/32'")
    packed, bits = parse_prefix(value)
    return packed, bits


def regex(value: Any) -> str:
    text = text_of("regex", value)
    try:
        compile_regex(text)
    except ValueError as error:
        raise ValueError(
            f"regex '{text}' is not valid: {error}; RE2 has no look-around and no back-references"
        ) from None
    return text


def identifier(value: Any) -> str:
    text = text_of("id", value)
    if not text or len(text) > 100 or not text.isprintable() or text != text.strip():
        raise ValueError(f"id {text[:100]!r} is not valid; use 1 to 100 printable characters")
    if text.startswith("ban_rules["):
        raise ValueError(f"id '{text}' is reserved for entries of ban_rules:; choose another")
    return text


def sni(value: Any) -> str:
    text = text_of("sni", value)
    return text if text in SNI_WORDS else parse_pattern(text).text


def ja4(value: Any) -> str:
    if not isinstance(value, str) or not _JA4_FORM.fullmatch(value):
        short = isinstance(value, str) and len(value) < 36
        hint = "for its first part write ja4_prefix" if short else f"expected for example {_JA4_EXAMPLE}"
        raise ValueError(f"ja4 {str(value)[:80]!r} is not a JA4 fingerprint; {hint}")
    return value


def ja4_prefix(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[tqd][0-9A-Za-z_]{0,35}", value, re.ASCII):
        raise ValueError(f"ja4_prefix {str(value)[:80]!r} is not a JA4 prefix; expected for example t13d1516h2")
    return value


def weight(value: Any) -> float:
    if isinstance(value, str):
        raise ValueError(f"weigh {value[:80]!r} is text; write a number above 0, at most 1, without quotes")
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError(f"weigh {str(value)[:80]} is out of range; write a number above 0, at most 1")
    return float(value)


def alpn(value: Any) -> str:
    text = text_of("alpn", value)
    if not text or len(text) > 255 or any(ord(char) > 255 for char in text):
        raise ValueError(f"alpn {text[:80]!r} is not a protocol name; write h2 or http/1.1, 1 to 255 characters")
    return text


def tls_version(value: Any) -> int:
    text = str(value).upper().removeprefix("TLS").strip() if isinstance(value, (str, float, int)) else ""
    if text not in TLS_VERSIONS:
        raise ValueError(f"tls version {str(value)[:80]!r} is not valid; write 1.0, 1.1, 1.2 or 1.3")
    return TLS_VERSIONS[text]


def ech(value: Any) -> str:
    if value not in ECH_WORDS:
        raise ValueError(f"ech {str(value)[:80]!r} is not one of outer, inner, none; none is a hello without ECH")
    return str(value)


L = TypeVar("L", PrefixList, NameList)


def list_file(value: Any, info: ValidationInfo, known: Callable[[ValidationContext], dict[Path, L]],
              read: Callable[[Path], tuple[L, list[Problem]]]) -> L | SetValues:  # fmt: skip
    """What `read` finds in the list file `value`, once per file; problems inside it go to the ValidationContext."""
    context = info.context
    if not isinstance(context, ValidationContext):
        raise TypeError("rules are validated with a ValidationContext as context")
    if isinstance(value, str) and value.startswith("@"):
        return validator(lambda text: set_values(text[1:], info))(value)
    if not isinstance(value, str) or not value or "\0" in value:
        raise PydanticCustomError("value", "{text}", {"text": f"list file {value!r} is not a path"})
    path, lists = context.directory / value, known(context)
    if path not in lists:
        context.inputs.add(path)
        try:
            lists[path], problems = read(path)
        except ListError as error:
            text = f"list file '{value}' cannot be read: {error}; paths are relative to the rules file"
            raise PydanticCustomError("value", "{text}", {"text": text}) from None
        context.problems += problems
    return lists[path]


def prefix_list(value: Any, info: ValidationInfo) -> PrefixList | SetValues:
    return list_file(value, info, lambda context: context.lists, read_list)


def name_list(value: Any, info: ValidationInfo) -> NameList | SetValues:
    return list_file(value, info, lambda context: context.names, read_names)


def schema(description: str, item: dict[str, Any] | None = None, *, many: bool = True) -> WithJsonSchema:
    """JSON Schema of a field: an item, text by default, or a list of them."""
    item = {"type": "string"} if item is None else item
    forms = {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]} if many else item
    return WithJsonSchema({**forms, "description": description})


OneOrMany = WrapValidator(one_or_more)
AsnRanges = Annotated[
    list[Annotated[tuple[int, int], PlainValidator(set_validator(parse_asn))]],
    OneOrMany,
    schema("AS numbers: 15169, AS15169, or a range 64512-65534; '@set'", {"type": ["integer", "string"]}),
]
Regexes = Annotated[
    list[Annotated[str, PlainValidator(set_validator(regex))]],
    OneOrMany,
    schema("RE2 patterns, case ignored, searched in 'AS<number> <name>'; '@set'"),
]
Prefixes = Annotated[
    list[Annotated[tuple[bytes, int], PlainValidator(set_validator(prefix))]],
    OneOrMany,
    schema("IPv4 or IPv6 prefixes or addresses; '@set'"),
]
PrefixLists = Annotated[
    list[Annotated[PrefixList, PlainValidator(prefix_list)]],
    OneOrMany,
    schema("files with a prefix a line, or the JSON that search engines publish, relative to this file; '@set'"),
]
Snis = Annotated[
    list[Annotated[str, PlainValidator(set_validator(sni))]],
    OneOrMany,
    schema("name patterns, or the words absent and malformed; '@set'"),
]
NameLists = Annotated[
    list[Annotated[NameList, PlainValidator(name_list)]],
    OneOrMany,
    schema("files with name patterns, hosts, AdBlock or dnsmasq lines, relative to this file; '@set'"),
]
Ja4s = Annotated[
    list[Annotated[str, PlainValidator(set_validator(ja4))]],
    OneOrMany,
    schema("whole JA4 fingerprints; '@set'"),
]
Ja4Prefixes = Annotated[
    list[Annotated[str, PlainValidator(set_validator(ja4_prefix))]],
    OneOrMany,
    schema("beginnings of JA4 fingerprints; '@set'"),
]
Protocols = Annotated[
    list[Annotated[str, PlainValidator(set_validator(alpn))]],
    OneOrMany,
    schema("protocols that the client offers (ALPN): h2, http/1.1; '@set'"),
]
TlsVersion = Annotated[
    int | None,
    PlainValidator(validator(tls_version)),
    schema("1.0, 1.1, 1.2 or 1.3: nothing from this version on is offered", {"type": ["string", "number"]},
           many=False),
]  # fmt: skip
Echs = Annotated[
    list[Annotated[str, PlainValidator(validator(ech))]],
    OneOrMany,
    schema("encrypted ClientHello", {"enum": list(ECH_WORDS)}),
]
Identifier = Annotated[
    str,
    PlainValidator(validator(identifier)),
    schema("name of the rule, one of a kind", {"type": "string", "minLength": 1, "maxLength": 100}, many=False),
]
Weight = Annotated[
    float | None,
    PlainValidator(validator(weight)),
    schema("what a match of a log rule adds to the score", {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
           many=False),
]  # fmt: skip
Duration = Annotated[
    float | None,
    PlainValidator(validator(parse_duration)),
    schema("90s, 1h30m, 500ms, 7d, 2w or permanent", many=False),
]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)
