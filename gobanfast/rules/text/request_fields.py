"""Field types of request conditions: headers, method, path, fingerprint, shape, server name beside host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Self, get_args

from pydantic import Field, PlainValidator, ValidatorFunctionWrapHandler, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from gobanfast._core.headers import UA_FAMILIES
from gobanfast.names import parse_pattern
from gobanfast.rules.rule import HeaderTest, Operator
from gobanfast.rules.text.fields import Model, OneOrMany, one_of, regex, schema, set_validator, text_of, validator
from gobanfast.wire.crawlers import CRAWLERS
from gobanfast.wire.hosts import Agreement

WORDS = ("absent", "present", "malformed")
ABSENT_OR_EMPTY = "absent_or_empty"
CRAWLER_WORDS = (*(crawler.name for crawler in CRAWLERS), "any")
AGREEMENTS: tuple[str, ...] = get_args(Agreement)

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,64}", re.ASCII)  # RFC 9110 section 5.6.2, lower case
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}", re.ASCII)
_FINGERPRINT = re.compile(r"gh2:[0-9a-f]{32}", re.ASCII)
_SHAPE = re.compile(r"gs1:[0-9a-f]{32}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_METHODS = ("get", "head", "post", "put", "delete", "connect", "options", "trace", "patch")


def header_name(value: Any) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if text == ":authority":
        return "host"
    if text.startswith(":"):
        raise ValueError(f"header {value!r} is a pseudo header; write method: or path: under when:")
    if not _NAME.fullmatch(text):
        better = re.sub("[^a-z0-9]+", "-", text[:64].removeprefix("http_")).strip("-") or "user-agent"
        raise ValueError(f"header {str(value)[:80]!r} is not a header name; write {better}, 1 to 64 characters")
    return text


def value_text(value: Any) -> str:
    text = text_of("value", value)
    if not text:
        raise ValueError(
            "value '' is not a valid header value; to match an empty or missing header write absent_or_empty"
        )
    if _CONTROL.search(text):
        raise ValueError(f"value {text[:80]!r} has a control character, which is not valid in a header; remove it")
    if text != text.strip(" \t"):
        raise ValueError(
            f"value {text[:80]!r} has surrounding blanks, which are not part of a header value; write {text.strip()!r}"
        )
    return text


def part_text(value: Any) -> str:
    text = text_of("value", value)
    if not text or _CONTROL.search(text):
        raise ValueError(f"value {text[:80]!r} is empty or has a control character; write text")
    return text


def path_text(value: Any) -> str:
    text = text_of("path", value)
    if not text.startswith(("/", "*")) or _CONTROL.search(text):
        hint = "write /admin or /admin/**"
        if re.search(r"[\\^$()|+]|\.\*", text):
            hint = f"for a regex write path: {{regex: {text[:80]!r}}}"
        raise ValueError(f"path {text[:80]!r} is not a path; {hint}")
    if ("?" in text[1:] and "=" in text) or "#" in text:
        raise ValueError(f"path {text[:80]!r} has a query; rules see the path without it")
    return text


def method(value: Any) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError(f"method {str(value)[:80]!r} is not an HTTP method; write GET or POST")
    if value in _METHODS:
        raise ValueError(f"method '{value}' is in lower case, and methods are case-sensitive; write {value.upper()}")
    return value


def fingerprint_text(value: Any) -> str:
    if not isinstance(value, str) or not _FINGERPRINT.fullmatch(value):
        raise ValueError(f"fingerprint {str(value)[:80]!r} is not a fingerprint; expected gh2: and 32 hex digits")
    return value


def shape_text(value: Any) -> str:
    if not isinstance(value, str) or not _SHAPE.fullmatch(value):
        raise ValueError(f"shape {str(value)[:80]!r} is not a shape; expected gs1: and 32 hex digits")
    return value


def protected_name(value: Any) -> str:
    text = text_of("lookalike", value)
    parsed = parse_pattern(text)
    if parsed.kind != "exact":
        raise ValueError(f"lookalike {text!r} is a pattern; write a plain name, its subdomains are included")
    return parsed.text


def certificate_name(value: Any) -> str:
    text = text_of("name", value)
    parsed = parse_pattern(text)
    if parsed.kind not in ("exact", "one"):
        raise ValueError(f"name {text!r} is not a certificate name; write example.com or *.example.com")
    return parsed.text


Values = Annotated[list[Annotated[str, PlainValidator(validator(value_text))]], OneOrMany, schema("whole values")]
Parts = Annotated[list[Annotated[str, PlainValidator(validator(part_text))]], OneOrMany, schema("parts of values")]
Patterns = Annotated[
    list[Annotated[str, PlainValidator(validator(regex))]], OneOrMany, schema("RE2 patterns, searched in the value")
]
PathTexts = Annotated[list[Annotated[str, PlainValidator(validator(path_text))]], OneOrMany, schema("paths")]


def _written(name: str, model: Model, operators: tuple[Operator, ...]) -> Iterator[HeaderTest]:
    """A test for each operator that has values."""
    for operator in operators:
        values = getattr(model, operator)
        if values:
            yield HeaderTest(name, operator, tuple(values))


class HeaderModel(Model):
    """What must hold for one header: every operator that is written, for any of its values."""

    equals: Values = Field(default_factory=list)
    contains: Parts = Field(default_factory=list)
    prefix: Parts = Field(default_factory=list)
    suffix: Parts = Field(default_factory=list)
    regex: Patterns = Field(default_factory=list)
    absent: bool | None = None
    present: bool | None = None
    absent_or_empty: bool | None = None

    @model_validator(mode="after")
    def says_something(self) -> Self:
        gone = self.absent or self.present is False
        if not self.model_fields_set:
            raise _model_error("header has no condition; write present: true for any value")
        if self.absent_or_empty is False:
            raise _model_error("absent_or_empty is false; for a header with any value write present: true, regex: '.'")
        if self.absent_or_empty and self.model_fields_set != {"absent_or_empty"}:
            raise _model_error("absent_or_empty is combined with another operator; remove one of them")
        if gone and (self.model_fields_set - {"absent", "present"} or self.present or self.absent is False):
            raise _model_error("absent is combined with an operator on the value; remove one of them")
        return self

    def tests(self, name: str) -> Iterator[HeaderTest]:
        """The tests that must all hold."""
        yield from _written(name, self, ("equals", "contains", "prefix", "suffix", "regex"))
        if self.absent is not None or self.present is not None:
            gone = self.absent or self.present is False
            yield HeaderTest(name, "equals", (), ("absent",) if gone else ("present",))
        if self.absent_or_empty:
            yield HeaderTest(name, "equals", ("",), ("absent",))


class PathModel(Model):
    """What must hold for the path: every operator that is written, for any of its values."""

    equals: PathTexts = Field(default_factory=list)
    prefix: PathTexts = Field(default_factory=list)
    glob: PathTexts = Field(default_factory=list)
    regex: Patterns = Field(default_factory=list)

    @model_validator(mode="after")
    def says_something(self) -> Self:
        if not self.model_fields_set:
            raise _model_error("path has no condition; write path: /admin/**")
        return self

    def tests(self, name: str) -> Iterator[HeaderTest]:
        """The tests that must all hold."""
        yield from _written(name, self, ("equals", "prefix", "glob", "regex"))


@dataclass(frozen=True, slots=True)
class Shorthand:
    """`user-agent: curl`, `user-agent: [absent, curl]`, `path: /admin/**`: any of these."""

    operator: Operator
    values: tuple[str, ...]
    words: tuple[str, ...] = ()

    def tests(self, name: str) -> Iterator[HeaderTest]:
        """The one test there is."""
        yield HeaderTest(name, self.operator, self.values, self.words)


def short_header(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, dict):
        return handler(value)
    texts = handler({"equals": value}).equals
    if ABSENT_OR_EMPTY in texts:  # the empty value, and the word absent
        texts = ["", *(text for text in texts if text not in (ABSENT_OR_EMPTY, "absent")), "absent"]
    return Shorthand("equals", tuple(t for t in texts if t not in WORDS), tuple(t for t in texts if t in WORDS))


def short_path(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, dict):
        return handler(value)
    return Shorthand("glob", tuple(handler({"glob": value}).glob))


def non_empty(value: Any) -> Any:
    """A mapping of headers must have one."""
    if value == {}:
        raise _model_error("header has no header name; write header: {user-agent: {contains: bot}}")
    return value


def _model_error(text: str) -> PydanticCustomError:
    return PydanticCustomError("value", "{text}", {"text": text})


_OPERATORS = {
    "type": "object",
    "properties": {name: {} for name in HeaderModel.model_fields},
    "additionalProperties": False,
}
_PATH_OPERATORS = {**_OPERATORS, "properties": {name: {} for name in PathModel.model_fields}}
_TEXT = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}

HeaderTexts = Annotated[
    dict[Annotated[str, PlainValidator(validator(header_name))], Annotated[HeaderModel, WrapValidator(short_header)]],
    schema(
        "by header name: a value, several, or operators (equals, contains, prefix, suffix, regex, absent, present, "
        "absent_or_empty)",
        {"type": "object", "additionalProperties": {"anyOf": [*_TEXT["anyOf"], _OPERATORS]}, "minProperties": 1},
        many=False,
    ),
]
Path = Annotated[
    PathModel,
    WrapValidator(short_path),
    schema("globs, or operators (equals, prefix, glob, regex)", {"anyOf": [*_TEXT["anyOf"], _PATH_OPERATORS]},
           many=False),
]  # fmt: skip
Methods = Annotated[list[Annotated[str, PlainValidator(validator(method))]], OneOrMany, schema("methods: GET, POST")]
Fingerprints = Annotated[
    list[Annotated[str, PlainValidator(validator(fingerprint_text))]], OneOrMany, schema("gh2 fingerprints")
]
Shapes = Annotated[
    list[Annotated[str, PlainValidator(validator(shape_text))]], OneOrMany, schema("gs1 shapes of requests")
]
Families = Annotated[
    list[Annotated[str, PlainValidator(validator(one_of("ua_family", UA_FAMILIES)))]],
    OneOrMany,
    schema("what the user agent claims to be", {"enum": list(UA_FAMILIES)}),
]
Crawlers = Annotated[
    list[Annotated[str, PlainValidator(validator(one_of("crawler", CRAWLER_WORDS)))]],
    OneOrMany,
    schema("the crawler that the user agent says it is", {"enum": list(CRAWLER_WORDS)}),
]
Lookalikes = Annotated[
    list[Annotated[str, PlainValidator(set_validator(protected_name))]],
    OneOrMany,
    schema("names of yours that server name or host may be made to look like; '@set'"),
]
SniHosts = Annotated[
    list[Annotated[str, PlainValidator(validator(one_of("sni_host", AGREEMENTS)))]],
    OneOrMany,
    schema("how server name and host go together", {"enum": list(AGREEMENTS)}),
]
CertificateNames = Annotated[
    list[Annotated[str, PlainValidator(validator(certificate_name))]],
    OneOrMany,
    schema("DNS names of your certificates, *.example.com too; for sni_host"),
]
