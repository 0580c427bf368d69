"""Rules files and the rulesets that they compile to."""

from __future__ import annotations

from gobanfast.rules.rule import Rule
from gobanfast.rules.ruleset import Ruleset

__all__ = ["Rule", "Ruleset"]
