"""One policy, one call: may it come in, may it be read, do we keep a trace."""

from __future__ import annotations

from gobanfast._errors import FormatError, GobanError, Problem, RuleError
from gobanfast._kernels import kernels

__all__ = ["FormatError", "GobanError", "Problem", "RuleError", "kernels"]
__version__ = "0.1.0"
