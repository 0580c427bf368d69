"""Field types of conditions on the page that asks and the host it asks for, and of what a rule grants."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator

from gobanfast._values import parse_duration
from gobanfast.origins import PatternError, parse_host_pattern, parse_origin_pattern
from gobanfast.rules.text.fields import OneOrMany, one_of, schema, set_validator, text_of, validator

WORDS = ("absent", "malformed")
FETCH_SITES = ("same-origin", "same-site", "cross-site", "none")
FETCH_MODES = ("cors", "navigate", "no-cors", "same-origin", "websocket")
FETCH_DESTS = (
    "audio", "audioworklet", "document", "embed", "empty", "fencedframe", "font", "frame", "iframe", "image", "json",
    "manifest", "object", "paintworklet", "report", "script", "serviceworker", "sharedworker", "style", "track",
    "video", "webidentity", "worker", "xslt",
)  # fmt: skip
MOST_AGE = 86_400  # seconds that a browser remembers a preflight at most


def origin_text(value: Any) -> str:
    text = text_of("origin", value)
    if text not in WORDS:
        parse_origin_pattern(text)
    return text


def host_text(value: Any) -> str:
    text = text_of("host", value)
    if text not in WORDS:
        parse_host_pattern(text)
    return text


def max_age(value: Any) -> int:
    seconds = parse_duration(value)
    if seconds is None or seconds != int(seconds) or seconds > MOST_AGE:
        what = f"max_age {str(value)[:80]!r} is out of range"
        raise PatternError("bounds", what, "write whole seconds up to 24h: 10m")
    return int(seconds)


def _words(name: str, words: tuple[str, ...]) -> Any:
    return PlainValidator(validator(one_of(name, (*words, *WORDS))))


Origins = Annotated[
    list[Annotated[str, PlainValidator(set_validator(origin_text))]],
    OneOrMany,
    schema("origins: https://app.example.com, https://*.example.com (one label), https://**.example.com (one or more), "
           "http://localhost:* (any port), re:...; or the words absent and malformed; '@set'"),
]  # fmt: skip
Hosts = Annotated[
    list[Annotated[str, PlainValidator(set_validator(host_text))]],
    OneOrMany,
    schema("hosts: api.example.com, **.example.com, localhost:* (any port); or the words absent and malformed; '@set'"),
]
FetchSites = Annotated[
    list[Annotated[str, _words("fetch_site", FETCH_SITES)]],
    OneOrMany,
    schema("Sec-Fetch-Site: where the page that asks is", {"enum": [*FETCH_SITES, *WORDS]}),
]
FetchModes = Annotated[
    list[Annotated[str, _words("fetch_mode", FETCH_MODES)]],
    OneOrMany,
    schema("Sec-Fetch-Mode: how it asks", {"enum": [*FETCH_MODES, *WORDS]}),
]
FetchDests = Annotated[
    list[Annotated[str, _words("fetch_dest", FETCH_DESTS)]],
    OneOrMany,
    schema("Sec-Fetch-Dest: what it asks for", {"enum": [*FETCH_DESTS, *WORDS]}),
]
Tokens = Annotated[
    list[Annotated[str, PlainValidator(validator(lambda value: text_of("name", value)))]],
    OneOrMany,
    schema("names, or * for any"),
]
MaxAge = Annotated[
    int | None,
    PlainValidator(validator(max_age)),
    schema("how long a browser may remember a preflight: 10m; 0s: not at all", many=False),
]
