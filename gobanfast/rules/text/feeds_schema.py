"""Pydantic model of the section `feeds:`, and the values that "@feed:NAME" stands for in conditions."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from gobanfast._values import parse_asn, parse_duration
from gobanfast.rules.feed_cache import entries_path, read_asns, read_risks
from gobanfast.rules.rule import NameList, PrefixList
from gobanfast.rules.settings import FeedSettings
from gobanfast.rules.text.feeds_ready import READY
from gobanfast.rules.text.name_lists import read_names
from gobanfast.rules.text.prefix_lists import ListError, read_list

if TYPE_CHECKING:
    from gobanfast.rules.text.fields import ValidationContext

MARK = "feed:"
NO_AS = (0xFFFFFFFF, 0xFFFFFFFF)
"""Range of AS numbers that no address has: what a feed without entries stands for."""
KINDS = {"prefix": "prefix", "prefix_file": "prefix", "asn": "asn", "sni_file": "name", "asn_risk": "risk"}
"""Kind of feed that a key of the rules takes."""
MAX_BYTES = 1 << 30


class FeedPrefixes(PrefixList):
    """The prefixes of a feed; none before it was fetched."""

    __slots__ = ()


def _text(value: Any, info: ValidationInfo) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise _error(f"{info.field_name} {str(value)[:80]!r} is not text; quote it")
    return value


def _seconds(value: Any, info: ValidationInfo) -> float:
    try:
        found = parse_duration(value)
    except ValueError as error:
        raise _error(str(error)) from None
    if found is None or not 1 <= found <= 366 * 86400:
        raise _error(f"{info.field_name} {str(value)[:80]!r} is out of range; write 1s to 366d")
    return found


def _paths(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, str) and re.fullmatch(r"[\w$@ /.\[\]-]{1,200}", item) for item in items):
        raise _error("path is not one or several of the form prefixes[].cidr; [] goes over a list")
    return tuple(items)


def _error(text: str) -> PydanticCustomError:
    return PydanticCustomError("value", "{text}", {"text": text})


Text = Annotated[str | None, PlainValidator(_text)]
Seconds = Annotated[float, PlainValidator(_seconds)]


class FeedModel(BaseModel):
    """One entry of `feeds:`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    use: Text = Field(default=None, description="name of a ready-made feed; other keys here take the place of its own")
    url: Text = Field(default=None, description="https: address of the list")
    file: Text = Field(default=None, description="file with the list, relative to the rules file, in place of url")
    kind: Literal["prefix", "asn", "risk", "name", "table"] = "prefix"
    format: Literal["auto", "plain", "csv", "json", "jsonl"] = "auto"
    path: Annotated[tuple[str, ...], PlainValidator(_paths)] = ()
    column: Annotated[int, Field(ge=1, le=256)] = 1
    risk_column: Annotated[int, Field(ge=1, le=256)] = 2
    delimiter: Literal[",", ";", "\t", "|"] = ","
    every: Seconds = 3600.0
    timeout: Seconds = 60.0
    max_bytes: Annotated[int, Field(ge=1, le=MAX_BYTES)] = 64 << 20
    private: bool = False
    insecure: bool = False
    key: Text = Field(default=None, description="environment variable that holds the key of the source")
    auth: Literal["bearer", "basic"] = "bearer"
    checksum: Text = Field(default=None, description="address of the list's SHA-256")
    special: Literal["refuse", "skip", "keep"] = "refuse"
    any_size: bool = False
    stale_after: Seconds = 7 * 86400.0
    on_stale: Literal["keep", "drop"] = "keep"

    @model_validator(mode="before")
    @classmethod
    def ready_made(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "use" not in value:
            return value
        known = READY.get(value["use"]) if isinstance(value["use"], str) else None
        if known is None:
            raise _error(f"no ready-made feed is called {str(value['use'])[:80]!r}; there are {', '.join(READY)}")
        base = dict(known)
        if "file" in value:
            base.pop("url", None)
        return {**base, **value}

    @model_validator(mode="after")
    def has_source(self) -> Self:
        if (self.url is None) == (self.file is None):
            raise _error("a feed has a url or a file, one of them; write url: https://...")
        for key, url in (("url", self.url), ("checksum", self.checksum)):
            if url is None:
                continue
            parts = urlsplit(url)
            if parts.scheme not in {"https", "http"} or not parts.hostname:
                raise _error(f"{key} {url[:80]!r} is not an https: address; for a file write file:")
            if parts.scheme == "http" and not self.insecure:
                raise _error(f"{key} {url[:80]!r} is not https, so anyone on the way can change it; "
                             "if that is meant, say insecure: true")  # fmt: skip
            if parts.username or parts.password:
                raise _error(f"{key} has a password in it; name an environment variable under key: in its place")
        if self.key is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", self.key):
            raise _error("key is not the name of an environment variable; the key itself does not belong in the rules")
        if self.format == "json" and not self.path and self.kind != "prefix":
            raise _error("a feed in JSON needs path: where the values are, like items[].asn")
        return self

    def settings(self, name: str) -> FeedSettings:
        values = dict(self)
        values.pop("use")
        return FeedSettings(name, **values)


def section(value: Any) -> Any:
    """The section as it was written; a key with nothing after it has no feeds."""
    return {} if value is None else value


def name_problem(name: object) -> str | None:
    """What is wrong with the name of a feed, which names files, too."""
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        return None
    return f"feed name {str(name)[:80]!r} is not valid; use 1 to 64 of A-Z a-z 0-9 _ -"


def read_feeds(written: Any) -> dict[str, FeedSettings | None]:
    """The feeds of a rules file by name; None for one that has problems, which the schema tells."""
    found: dict[str, FeedSettings | None] = {}
    for name, value in written.items() if isinstance(written, dict) else ():
        try:
            if name_problem(name) is not None:
                raise ValueError(name)
            found[str(name)] = FeedModel.model_validate(value).settings(str(name))
        except ValueError:
            found[str(name)] = None
    return found


def feed_values(name: str, key: str, context: ValidationContext) -> list[Any]:
    """What the feed `name` has under `key`, from the folder of fetched feeds.

    A feed that was not fetched yet has nothing, and is among the context's `unfetched`.

    Raises:
        ValueError: no such feed, of another kind, or whose file is damaged.
    """
    kind = KINDS.get(key)
    if kind is None:
        other = "sni_file" if key == "sni" else None
        raise ValueError(f"'{key}' takes no feed; feeds go under prefix, outside, asn, sni_file and score: asn_risk"
                         + (", write sni_file" if other else ""))  # fmt: skip
    if name not in context.feeds:
        known = ", ".join(sorted(context.feeds)) or "there are none"
        raise ValueError(f"no feed is called '{name}'; feeds: {known}")
    feed = context.feeds[name]
    if feed is None:
        return _nothing(kind)
    if feed.kind != kind:
        raise ValueError(f"feed '{name}' is of kind {feed.kind}, and '{key}' takes {kind}; write kind: {kind} there")
    if (kind, name) not in context.fetched:
        context.fetched[kind, name] = _fetched(name, kind, context)
    return context.fetched[kind, name]


def _fetched(name: str, kind: str, context: ValidationContext) -> list[Any]:
    path = entries_path(context.feeds_folder, name, kind)
    context.inputs.add(path)
    if not path.is_file():
        context.unfetched.add(name)
        return _nothing(kind)
    try:
        return _read(kind, path)
    except (ListError, OSError, ValueError) as error:
        raise ValueError(f"entries of feed '{name}' cannot be read: {error}; remove {path}, and fetch again") from None


def _read(kind: str, path: Path) -> list[Any]:
    if kind == "prefix":
        found, problems = read_list(path)
        if problems:
            raise ValueError(str(problems[0]))
        return [FeedPrefixes(found.addresses, found.lengths)]
    if kind == "name":
        names, problems = read_names(path)
        if problems:
            raise ValueError(str(problems[0]))
        return [names]
    return list(read_asns(path)) or [NO_AS] if kind == "asn" else list(read_risks(path))


def _nothing(kind: str) -> list[Any]:
    nothing: dict[str, list[Any]] = {
        "prefix": [FeedPrefixes(b"", b"")], "asn": [NO_AS], "name": [NameList("")], "risk": [],
    }  # fmt: skip
    return nothing[kind]


def is_unfetched(values: list[Any]) -> bool:
    """Whether one of the values of a condition is of a feed that has nothing."""
    return any(value == NO_AS or (isinstance(value, FeedPrefixes) and not len(value)) for value in values)


def risks(value: Any, info: ValidationInfo) -> tuple[tuple[int, int, float], ...]:
    """Ranges of AS numbers with their risk, ascending and disjoint; what is written wins over what feeds say."""
    written, fed = [], []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and item.startswith("@" + MARK):
            try:
                context: Any = info.context
                fed += feed_values(item[1 + len(MARK) :], "asn_risk", context)
            except ValueError as error:
                raise _error(str(error)) from None
        elif isinstance(item, dict):
            written += [_risk(asn, risk) for asn, risk in item.items()]
        else:
            raise _error("asn_risk is not a mapping; write AS64500: 0.9, one a line")
    written.sort()
    for before, after in pairwise(written):
        if after[0] <= before[1]:
            raise _error(f"asn_risk has two values for AS{after[0]}; make the ranges disjoint")
    return _over(fed, written)


def _risk(text: Any, risk: Any) -> tuple[int, int, float]:
    try:
        first, last = parse_asn(text)
    except ValueError as error:
        raise _error(str(error)) from None
    if not isinstance(risk, (int, float)) or isinstance(risk, bool) or not 0 <= risk <= 1:
        shown = "of several values" if isinstance(risk, (list, dict)) else repr(risk)[:80] if isinstance(
            risk, str) else "nothing" if risk is None else str(risk).lower()  # fmt: skip
        raise _error(f"risk {shown} of '{text}' is out of range; write a number from 0 to 1")
    return first, last, float(risk)


def _over(
    fed: list[tuple[int, int, float]], written: list[tuple[int, int, float]]
) -> tuple[tuple[int, int, float], ...]:
    """Disjoint ranges: those written, and of those fed what is not in them; of AS numbers fed twice the highest."""
    if not fed:
        return tuple(written)
    cuts = sorted({first for first, _, _ in fed + written} | {last + 1 for _, last, _ in fed + written})
    starts = {cut: place for place, cut in enumerate(cuts)}
    values: list[float | None] = [None] * len(cuts)
    for first, last, risk in sorted(fed, key=lambda item: item[2]):
        for place in range(starts[first], starts[last + 1]):
            values[place] = risk
    for first, last, risk in written:
        for place in range(starts[first], starts[last + 1]):
            values[place] = risk
    return tuple(
        (low, high - 1, risk) for (low, high), risk in zip(pairwise(cuts), values, strict=False) if risk is not None
    )


Feeds = Annotated[dict[str, FeedModel], BeforeValidator(section), Field(description="lists by URL or file")]
