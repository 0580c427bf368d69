"""YAML parser to plain data in which every value has its line and column.

Works on the event stream of PyYAML rather than its node tree: no recursion for a hostile text to
exhaust, and an alias keeps the place where it is used. Scalars follow the YAML 1.2 core schema, so
`no`, `on` and `1:30` stay text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gobanfast._errors import Problem, RuleError

MAX_TEXT_BYTES = 64 << 20
MAX_DEPTH = 64
MAX_ALIASED_VALUES = 10_000  # values that aliases repeat, counted after expansion

_CORE: tuple[tuple[re.Pattern[str], Callable[[str], object]], ...] = (
    (re.compile(r"|~|null|Null|NULL"), lambda _: None),
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    (re.compile(r"[-+]?[0-9]{1,18}"), int),
    (re.compile(r"0x[0-9a-fA-F]{1,16}"), lambda text: int(text, 16)),
    (re.compile(r"0o[0-7]{1,21}"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?"), float),
)


@dataclass(slots=True)
class Node:
    """One value of the text: plain data, its place, and the nodes inside it."""

    value: Any
    line: int
    column: int
    children: dict[str, Node] | list[Node] | None = None
    keys: dict[str, tuple[int, int]] | None = None  # a mapping's keys have places of their own
    values: int = 1  # values in here, after expanding aliases

    def place(self, path: Sequence[str | int]) -> tuple[int, int]:
        """Line and column of the value at `path`, or of the innermost value on the way to it.

        A list may be short for a mapping with one key: then that key is in `path`, and not in the file.
        """
        node = self
        for step in path:
            children: Any = node.children
            if isinstance(children, list) and isinstance(step, str):
                continue
            try:
                node = children[step]
            except (KeyError, IndexError, TypeError):
                break
        return node.line, node.column

    def key_place(self, path: Sequence[str | int]) -> tuple[int, int]:
        """Line and column of the key that ends `path`; the place of the value where there is no such key."""
        node = self
        for step in path[:-1]:
            children: Any = node.children
            try:
                node = children[step]
            except (KeyError, IndexError, TypeError):
                return node.line, node.column
        return (node.keys or {}).get(str(path[-1]), (node.line, node.column))


def read(text: str, source: str) -> Node:
    """The root node of a YAML text.

    Raises:
        RuleError: not one YAML document, or a document with duplicate keys, tags, or more depth, text or
            alias expansion than the caps of this module allow.
    """
    problems: list[Problem] = []
    root = _Reader(text, source, problems).root()
    if root is None and not problems:
        problems.append(Problem(source, 1, 1, "the file is empty", "write a list of rules under rules:"))
    if root is None or problems:
        raise RuleError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return root


class _StopError(Exception):
    """The rest of the text cannot be read; the reason is already among the problems."""


class _Reader:
    def __init__(self, text: str, source: str, problems: list[Problem]) -> None:
        self.text, self.source, self.problems = text, source, problems
        self.anchors: dict[str, Node | None] = {}  # None while the anchored value is still being read
        self.aliased = 0

    def root(self) -> Node | None:
        import yaml

        if len(self.text) > MAX_TEXT_BYTES:
            self.report(1, 1, f"{len(self.text)} characters of text", f"at most {MAX_TEXT_BYTES} are read")
            return None
        try:
            return self.build(yaml)
        except _StopError:
            return None
        except yaml.reader.ReaderError as error:
            before = self.text.encode("utf-8", "surrogatepass")[: error.position].decode("utf-8", "replace")
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            self.report(line, column, f"not YAML: {error.reason}")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            if "nesting depth" in (error.problem or ""):  # libyaml reads ahead, up to a cap of its own
                self.report(line, column, f"nested deeper than {MAX_DEPTH} levels")
            else:
                self.report(line, column, f"not YAML: {error.problem}", self.hint(error, line, column))
        except UnicodeEncodeError as error:  # a lone surrogate in text that did not come from a file
            self.report(self.text.count("\n", 0, error.start) + 1, 1, "not YAML: text is not Unicode")
        return None

    def hint(self, error: Any, line: int, column: int) -> str:
        """What to write instead of what is not YAML, or what it was taken for."""
        lines = self.text.splitlines()
        text = lines[line - 1] if line <= len(lines) else ""
        if "\t" in text[: len(text) - len(text.lstrip())]:
            return "indent with spaces, not tabs"
        alias = error.context == "while scanning an alias"
        at = error.context_mark.column if alias else column - 1
        value = re.split(r",\s|[]}]|\s#", text[at:])[0].strip()
        if value[:1] in ("*", "@", "`", "%", ","):
            return f"quote it: '{value}'"
        if error.problem == "mapping values are not allowed in this context":
            return "quote a text that has a colon and a blank in it"
        if error.problem == "found unknown escape character":
            return "write a regex between single quotes: '...'"
        return error.context or ""

    def report(self, line: int, column: int, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.source, line, column, message, hint))

    def build(self, yaml: Any) -> Node | None:
        root: Node | None = None
        documents = 0
        open_nodes: list[tuple[Node, str | None]] = []  # containers being read, with their anchor
        waiting: list[str | None] = []  # per open mapping, the key whose value comes next; None for a sequence
        loader = getattr(yaml, "CLoader", yaml.Loader)
        for event in yaml.parse(self.text, Loader=loader):
            line, column = event.start_mark.line + 1, event.start_mark.column + 1
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.report(line, column, "a second YAML document", "rules are one document")
                    raise _StopError
                continue
            if isinstance(event, yaml.CollectionEndEvent):
                node, anchor = open_nodes.pop()
                waiting.pop()
                if anchor:
                    self.anchors[anchor] = node
                if open_nodes:
                    open_nodes[-1][0].values += node.values
                continue
            if not isinstance(event, yaml.NodeEvent):
                continue

            anchor = None if isinstance(event, yaml.AliasEvent) else event.anchor
            node = self.node(yaml, event, line, column)
            if not open_nodes:
                root = node
            else:
                parent = open_nodes[-1][0]
                if isinstance(parent.children, list):
                    parent.children.append(node)
                    parent.value.append(node.value)
                elif waiting[-1] is None:
                    waiting[-1] = self.key(yaml, event, parent, line, column)
                    continue
                elif isinstance(parent.children, dict):
                    parent.children[waiting[-1]] = node
                    parent.value[waiting[-1]] = node.value
                    waiting[-1] = None
            if isinstance(event, yaml.CollectionStartEvent):
                if len(open_nodes) == MAX_DEPTH:
                    self.report(line, column, f"nested deeper than {MAX_DEPTH} levels")
                    raise _StopError
                open_nodes.append((node, anchor))
                waiting.append(None)
                if anchor:
                    self.anchors[anchor] = None
            else:
                if anchor:
                    self.anchors[anchor] = node
                if open_nodes:
                    open_nodes[-1][0].values += node.values
        return None if root is not None and root.value is None else root

    def node(self, yaml: Any, event: Any, line: int, column: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event.anchor, line, column)
        if event.tag is not None:
            self.report(line, column, f"tag '{event.tag}' is not supported", "write plain values")
        if isinstance(event, yaml.MappingStartEvent):
            return Node({}, line, column, {}, {})
        if isinstance(event, yaml.SequenceStartEvent):
            return Node([], line, column, [])
        return Node(_scalar(event.value) if event.implicit[0] else event.value, line, column)

    def alias(self, name: str, line: int, column: int) -> Node:
        if name not in self.anchors:
            hint = f"quote it if it is a text: '*{name}'; or mark a value with &{name} first"
            self.report(line, column, f"alias '*{name}' has no anchor before it", hint)
            raise _StopError
        target = self.anchors[name]
        if target is None:
            self.report(line, column, f"alias '*{name}' is inside the value it repeats")
            raise _StopError
        self.aliased += target.values
        if self.aliased > MAX_ALIASED_VALUES:
            self.report(line, column, f"aliases repeat more than {MAX_ALIASED_VALUES} values", "write the values out")
            raise _StopError
        return Node(target.value, line, column, values=target.values)

    def key(self, yaml: Any, event: Any, parent: Node, line: int, column: int) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self.report(line, column, "a key that is not plain text")
            raise _StopError
        keys = parent.keys if parent.keys is not None else {}
        key: str = event.value
        if key in keys:
            self.report(line, column, f"duplicate key '{key}'", f"first on line {keys[key][0]}")
        else:
            keys[key] = (line, column)
        return key


def _scalar(text: str) -> object:
    for pattern, convert in _CORE:
        if pattern.fullmatch(text):
            return convert(text)
    return text
