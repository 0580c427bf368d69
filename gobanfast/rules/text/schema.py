"""Pydantic models of the rules file: YAML data in, validated `Rule`s and every problem out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, ValidationError, model_validator

from gobanfast._core.address import parse_prefix
from gobanfast._errors import Problem
from gobanfast.rules.feed_cache import folder_of
from gobanfast.rules.inline_test import Case, Expected
from gobanfast.rules.rule import (
    Action,
    Grant,
    Key,
    Mode,
    Outcome,
    PrefixList,
    RecordAction,
    Rule,
    ShareAction,
    Unparsable,
)
from gobanfast.rules.settings import FeedSettings, LimitTableSettings, Settings, TrustSettings
from gobanfast.rules.sources import Inputs
from gobanfast.rules.text.conditions import (
    Not,
    RecordWhen,
    SetModel,
    When,
    condition,
    joined,
    packed,
)
from gobanfast.rules.text.feeds_schema import FeedPrefixes, name_problem, read_feeds
from gobanfast.rules.text.fields import (
    Duration,
    Identifier,
    Model,
    OneOrMany,
    Prefixes,
    PrefixLists,
    ValidationContext,
    Weight,
    schema,
    validator,
)
from gobanfast.rules.text.grant_checks import grant_entry_problems
from gobanfast.rules.text.includes import Document
from gobanfast.rules.text.legacy import LegacyRuleModel
from gobanfast.rules.text.limits_schema import LimitModel, LimitTableModel, LimitTableSection
from gobanfast.rules.text.problems import problem
from gobanfast.rules.text.record_schema import RecordRuleModel, TraceModel, rate_problems
from gobanfast.rules.text.request_fields import (
    CertificateNames,
    HeaderModel,
    PathModel,
    header_name,
)
from gobanfast.rules.text.session_fields import LabelWords
from gobanfast.rules.text.settings_schema import SECTIONS, SettingsModel, empty_as_defaults, model_error
from gobanfast.rules.text.share_fields import MaxAge, Tokens
from gobanfast.rules.text.yaml_nodes import Node


class RuleModel(Model):
    """One entry of `rules:`."""

    id: Identifier
    when: Annotated[When, BeforeValidator(condition)]
    action: Action
    lasts: Duration = Field(default=None, alias="for")
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 100
    mode: Mode = "enforce"
    reason: str = ""
    key: Key = "client"
    weigh: Weight = None

    def rule(self, source: str, line: int, column: int, names: tuple[str, ...]) -> Rule:
        return Rule(
            self.id, self.action, self.when.mode(self.mode), self.lasts, self.priority, self.reason, source, line,
            column, self.when.conditions(names), self.key, self.weigh,
        )  # fmt: skip


GRANTED = frozenset({
    "credentials", "methods", "headers", "expose", "max_age", "trace_headers", "deny", "dangerously_allow_insecure",
    "dangerously_allow_public_suffix",
})  # fmt: skip
"""Keys of a share rule that say what is granted."""


class ShareRuleModel(Model):
    """One entry of `share:`."""

    id: Identifier
    when: Annotated[When, BeforeValidator(condition)]
    action: ShareAction
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 100
    mode: Mode = "enforce"
    reason: str = ""
    credentials: bool = False
    methods: Tokens = Field(default_factory=list)
    headers: Tokens = Field(default_factory=list)
    expose: Tokens = Field(default_factory=list)
    max_age: MaxAge = None
    trace_headers: bool = True
    deny: Literal["stop", "later"] = Field(
        default="stop", description="what an EventSource is told that may not read: to stop, or to come back later"
    )
    dangerously_allow_insecure: bool = False
    dangerously_allow_public_suffix: bool = False

    @model_validator(mode="after")
    def only_grants_give(self) -> ShareRuleModel:
        given = sorted(self.model_fields_set & GRANTED)
        if self.action != "grant" and given:
            raise model_error(f"'{given[0]}' on action '{self.action}', which gives nothing; remove it, or write grant")
        return self

    def rule(self, source: str, line: int, column: int, names: tuple[str, ...]) -> Rule:
        grant = None
        if self.action == "grant":
            grant = Grant(
                self.credentials, tuple(self.methods), tuple(self.headers), tuple(self.expose), self.max_age,
                self.trace_headers, self.deny,
            )  # fmt: skip
        return Rule(
            self.id, self.action, self.when.mode(self.mode), None, self.priority, self.reason, source, line, column,
            self.when.conditions(names), effect="share", grant=grant,
        )  # fmt: skip


def set_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ValueError(f"set name '{name[:80]}' is not valid; use 1 to 64 of A-Z a-z 0-9 _ . -")
    return name


def raw_headers(value: Any) -> list[tuple[str, str]]:
    """Pairs from a mapping of names to a text or several."""
    if not isinstance(value, dict):
        raise ValueError("headers are a mapping; write headers: {user-agent: curl/8.5.0}")
    pairs: list[tuple[str, str]] = []
    for name, texts in value.items():
        for text in texts if isinstance(texts, list) else [texts]:
            if not isinstance(text, str):
                raise ValueError(f"header {name} is {text!r}, not text; quote it")
            if not (name + text).isprintable() or any(ord(char) > 255 for char in name + text):
                raise ValueError(f"header {name} has characters that are not valid in a header")
            pairs.append((name, text))
    return pairs


NO_REQUEST = frozenset({"expect", "share", "record", "outcome", "rule", "mount", "scheme"})
"""Keys of a test that say nothing of a request, or not enough."""


class CaseModel(Model):
    """One entry of `tests:`."""

    address: str | None = None
    sni: str | None = None
    ja4: str | None = None
    headers: Annotated[
        list[tuple[str, str]] | None,
        PlainValidator(validator(raw_headers)),
        schema("header names and values", {"type": "object"}, many=False),
    ] = None
    method: str | None = None
    path: str | None = None
    mount: str | None = None
    scheme: Literal["http", "https", "ws", "wss"] | None = None
    origin: str | None = Field(default=None, description="of the page that asks; short for a header")
    expect: Expected | None = None
    share: Literal["granted", "withheld", "refused", "none"] | None = Field(
        default=None, description="whether the page may read the answer; none: no share rule is about it"
    )
    record: RecordAction | Literal["none"] | None = Field(
        default=None, description="what decides whether a trace is kept; none: no record rule matches"
    )
    outcome: Outcome | None = Field(
        default=None, description="what became of the request, where record: is expected; by default what is decided"
    )
    session: Literal["present", "absent"] | None = Field(default=None, description="whether there is one; absent")
    labels: LabelWords = Field(default_factory=list)
    uid: str | None = Field(default=None, description="who is logged in, who has the labels of the test")
    rule: str | None = Field(
        default=None,
        description="id of the rule that must decide, of the share or record rule where only that is expected; null: "
        "that none does",
    )

    @model_validator(mode="after")
    def has_request(self) -> CaseModel:
        if not self.model_fields_set - NO_REQUEST:
            text = "test describes no request; give it an address, sni, ja4, headers, method, path or origin"
            raise model_error(text)
        if self.expect is None and self.share is None and self.record is None:
            raise model_error("test expects nothing; write expect: allow, share: granted or record: always")
        if self.outcome is not None and self.record is None:
            raise model_error("test has an outcome and expects no record; write record: always, or remove it")
        if self.origin is not None and any(name.lower() == "origin" for name, _ in self.headers or ()):
            raise model_error("test has an origin twice; write it under origin: or under headers:")
        return self

    def case(self, source: str, line: int, column: int) -> Case:
        rule = (self.rule or "") if "rule" in self.model_fields_set else None
        headers = None if self.headers is None else tuple(self.headers)
        if self.origin is not None:
            headers = (*(headers or ()), ("origin", self.origin))
        return Case(
            source, line, column, self.expect, self.address, self.sni, headers, self.method, self.path, rule, self.ja4,
            self.mount, self.scheme, self.share, self.record, self.outcome, self.session, tuple(self.labels), self.uid,
        )  # fmt: skip


NOT_EVERYONE = "lets any peer claim any client address; write the prefixes of your proxies"


def trust_shorthand(value: Any) -> Any:
    """`trust: [10.0.0.0/8]` is short for `trust: {prefix: [10.0.0.0/8]}`."""
    if value == "*" or (isinstance(value, list) and "*" in value):
        raise model_error(f"trust '*' {NOT_EVERYONE}")
    return {"prefix": value} if isinstance(value, (str, list)) else value


class TrustModel(Model):
    """`trust:`: the peers whose forwarding headers are trusted, and whether every request must have one."""

    prefix: Prefixes = Field(default_factory=list)
    prefix_file: PrefixLists = Field(default_factory=list)
    chain: Literal["required", "optional"] | None = None
    host: Annotated[str, PlainValidator(validator(header_name))] | None = Field(
        default=None, description="header in which they write the host that the client asked for: x-forwarded-host"
    )

    @model_validator(mode="after")
    def not_everyone(self) -> TrustModel:
        if any(isinstance(item, FeedPrefixes) for item in (*self.prefix, *self.prefix_file)):
            raise model_error("trust takes no feed, or whoever writes it says whom to believe; write the prefixes")
        named = self.prefixes()
        of_no_bits = parse_prefix("0.0.0.0/0")[0]
        for index, bits in enumerate(named.lengths):
            if not bits or (bits == 96 and named.addresses[16 * index : 16 * index + 16] == of_no_bits):
                raise model_error(f"a prefix of length 0 {NOT_EVERYONE}")
        return self

    def prefixes(self) -> PrefixList:
        return joined([packed(self.prefix), *self.prefix_file])


Includes = Annotated[list[str], OneOrMany, schema("files or globs, relative to this file")]


class RulesPart(Model):
    """A file that others include."""

    version: Literal[1] = 1
    include: Includes = Field(default_factory=list)
    sets: dict[str, Any] = Field(default_factory=dict)
    rules: list[RuleModel] = Field(default_factory=list)
    share: list[ShareRuleModel] = Field(default_factory=list)
    record: list[RecordRuleModel] = Field(default_factory=list)
    limits: list[LimitModel] = Field(default_factory=list)
    ban_rules: list[LegacyRuleModel] = Field(default_factory=list)
    tests: list[CaseModel] = Field(default_factory=list)


class RulesFile(RulesPart, SettingsModel):
    """The rules file: the keys of a part, and those of the whole ruleset."""

    unparsable: Unparsable = "challenge"
    trust: Annotated[TrustModel, BeforeValidator(trust_shorthand)] = Field(default_factory=TrustModel)
    names: CertificateNames = Field(default_factory=list)
    trace: Annotated[TraceModel | None, BeforeValidator(empty_as_defaults)] = None
    limit_table: LimitTableSection = LimitTableModel()

    def settings(self) -> Settings:
        sections = super().settings()
        return Settings(
            sections.bans, sections.trackers, sections.score, sections.fingerprint,
            TrustSettings(self.trust.chain, self.trust.host), sections.edge_headers, sections.feeds,
            None if self.trace is None else self.trace.settings(),
            sections.labels,
            LimitTableSettings(self.limit_table.capacity, self.limit_table.share),
            sections.session,
        )  # fmt: skip


_MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): RulesPart, ("rules",): RuleModel, ("rules", "when"): When, ("ban_rules",): LegacyRuleModel,
    ("rules", "when", "not"): Not, ("share",): ShareRuleModel, ("share", "when"): When, ("share", "when", "not"): Not,
    ("limits",): LimitModel, ("limits", "when"): When, ("limits", "when", "not"): Not,
    ("limits", "when", "header"): HeaderModel, ("limits", "when", "path"): PathModel, ("limit_table",): LimitTableModel,
    ("share", "when", "header"): HeaderModel, ("share", "when", "path"): PathModel,
    ("tests",): CaseModel, ("rules", "when", "header"): HeaderModel, ("rules", "when", "path"): PathModel,
    ("record",): RecordRuleModel, ("record", "when"): RecordWhen, ("record", "when", "not"): Not,
    ("record", "when", "header"): HeaderModel, ("record", "when", "path"): PathModel, ("trace",): TraceModel,
    ("trust",): TrustModel, ("root",): RulesFile, **SECTIONS,
}  # fmt: skip


@dataclass(slots=True)
class Checked:
    """What the documents of a ruleset say. It is complete only if no problem is an error.

    `rules` are in the order of the documents, and within one by place; `unused` are sets that nothing names.
    """

    rules: list[Rule] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    unparsable: Unparsable = "challenge"
    settings: Settings = field(default_factory=Settings)
    trust: PrefixList = field(default_factory=lambda: PrefixList(b"", b""))
    names: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    unused: list[Problem] = field(default_factory=list)


def check(documents: list[Document], inputs: Inputs) -> Checked:
    """What `documents` say, the first being the rules file, and every problem of theirs."""
    found = Checked()
    first = ValidationContext(
        FilePath(documents[0].source).parent, found.problems, inputs=inputs,
        feeds_folder=folder_of(documents[0].source), feeds=written_feeds(documents[0], found.problems),
    )  # fmt: skip
    sets: dict[str, dict[str, Any] | None] = {}
    places: dict[str, Problem] = {}
    for document in documents:
        _read_sets(document, replace(first, directory=FilePath(document.source).parent), sets, places)
    shared = replace(first, sets=sets)
    for document in documents:
        _read(document, replace(shared, directory=FilePath(document.source).parent), found, document is documents[0])
    used = {name for name, _ in shared.used}
    found.unused = [place for name, place in places.items() if name not in used]
    found.unused += unfetched_feeds(documents[0], shared.unfetched)
    found.problems += _across(documents)
    found.problems += rate_problems(found.rules)
    return found


def written_feeds(document: Document, problems: list[Problem]) -> dict[str, FeedSettings | None]:
    """The section `feeds:` of the rules file; what is wrong with its names is added to `problems`."""
    root = document.root
    written = root.value.get("feeds") if isinstance(root.value, dict) else None
    for name in written if isinstance(written, dict) else ():
        if (wrong := name_problem(name)) is not None:
            message, _, hint = wrong.partition("; ")
            problems.append(Problem(document.source, *root.key_place(("feeds", name)), message, hint))
    return read_feeds(written)


def unfetched_feeds(document: Document, names: set[str]) -> Iterator[Problem]:
    """A warning for each feed that a condition names and that has nothing yet."""
    for name in sorted(names):
        place = document.root.key_place(("feeds", name))
        hint = f"gobanfast feeds update {document.source}"
        message = f"feed '{name}' was not fetched yet, so no condition on it holds"
        yield Problem(document.source, *place, message, hint, "warning", "unfetched-feed")


def _read_sets(
    document: Document, context: ValidationContext, sets: dict[str, dict[str, Any] | None], places: dict[str, Problem]
) -> None:
    """Adds the sets of one document; a set that is wrong is None, so that it is known to exist."""
    root, source = document.root, document.source
    written = root.value.get("sets") if isinstance(root.value, dict) else None
    for name, value in written.items() if isinstance(written, dict) else ():
        line, column = root.key_place(("sets", name))
        place = Problem(source, line, column, f"set '{name}' is not used", "name it in a condition: '@" + name + "'")
        if name in places:
            where = f"{places[name].source}:{places[name].line}"
            context.problems.append(replace(place, message=f"duplicate set '{name}'", hint=f"first at {where}"))
            continue
        places[name] = replace(place, severity="warning", code="unused-set")
        sets[name] = None
        try:
            checked_name = set_name(name)
            text = SetModel.model_validate(value, context=context)
        except ValidationError as error:
            models: dict[tuple[str, ...], type[BaseModel]] = {**_MODELS, ("sets", name): SetModel}
            context.problems += [
                problem(root, source, details, models, ("sets", name)) for details in error.errors(include_url=False)
            ]
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            context.problems.append(replace(place, message=message, hint=hint))
        else:
            given = [key for key in SetModel.model_fields if key in text.model_fields_set]
            sets[checked_name] = {key: getattr(text, key) for key in given}


def _read(document: Document, context: ValidationContext, found: Checked, is_root: bool) -> None:
    root, source = document.root, document.source
    try:
        part = (RulesFile if is_root else RulesPart).model_validate(root.value, context=context)
    except ValidationError as error:
        models: dict[tuple[str, ...], type[BaseModel]] = {**_MODELS, (): RulesFile if is_root else RulesPart}
        found.problems += [problem(root, source, details, models) for details in error.errors(include_url=False)]
        return
    if isinstance(part, RulesFile):
        found.unparsable, found.settings = part.unparsable, part.settings()
        found.trust, found.names = part.trust.prefixes(), tuple(part.names)
    rules = [text.rule(source, *root.place(("rules", index)), found.names) for index, text in enumerate(part.rules)]
    rules += [text.rule(source, *root.place(("share", index)), found.names) for index, text in enumerate(part.share)]
    rules += [text.rule(source, *root.place(("record", index)), found.names) for index, text in enumerate(part.record)]
    rules += [text.rule(source, *root.place(("limits", index)), found.names) for index, text in enumerate(part.limits)]
    legacy = sum(rule.id.startswith("ban_rules[") for rule in found.rules)  # earlier files count on
    for index, entry in enumerate(part.ban_rules):
        rules.append(entry.rule(source, *root.place(("ban_rules", index)), legacy + index))
    found.rules += sorted(rules, key=lambda rule: (rule.line, rule.column))
    found.cases += [case.case(source, *root.place(("tests", index))) for index, case in enumerate(part.tests)]


def _across(documents: list[Document]) -> list[Problem]:
    """What no single value shows; works on the raw data, so it is found beside every other problem."""
    problems: list[Problem] = []
    root, source = documents[0].root, documents[0].source
    if (
        isinstance(root.value, dict)
        and not {"rules", "share", "record", "limits", "trace", "ban_rules", "include"} & root.value.keys()
    ):
        problems.append(
            Problem(
                source,
                root.line,
                root.column,
                "the file has no rules",
                "write a list under rules:, share:, limits: or record:",
            )
        )

    seen: dict[str, tuple[str, int]] = {}
    expected: list[Problem] = []
    for document in documents:
        for section, index, entry in _rule_entries(document.root):
            line, column = document.root.place((section, index, "id"))
            name = entry.get("id")
            if isinstance(name, str) and name in seen:
                where, first = seen[name]
                hint = f"first on line {first}" if where == document.source else f"first at {where}:{first}"
                problems.append(Problem(document.source, line, column, f"duplicate id '{name}'", hint))
            elif isinstance(name, str):
                seen[name] = (document.source, line)
            if "for" in entry and entry.get("action") in ("allow", "challenge", "log"):
                line, column = document.root.key_place((section, index, "for"))
                message = f"'for' on action '{entry['action']}'"
                problems.append(Problem(document.source, line, column, message, "only a ban lasts, remove it"))
            if "weigh" in entry and entry.get("action") in ("allow", "challenge", "ban"):
                line, column = document.root.key_place((section, index, "weigh"))
                message = f"'weigh' on action '{entry['action']}'"
                hint = "only a rule that decides nothing weighs: action: log"
                problems.append(Problem(document.source, line, column, message, hint))
        for index, entry in _entries(document.root, "tests"):
            if isinstance(entry.get("rule"), str) and not entry["rule"].startswith("ban_rules["):
                place = document.root.place(("tests", index, "rule"))
                expected.append(Problem(document.source, *place, entry["rule"]))
    problems += _grants(documents)
    problems += [
        replace(place, message=f"no rule is called '{place.message}'")
        for place in expected
        if place.message not in seen
    ]
    return problems


def _grants(documents: list[Document]) -> Iterator[Problem]:
    """What no grant may say; that a pattern is none its field has said."""
    sets: dict[str, Any] = {}
    for document in documents:
        written = document.root.value.get("sets") if isinstance(document.root.value, dict) else None
        sets |= written if isinstance(written, dict) else {}
    for document in documents:
        for index, entry in _entries(document.root, "share"):
            if entry.get("action") == "grant":
                where = ("share", index)
                for path, problem in grant_entry_problems(entry, sets):
                    place = document.root.place((*where, *path))
                    yield Problem(document.source, *place, problem.message, problem.hint, code=problem.reason)


def _rule_entries(root: Node) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Section, index and entry of every rule."""
    for section in ("rules", "share", "record", "limits"):
        for index, entry in _entries(root, section):
            yield section, index, entry


def _entries(root: Node, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries of a list in the file that are mappings, with their indexes."""
    entries = root.value.get(key) if isinstance(root.value, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield index, entry
