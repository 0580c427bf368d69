"""Legacy schema `ban_rules:`, with the meanings its words need.

`asn_prefix` is an AS *number*: as text, AS15169 would also match AS151690, another network.
`asn_regex` is searched in "AS<number>-<name>", the form its patterns are written for.
`action: permanent` is a permanent ban, and a duration without an action is a ban.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gobanfast.rules.rule import Conditions, NamePattern, Rule
from gobanfast.rules.text.fields import AsnRanges, Duration, Model, Regexes


class LegacyRuleModel(Model):
    """One entry of `ban_rules:`."""

    asn_prefix: AsnRanges = Field(default_factory=list)
    asn_regex: Regexes = Field(default_factory=list)
    action: Literal["allow", "challenge", "ban", "log", "permanent"] = "ban"
    duration: Duration = None
    reason: str = ""

    @model_validator(mode="after")
    def complete(self) -> Self:
        text = ""
        if not self.asn_prefix and not self.asn_regex:
            text = "ban rule matches nothing; give it asn_prefix or asn_regex"
        elif not self.model_fields_set & {"action", "duration"}:
            text = "ban rule says neither how nor how long; give it action or duration"
        elif "duration" in self.model_fields_set and self.action != "ban":
            text = f"duration on action '{self.action}'; only a ban lasts, remove one of them"
        if text:
            raise PydanticCustomError("value", "{text}", {"text": text})
        return self

    def rule(self, source: str, line: int, column: int, index: int) -> Rule:
        """The same rule in today's words; its id is `ban_rules[index]`, which no written id may be."""
        when = Conditions(
            asn=tuple(self.asn_prefix) or None,
            asn_name=tuple(NamePattern(text, "-") for text in self.asn_regex) or None,
        )
        action = "ban" if self.action == "permanent" else self.action
        return Rule(
            f"ban_rules[{index}]", action, "enforce", self.duration, 100, self.reason, source, line, column, when
        )  # fmt: skip
