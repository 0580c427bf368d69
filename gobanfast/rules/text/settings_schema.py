"""Pydantic models of the sections besides rules: YAML data in, `Settings` out."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from gobanfast._core.enums import FIELDS
from gobanfast._core.headers import HeaderPlan
from gobanfast._values import parse_duration
from gobanfast.rules.rule import PrefixList
from gobanfast.rules.settings import (
    BanSettings,
    EdgeHeaderSettings,
    Escalation,
    FingerprintSettings,
    LabelSettings,
    Ladder,
    Limit,
    ScoreSettings,
    SessionSettings,
    Settings,
    Surge,
    TrackerSettings,
)
from gobanfast.rules.text.feeds_schema import FeedModel, Feeds, risks
from gobanfast.rules.text.fields import AsnRanges, Model, Prefixes, validator
from gobanfast.rules.text.session_fields import Cookies, Parameters, SecretPlaces, SessionHeaders, session_header

MAX_CLIENTS = 10_000_000
MAX_BANS = 100_000_000
MAX_LABELS = 4_000_000
MAX_COUNT = 65_535  # what a tracker counts to: one more than its limit
MAX_FINGERPRINTS = 1_024
DEFAULT_BAN = 600.0

_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)  # RFC 9110 token
_PRIVATE = ("x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "referer", "cookie", "authorization")


def integer(name: str, low: int, high: int) -> Callable[[Any], int]:
    """Validator of a whole number from `low` to `high`."""

    def parse(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{name} {_quoted(value)} is out of range; write a whole number from {low} to {high}")
        return value

    return validator(parse)


def number(name: str, low: float, high: float) -> Callable[[Any], float]:
    """Validator of a number from `low` to `high`."""

    def parse(value: Any) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{name} {_quoted(value)} is out of range; write a number from {low:g} to {high:g}")
        return float(value)

    return validator(parse)


def seconds(name: str, low: float, high: float) -> Callable[[Any], float]:
    """Validator of a duration from `low` to `high` seconds; never "permanent"."""

    def parse(value: Any) -> float:
        duration = parse_duration(value)
        if duration is None or not low <= duration <= high:
            raise ValueError(f"{name} {_quoted(value)} is out of range; write {_span(low)} to {_span(high)}")
        return duration

    return validator(parse)


def _quoted(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return "of several values"
    return repr(value)[:80] if isinstance(value, str) else "nothing" if value is None else str(value).lower()


def _span(duration: float) -> str:
    units = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    unit, name = next((unit, name) for unit, name in units if duration >= unit)
    return f"{duration / unit:g}{name}"


def header_name(value: Any) -> str:
    if not isinstance(value, str) or not _FIELD.fullmatch(value):
        raise ValueError(f"field {_quoted(value)} is not a header name; write user-agent, accept or the like")
    if value.lower() in _PRIVATE:
        raise ValueError(f"field '{value}' is different for each client or request; leave it out")
    return value.lower()


def fingerprint_fields(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= 32:
        raise ValueError("fields is not a list of 1 to 32 header names; leave it out for the usual ones")
    names = tuple(header_name(item) for item in value)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"field '{twice}' is listed twice; once is enough")
    HeaderPlan((), names)  # ValueError for what differs from request to request
    return names


EDGE_NOTHING = "edge_headers says nothing; write strip: [x-envoy-*] or append: [x-forwarded-for]"
EDGE_NEEDED = ("host", "content-length", "content-type", "transfer-encoding")  # without these it is another request


def edge_names(key: str, *, patterns: bool = False) -> Callable[[Any], tuple[str, ...]]:
    """Validator of header names, with `patterns` also of beginnings that end in `*`."""

    def parse(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= 64:
            raise ValueError(f"{key} is not a list of 1 to 64 header names; write [x-envoy-*] or the like")
        names = []
        for item in value:
            name = item.lower().replace("_", "-") if isinstance(item, str) else ""
            begins = patterns and name.endswith("*")
            if not _FIELD.fullmatch(name.removesuffix("*") if begins else name) or "*" in name.removesuffix(
                "*" * begins
            ):
                raise ValueError(f"{key} {_quoted(item)} is not a header name{' or the beginning of some' * patterns}; "
                                 f"write {'x-envoy-* or ' * patterns}x-envoy-internal, or the like")  # fmt: skip
            if any(needed.startswith(name[:-1]) if begins else needed == name for needed in EDGE_NEEDED):
                raise ValueError(f"{key} {_quoted(item)} covers a header that no request goes without; name others")
            names.append(name)
        return tuple(names)

    return parse


def chains(value: Any) -> tuple[Literal["x-forwarded-for"], ...]:
    if value != ["x-forwarded-for"]:
        raise ValueError(f"append {_quoted(value)} is not a list of chains that are known; write [x-forwarded-for]")
    return ("x-forwarded-for",)


def secret(value: Any) -> str:
    if not isinstance(value, str) or not 16 <= len(value.encode("utf-8", "replace")) <= 1024:
        raise ValueError("key is not text of 16 to 1024 bytes; write a random one, quoted")
    return value


def model_error(text: str) -> PydanticCustomError:
    """The error of a model whose values do not fit each other."""
    return PydanticCustomError("value", "{text}", {"text": text})


def empty_as_defaults(value: Any) -> Any:
    """A key with nothing after it is a section of defaults."""
    return {} if value is None else value


Window = Annotated[float, PlainValidator(seconds("window", 1, 3600))]
BanSeconds = Annotated[float | None, PlainValidator(seconds("for", 1, 366 * 86400))]
Action = Literal["ban", "challenge", "limit"]


class EscalateModel(Model):
    factor: Annotated[float, PlainValidator(number("factor", 1, 100))] = 2.0
    cap: Annotated[float, PlainValidator(seconds("cap", 1, 100 * 366 * 86400))] = 7 * 86400.0
    jitter: Annotated[float, PlainValidator(number("jitter", 0, 1))] = 0.1
    memory: Annotated[float, PlainValidator(seconds("memory", 1, 366 * 86400))] = 86400.0


def ladder_steps(family: str, shortest: int, longest: int) -> Callable[[Any], tuple[tuple[int, int], ...]]:
    """Validator of a mapping of prefix lengths to clients, from the longest prefix on."""

    def parse(value: Any) -> tuple[tuple[int, int], ...]:
        example = f"write {family}: {{{longest}: 16}}"
        if not isinstance(value, dict) or not value:
            raise ValueError(f"{family} {_quoted(value)} is not a mapping of prefix lengths to clients; {example}")
        found = {}
        for key, count in value.items():  # keys of a mapping are text
            bits = int(key) if re.fullmatch(r"[0-9]{1,3}", str(key)) else -1
            if not shortest <= bits <= longest:
                raise ValueError(f"{family} prefix length {str(key)[:20]} is not {shortest} to {longest}; {example}")
            if not isinstance(count, int) or isinstance(count, bool) or not 2 <= count <= 4096:
                raise ValueError(f"{family} clients of a /{bits} {_quoted(count)} is not 2 to 4096; {example}")
            found[bits] = count
        steps = tuple(sorted(found.items(), reverse=True))
        for (longer, fewer), (shorter, more) in pairwise(steps):
            if more <= fewer:
                raise ValueError(f"{family} asks for {fewer} clients of a /{longer} and {more} of a /{shorter}; "
                                 "ask for more of the shorter one")  # fmt: skip
        return steps

    return validator(parse)


class LadderModel(Model):
    """`bans: ladder:`, how bans of clients grow into those of networks."""

    ipv4: Annotated[tuple[tuple[int, int], ...], PlainValidator(ladder_steps("ipv4", 16, 24))] = ((24, 16),)
    ipv6: Annotated[tuple[tuple[int, int], ...], PlainValidator(ladder_steps("ipv6", 29, 48))] = ((48, 16),)
    lasts: Annotated[float, PlainValidator(seconds("for", 1, 366 * 86400))] = Field(default=3600.0, alias="for")
    collateral: Annotated[int, PlainValidator(integer("collateral", 0, 1000))] = 3

    def settings(self) -> Ladder:
        return Ladder(self.ipv4, self.ipv6, self.lasts, self.collateral)


class BansModel(Model):
    """Section `bans:`."""

    capacity: Annotated[int, PlainValidator(integer("capacity", 1, MAX_BANS))] = 1_000_000
    on_full: Literal["refuse", "evict"] = "refuse"
    escalate: Annotated[EscalateModel | None, BeforeValidator(empty_as_defaults)] = None
    ipv6_client: Literal[64, 56, 48] = 64
    ladder: Annotated[LadderModel | None, BeforeValidator(empty_as_defaults)] = None
    protect: Prefixes = Field(default_factory=list, description="whom nothing bans without force, such as monitoring")

    def settings(self) -> BanSettings:
        steps = None if self.escalate is None else Escalation(**dict(self.escalate))
        addresses = b"".join(address for address, _ in self.protect)
        protect = PrefixList(addresses, bytes(bits for _, bits in self.protect)) if self.protect else None
        ladder = None if self.ladder is None else self.ladder.settings()
        return BanSettings(self.capacity, self.on_full, steps, self.ipv6_client, ladder, protect)


class ActionModel(Model):
    """What every tracker says it does: a limit answers 429. A ban without `for` lasts ten minutes."""

    action: Action = "challenge"
    lasts: BanSeconds = Field(default=None, alias="for")

    @model_validator(mode="after")
    def duration_needs_ban(self) -> Self:
        if self.action != "ban" and self.lasts is not None:
            raise model_error(f"'for' on action '{self.action}'; only a ban lasts, remove it")
        return self

    @property
    def duration(self) -> float | None:
        """Seconds of the ban; None with a challenge."""
        return (self.lasts or DEFAULT_BAN) if self.action == "ban" else None


class DistinctModel(ActionModel):
    window: Window = 60.0
    limit: Annotated[int, PlainValidator(integer("limit", 1, MAX_FINGERPRINTS))] = 50
    action: Action = "ban"


class RateModel(ActionModel):
    window: Window = 10.0
    limit: Annotated[int, PlainValidator(integer("limit", 1, MAX_COUNT - 1))]


class SurgeModel(ActionModel):
    over: Annotated[int, PlainValidator(integer("over", 101, 100_000))] = 300
    baseline: Annotated[float, PlainValidator(seconds("baseline", 60, 86400))] = 600.0
    min_requests: Annotated[int, PlainValidator(integer("min_requests", 2, MAX_COUNT))] = 100


class ExemptModel(Model):
    asn: AsnRanges = Field(default_factory=list)
    prefix: Prefixes = Field(default_factory=list)


class TrackersModel(Model):
    """Section `trackers:`; a tracker is on when it is named."""

    capacity: Annotated[int, PlainValidator(integer("capacity", 8, MAX_CLIENTS))] = 10_000
    distinct_fingerprints: Annotated[DistinctModel | None, BeforeValidator(empty_as_defaults)] = None
    request_rate: Annotated[RateModel | None, BeforeValidator(empty_as_defaults)] = None
    surge: Annotated[SurgeModel | None, BeforeValidator(empty_as_defaults)] = None
    exempt: ExemptModel = ExemptModel()
    on_saturated: Literal["challenge", "allow"] = "allow"

    @model_validator(mode="after")
    def has_tracker(self) -> Self:
        if self.distinct_fingerprints is None and self.request_rate is None and self.surge is None:
            raise model_error(
                "trackers has no tracker; write distinct_fingerprints: {limit: 50}, request_rate or surge"
            )
        return self

    def settings(self) -> TrackerSettings:
        surge = None
        if self.surge is not None:
            numbers = self.surge.over, self.surge.baseline, self.surge.min_requests
            surge = Surge(*numbers, self.surge.action, self.surge.duration)
        addresses = b"".join(address for address, _ in self.exempt.prefix)
        prefixes = PrefixList(addresses, bytes(bits for _, bits in self.exempt.prefix))
        return TrackerSettings(
            self.capacity, _limit(self.distinct_fingerprints), _limit(self.request_rate), surge,
            tuple(self.exempt.asn), prefixes if self.exempt.prefix else None, self.on_saturated,
        )  # fmt: skip


def _limit(text: DistinctModel | RateModel | None) -> Limit | None:
    return None if text is None else Limit(text.window, text.limit, text.action, text.duration)


class WeightsModel(Model):
    sni: Annotated[float, PlainValidator(number("weight", 0, 1))] = 0.40
    header: Annotated[float, PlainValidator(number("weight", 0, 1))] = 0.35
    asn: Annotated[float, PlainValidator(number("weight", 0, 1))] = 0.25

    @model_validator(mode="after")
    def sum_is_one(self) -> Self:
        total = self.sni + self.header + self.asn
        if abs(total - 1) > 1e-9:
            raise model_error(f"weights sum to {total:g}, not 1; write sni: 0.40, header: 0.35, asn: 0.25 or the like")
        return self


class ScoreModel(Model):
    """Section `score:`."""

    weights: WeightsModel = WeightsModel()
    window: Annotated[int, PlainValidator(integer("window", 10, 10_000))] = 300
    percentile: Annotated[float, PlainValidator(number("percentile", 0, 100))] = 95.0
    deviations: Annotated[float, PlainValidator(number("deviations", 0, 10))] = 0.05
    floor: Annotated[float, PlainValidator(number("floor", 0, 1))] = 0.60
    ceiling: Annotated[float, PlainValidator(number("ceiling", 0, 1))] = 0.80
    min_samples: Annotated[int, PlainValidator(integer("min_samples", 1, 10_000))] = 100
    max_step: Annotated[float, PlainValidator(number("max_step", 0.0001, 1))] = 0.001
    learn: Literal["unflagged", "all"] = "unflagged"
    naive: bool = False
    scope: Literal["global", "host"] = "global"
    asn_risk: Annotated[tuple[tuple[int, int, float], ...], PlainValidator(risks)] = ()
    unknown_asn: Annotated[float, PlainValidator(number("unknown_asn", 0, 1))] = 0.25
    mode: Literal["enforce", "shadow"] = "enforce"

    @model_validator(mode="after")
    def bounds_agree(self) -> Self:
        if self.floor > self.ceiling:
            raise model_error(f"floor {self.floor:g} is above ceiling {self.ceiling:g}; swap them")
        if self.min_samples > self.window:
            raise model_error(
                f"min_samples {self.min_samples} is more than window {self.window}; the score would stay cold"
            )
        guards = sorted(self.model_fields_set & {"floor", "ceiling", "min_samples", "max_step", "learn"})
        if self.naive and guards:
            raise model_error(f"naive has no guards, and {guards[0]} is one; remove one of them")
        return self

    def settings(self) -> ScoreSettings:
        values = dict(self)
        weights = values.pop("weights")
        return ScoreSettings(**dict(weights), **values)


class FingerprintModel(Model):
    """Section `fingerprint:`."""

    fields: Annotated[tuple[str, ...], PlainValidator(validator(fingerprint_fields))] = FIELDS
    key: Annotated[str | None, PlainValidator(validator(secret))] = None

    def settings(self) -> FingerprintSettings:
        return FingerprintSettings(self.fields, self.key)


class EdgeHeadersModel(Model):
    """Section `edge_headers:`, by `trust`."""

    keep: Annotated[tuple[str, ...], PlainValidator(validator(edge_names("keep")))] = ()
    append: Annotated[tuple[Literal["x-forwarded-for"], ...], PlainValidator(validator(chains))] = ()
    strip: Annotated[tuple[str, ...], PlainValidator(validator(edge_names("strip", patterns=True)))] = ()

    @model_validator(mode="after")
    def does_something(self) -> Self:
        if not self.strip and not self.append:
            raise model_error(EDGE_NOTHING)
        return self

    def settings(self) -> EdgeHeaderSettings:
        return EdgeHeaderSettings(self.keep, self.append, self.strip)


class LabelsModel(Model):
    """Section `labels:`."""

    capacity: Annotated[int, PlainValidator(integer("capacity", 1, MAX_LABELS))] = 100_000

    def settings(self) -> LabelSettings:
        return LabelSettings(self.capacity)


class SessionModel(Model):
    """Section `session:`."""

    cookie: Cookies = Field(default_factory=list)
    header: SessionHeaders = Field(default_factory=list)
    query: Parameters = Field(default_factory=list)
    keys: SecretPlaces = ()
    uid: Annotated[str | None, PlainValidator(validator(session_header))] = Field(
        default=None, description="header in which peers under trust: say who is logged in"
    )

    @model_validator(mode="after")
    def is_somewhere(self) -> Self:
        if not self.sources() and self.uid is None:
            raise model_error("session is nowhere; write cookie: sid, header: x-session, query: ticket or uid: x-user")
        return self

    def sources(self) -> tuple[tuple[Literal["cookie", "header", "query"], str], ...]:
        """Where a session is looked for: in cookies, then in headers, then in the query."""
        kinds: tuple[Literal["cookie", "header", "query"], ...] = ("cookie", "header", "query")
        return tuple((kind, name) for kind in kinds for name in getattr(self, kind))

    def settings(self) -> SessionSettings:
        return SessionSettings(self.sources(), self.keys, self.uid)


class SettingsModel(Model):
    """The sections, as keys of the whole file."""

    bans: Annotated[BansModel, BeforeValidator(empty_as_defaults)] = BansModel()
    trackers: Annotated[TrackersModel | None, BeforeValidator(empty_as_defaults)] = None
    score: Annotated[ScoreModel | None, BeforeValidator(empty_as_defaults)] = None
    fingerprint: Annotated[FingerprintModel, BeforeValidator(empty_as_defaults)] = FingerprintModel()
    edge_headers: Annotated[EdgeHeadersModel | None, BeforeValidator(empty_as_defaults)] = None
    feeds: Feeds = Field(default_factory=dict)
    labels: Annotated[LabelsModel, BeforeValidator(empty_as_defaults)] = LabelsModel()
    session: SessionModel | None = None

    def settings(self) -> Settings:
        return Settings(
            self.bans.settings(),
            None if self.trackers is None else self.trackers.settings(),
            None if self.score is None else self.score.settings(),
            self.fingerprint.settings(),
            edge_headers=None if self.edge_headers is None else self.edge_headers.settings(),
            feeds=tuple(feed.settings(name) for name, feed in self.feeds.items()),
            labels=self.labels.settings(),
            session=None if self.session is None else self.session.settings(),
        )


SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    ("bans",): BansModel, ("bans", "escalate"): EscalateModel, ("bans", "ladder"): LadderModel,
    ("trackers",): TrackersModel,
    ("trackers", "distinct_fingerprints"): DistinctModel, ("trackers", "request_rate"): RateModel,
    ("trackers", "surge"): SurgeModel, ("trackers", "exempt"): ExemptModel, ("score",): ScoreModel,
    ("score", "weights"): WeightsModel, ("fingerprint",): FingerprintModel,
    ("edge_headers",): EdgeHeadersModel, ("feeds", "*"): FeedModel, ("labels",): LabelsModel,
    ("session",): SessionModel,
}  # fmt: skip
"""Where a model is in the file, for hints about unknown keys."""
