"""Collector of what an import finds wrong, as problems and as comments of the file it writes."""

from __future__ import annotations

import textwrap

from gobanfast._errors import Problem


def printable(text: str) -> str:
    """`text` fit for a comment: nothing in it ends a line."""
    return "".join(char if char.isprintable() else "?" for char in text)


class Notes:
    """Errors, which end the import, and warnings, about the settings in one file."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, message: str, hint: str) -> None:
        self.errors.append(Problem(self.source, 0, 0, message, hint))

    def warn(self, message: str, hint: str, line: int = 0, column: int = 0) -> None:
        self.warnings.append(Problem(self.source, line, column, message, hint, "warning"))

    def comments(self) -> str:
        """The warnings as comment lines."""
        if not self.warnings:
            return ""
        lines = ["#", "# Not the same as there, or wrong there:"]
        for note in self.warnings:
            said = f"{note.message}; {note.hint}" if note.hint else note.message
            lines += textwrap.wrap(
                printable(said), 118, initial_indent="# - ", subsequent_indent="#   ", break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip
        return "\n".join(lines) + "\n"
