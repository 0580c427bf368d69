"""Exceptions that gobanfast raises on purpose; any other that escapes is a bug."""

from __future__ import annotations

from gobanfast._dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class GobanError(Exception):
    """Base of every error gobanfast raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a text a person wrote, and where.

    `line` and `column` count from 1; 0 means "the whole file". `severity` is "error" or "warning". `code` names the
    kind of a warning ("shadowed-rule"), for programs; the kinds are listed in docs/rules.md.
    """

    source: str
    line: int
    column: int
    message: str
    hint: str = ""
    severity: str = "error"
    code: str = ""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        text = f"{place}: {self.message}"
        return f"{text}; {self.hint}" if self.hint else text


class RuleError(GobanError, ValueError):
    """Rules (or a list or table source they name) that cannot be used; carries *all* problems.

    `problems` is the full list in file order; `source`, `line`, `column` are those of the first.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        self.source, self.line, self.column = first.source, first.line, first.column
        super().__init__("\n".join(str(problem) for problem in self.problems))


class FormatError(GobanError, ValueError):
    """A compiled file or database that is truncated, damaged, foreign or too new.

    `path` names the file ("<memory>" for a buffer), `offset` the byte where it went wrong.
    """

    def __init__(self, path: str, offset: int, message: str) -> None:
        self.path, self.offset = path, offset
        super().__init__(f"{path}: {message} at offset {offset}")
