"""The rules file as pydantic models: YAML data in, checked `Rule`s and every problem out."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from gobanfast._errors import Problem
from gobanfast.rules.fields import (
    AsnRanges,
    Duration,
    Echs,
    Identifier,
    Ja4Prefixes,
    Ja4s,
    Model,
    NameLists,
    Prefixes,
    PrefixLists,
    Protocols,
    Reading,
    Regexes,
    Snis,
    TlsVersion,
)
from gobanfast.rules.founding import FoundingRule
from gobanfast.rules.rule import Action, Conditions, Mode, NameList, NamePattern, PrefixList, Rule, Unparsable
from gobanfast.rules.settings import Settings
from gobanfast.rules.settings_schema import SECTIONS, SettingsText
from gobanfast.rules.source import Node


def condition(value: Any) -> Any:
    """`any` is a `When` without conditions; a mapping must have one."""
    if value == "any":
        return When.model_construct()
    if value in ({}, None):
        raise PydanticCustomError(
            "value", "{text}", {"text": "when has no condition; write 'when: any' to match everything"}
        )
    return value


class When(Model):
    """The conditions of a rule; all must hold."""

    prefix: Prefixes = Field(default_factory=list)
    prefix_file: PrefixLists = Field(default_factory=list)
    asn: AsnRanges = Field(default_factory=list)
    asn_name: Regexes = Field(default_factory=list)
    sni: Snis = Field(default_factory=list)
    sni_file: NameLists = Field(default_factory=list)
    ja4: Ja4s = Field(default_factory=list)
    ja4_prefix: Ja4Prefixes = Field(default_factory=list)
    alpn: Protocols = Field(default_factory=list)
    tls_version_below: TlsVersion = None
    ech: Echs = Field(default_factory=list)

    def conditions(self) -> Conditions:
        inline = PrefixList(b"".join(address for address, _ in self.prefix), bytes(bits for _, bits in self.prefix))
        files = PrefixList(
            b"".join(item.addresses for item in self.prefix_file), b"".join(item.lengths for item in self.prefix_file)
        )
        return Conditions(
            prefix=inline if self.prefix else None,
            prefix_file=files if self.prefix_file else None,
            asn=tuple(self.asn) or None,
            asn_name=tuple(NamePattern(text) for text in self.asn_name) or None,
            sni=tuple(self.sni) or None,
            sni_file=NameList("\n".join(item.text for item in self.sni_file if item.text)) if self.sni_file else None,
            ja4=tuple(self.ja4) or None,
            ja4_prefix=tuple(self.ja4_prefix) or None,
            alpn=tuple(self.alpn) or None,
            tls_version_below=self.tls_version_below,
            ech=tuple(self.ech) or None,
        )


class RuleText(Model):
    """One entry of `rules:`."""

    id: Identifier
    when: Annotated[When, BeforeValidator(condition)]
    action: Action
    lasts: Duration = Field(default=None, alias="for")
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 100
    mode: Mode = "enforce"
    reason: str = ""

    def rule(self, source: str, line: int, column: int) -> Rule:
        return Rule(
            self.id, self.action, self.mode, self.lasts, self.priority, self.reason, source, line, column,
            self.when.conditions(),
        )  # fmt: skip


class RulesFile(SettingsText):
    """The whole file."""

    version: Literal[1] = 1
    unparsable: Unparsable = "challenge"
    rules: list[RuleText] = Field(default_factory=list)
    ban_rules: list[FoundingRule] = Field(default_factory=list)


_MODELS: dict[tuple[str, ...], type[Model]] = {
    (): RulesFile, ("rules",): RuleText, ("rules", "when"): When, ("ban_rules",): FoundingRule,
    **SECTIONS,
}  # fmt: skip
_MEANT = {
    "cidr": "prefix", "ip": "prefix", "duration": "for", "asn_prefix": "asn", "asn_regex": "asn_name",
    "host": "sni", "domain": "sni", "server_name": "sni", "tls_version": "tls_version_below",
}  # fmt: skip
_KINDS = {
    "string": "text", "int": "a whole number", "bool": "true or false", "list": "a list", "dict": "a mapping",
    "model": "a mapping",
}  # fmt: skip


def check(root: Node, source: str) -> tuple[list[Rule], Unparsable, Settings, list[Problem]]:
    """Rules in file order, the action for an unparsable address, the other settings, and every problem.

    The rules are complete only if no problem is an error.
    """
    reading = Reading(Path(source).parent)
    rules: list[Rule] = []
    unparsable: Unparsable = "challenge"
    settings = Settings()
    problems: list[Problem] = []
    try:
        file = RulesFile.model_validate(root.value, context=reading)
    except ValidationError as error:
        problems += [_problem(root, source, details) for details in error.errors(include_url=False)]
    else:
        unparsable, settings = file.unparsable, file.settings()
        for index, text in enumerate(file.rules):
            rules.append(text.rule(source, *root.place(("rules", index))))
        for index, founding in enumerate(file.ban_rules):
            rules.append(founding.rule(source, *root.place(("ban_rules", index)), index))
    problems += reading.problems
    problems += _across(root, source)
    return rules, unparsable, settings, problems


def _across(root: Node, source: str) -> list[Problem]:
    """What no single value shows; works on the raw data, so it is found beside every other problem."""
    problems: list[Problem] = []
    data = root.value if isinstance(root.value, dict) else {}
    if isinstance(root.value, dict) and "rules" not in data and "ban_rules" not in data:
        problems.append(Problem(source, root.line, root.column, "the file has no rules", "write a list under rules:"))

    seen: dict[str, int] = {}
    entries = data.get("rules")
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict):
            continue
        line, column = root.place(("rules", index, "id"))
        name = entry.get("id")
        if isinstance(name, str) and name in seen:
            problems.append(Problem(source, line, column, f"duplicate id '{name}'", f"first on line {seen[name]}"))
        elif isinstance(name, str):
            seen[name] = line
        if "for" in entry and entry.get("action") in ("allow", "challenge", "log"):
            line, column = root.key_place(("rules", index, "for"))
            message = f"'for' on action '{entry['action']}'"
            problems.append(Problem(source, line, column, message, "only a ban lasts, remove it"))
    return problems


def _problem(root: Node, source: str, error: ErrorDetails) -> Problem:
    path, kind = error["loc"], error["type"]
    line, column = root.place(path)
    if kind == "extra_forbidden":
        line, column = root.key_place(path)
        return Problem(source, line, column, f"unknown key '{path[-1]}'", _hint_for_key(path))
    if kind == "missing":
        hint = "write 'when: any' to match everything" if path[-1] == "when" else ""
        return Problem(source, line, column, f"missing key '{path[-1]}'", hint)
    if kind == "value":
        message, _, hint = error["ctx"]["text"].partition("; ")
        return Problem(source, line, column, message, hint)
    if kind == "literal_error":
        value, expected = error["input"], error["ctx"]["expected"]
        near = _near(str(value), [choice.strip("'") for choice in expected.replace(" or ", ", ").split(", ")])
        message = f"{path[-1]} is {_quoted(value)}, not {expected}"
        return Problem(source, line, column, message, f"did you mean '{near}'?" if near else "")
    wanted = _KINDS.get(kind.removesuffix("_type"))
    if wanted:
        hint = "quote it" if wanted == "text" and not isinstance(error["input"], (list, dict)) else ""
        name = next((step for step in reversed(path) if isinstance(step, str)), "the file")
        return Problem(source, line, column, f"{name} is {_quoted(error['input'])}, not {wanted}", hint)
    return Problem(source, line, column, f"{path[-1]} is {_quoted(error['input'])}; {error['msg'].lower()}")


def _hint_for_key(path: tuple[int | str, ...]) -> str:
    model = _MODELS.get(tuple(step for step in path[:-1] if isinstance(step, str)), RulesFile)
    known = [info.alias or name for name, info in model.model_fields.items()]
    key = str(path[-1])
    if model is RuleText and key in When.model_fields:
        return f"'{key}' belongs under when:"
    near = _MEANT.get(key)
    near = near if near in known else _near(key, known)
    return f"did you mean '{near}'?" if near else f"known keys: {', '.join(known)}"


def _near(text: str, choices: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(text, choices, 1)), None)


def _quoted(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    return f"'{value[:80]}'" if isinstance(value, str) else str(value).lower()
