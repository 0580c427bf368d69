"""Loader of a rules file and its includes, each parsed into nodes with line and column."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gobanfast._errors import Problem, RuleError
from gobanfast.rules.sources import Inputs, is_glob
from gobanfast.rules.text.yaml_nodes import MAX_TEXT_BYTES, Node, read

MAX_FILES = 1000
MAX_INCLUDE_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Document:
    """One file, read."""

    source: str
    root: Node


@dataclass(slots=True)
class Tree:
    """A rules file and, depth first, the files that it includes: in the order in which their rules count.

    `problems` is what kept files from being read; the documents are then those that could be.
    """

    inputs: Inputs = field(default_factory=Inputs)
    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _seen: dict[str, str] = field(default_factory=dict)  # real path -> who included it
    _bytes: int = 0

    def load(self, path: str) -> None:
        """Takes in the file `path` and what it includes."""
        self._seen[os.path.realpath(path)] = "the rules file itself"
        text = self._text(path, Problem(path, 0, 0, "cannot be read"))
        if text is not None:
            self.parse(text, path)

    def parse(self, text: str, source: str, above: tuple[str, ...] = ()) -> None:
        """Takes in a text, and what it includes relative to `source`; `above` is the chain of files that led here."""
        try:
            root = read(text, source)
        except RuleError as error:
            self.problems += error.problems
            return
        self.documents.append(Document(source, root))
        for entry, line, column in _includes(root):
            place = Problem(source, line, column, "")
            for path in self._named(entry, place):
                self._include(path, place, (*above, source))

    def _named(self, entry: str, place: Problem) -> list[str]:
        directory = Path(place.source).parent
        if not is_glob(entry):
            return [str(directory / entry)]
        return [str(path) for path in self.inputs.match(directory, entry)]

    def _include(self, path: str, place: Problem, above: tuple[str, ...]) -> None:
        real = os.path.realpath(path)
        if any(os.path.realpath(source) == real for source in above):
            chain = " -> ".join([*(os.path.basename(source) for source in above), os.path.basename(path)])
            self._report(place, f"include goes round: {chain}")
        elif real in self._seen:
            self._report(place, f"'{path}' is included twice", f"first by {self._seen[real]}")
        elif len(above) > MAX_INCLUDE_DEPTH:
            self._report(place, f"includes are nested deeper than {MAX_INCLUDE_DEPTH}")
        elif len(self._seen) >= MAX_FILES:
            self._report(place, f"more than {MAX_FILES} files", "put lists into list files")
        else:
            self._seen[real] = f"{place.source}:{place.line}"
            text = self._text(path, place)
            if text is not None:
                self.parse(text, path, above)

    def _text(self, path: str, place: Problem) -> str | None:
        """The text of a file, or None when it is among the problems why not."""
        self.inputs.add(path)
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_TEXT_BYTES + 1)
            self._bytes += len(data)
            if self._bytes > MAX_TEXT_BYTES:
                self._report(place, f"more than {MAX_TEXT_BYTES} bytes of rules", "put lists into list files")
                return None
            return data.decode("utf-8-sig")
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            self._report(place, f"cannot be read: {why}" if place.line == 0 else f"'{path}' cannot be read: {why}")
        except UnicodeDecodeError as error:
            before = error.object[: error.start]
            line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
            message = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
            self.problems.append(Problem(path, line, column, message))
        return None

    def _report(self, place: Problem, message: str, hint: str = "") -> None:
        self.problems.append(Problem(place.source, place.line, place.column, message, hint))


def _includes(root: Node) -> Iterator[tuple[str, int, int]]:
    """The usable entries of `include:` with their places; what is wrong with the others, the schema says."""
    value = root.value.get("include") if isinstance(root.value, dict) else None
    entries = value if isinstance(value, list) else [value]
    for index, entry in enumerate(entries):
        if isinstance(entry, str) and entry and "\0" not in entry:
            yield (entry, *root.place(("include", index)))
