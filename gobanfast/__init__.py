"""One policy, one call: may it come in, may it be read, do we keep a trace."""

from __future__ import annotations

from gobanfast._errors import FormatError, GobanError, Problem, RuleError

__all__ = ["FormatError", "GobanError", "Problem", "RuleError"]
__version__ = "0.1.0"
