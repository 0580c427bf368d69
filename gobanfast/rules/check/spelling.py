"""Lint of spellings: paths and header names in a form that requests never have when rules are matched."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import unquote_to_bytes

from gobanfast._errors import Problem
from gobanfast.rules.compile.request import holds, text_of
from gobanfast.rules.rule import HeaderTest, Operator
from gobanfast.wire.target import encoded, readings

if TYPE_CHECKING:
    from gobanfast.rules.text.includes import Document

    Steps = tuple[str | int, ...]

_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_SLASH = re.compile(r"%2[fF]")
_WILD = re.compile(r"(\*\*|\*|\?)")
_PLAIN_NAME = re.compile(r"[a-z0-9-]+", re.ASCII)
_OPERATORS = get_args(Operator)


def spelling(documents: Sequence[Document]) -> Iterator[Problem]:
    """Warnings about every condition on paths and headers, wherever there is a `when:`; about the header names of tests
    and of `fingerprint: {fields}`. All documents have passed validation."""
    for document in documents:
        root = document.root
        for steps, rule in _conditions(root.value, ()):
            for where, key, value in _asked(rule["when"], (*steps, "when")):
                if key == "path":
                    found = _paths(value, rule.get("action") == "allow")
                else:
                    found = _names(value) if isinstance(value, dict) else iter(())
                for below, code, message, hint in found:
                    place = root.key_place if key == "header" else root.place
                    yield _warning(document, place((*where, *below)), code, message, hint)
        for index, test in enumerate(root.value.get("tests") or ()):
            for below, code, message, hint in _names(test.get("headers") or {}):
                yield _warning(document, root.key_place(("tests", index, "headers", *below)), code, message, hint)
        fields = (root.value.get("fingerprint") or {}).get("fields") or ()
        for index, name in enumerate(fields):
            for _, code, message, hint in _names({name: None}):
                yield _warning(document, root.place(("fingerprint", "fields", index)), code, message, hint)


def _warning(document: Document, place: tuple[int, int], code: str, message: str, hint: str) -> Problem:
    return Problem(document.source, *place, message, hint, "warning", code)


def _conditions(value: Any, steps: Steps) -> Iterator[tuple[Steps, dict[str, Any]]]:
    """Every mapping with conditions under `when`, and the way to it."""
    if isinstance(value, dict):
        if isinstance(value.get("when"), dict):
            yield steps, value
        for key, inside in value.items():
            if key != "when":
                yield from _conditions(inside, (*steps, key))
    elif isinstance(value, list):
        for index, inside in enumerate(value):
            yield from _conditions(inside, (*steps, index))


def _asked(when: dict[str, Any], steps: Steps) -> Iterator[tuple[Steps, str, Any]]:
    """The conditions on path and headers, those in blocks of conditions too."""
    for key, value in when.items():
        if key in {"path", "header"}:
            yield (*steps, key), key, value
        elif isinstance(value, dict):
            yield from _asked(value, (*steps, key))


# ---- header names


def _names(headers: dict[str, Any]) -> Iterator[tuple[Steps, str, str, str]]:
    for name in headers:
        lower = name.lower()
        if lower.startswith(":") or _PLAIN_NAME.fullmatch(lower):
            continue
        odd = next(char for char in lower if not _PLAIN_NAME.fullmatch(char))
        better = re.sub("[^a-z0-9]+", "-", lower.removeprefix("http_")).strip("-")
        if odd == "_":
            why = f"nginx drops such headers, and WSGI servers drop them or name them '{lower.replace('_', '-')}'"
        else:
            why = "nginx and others drop such headers"
        message = f"header '{name}' has '{odd}' in its name: {why}"
        yield (name,), "header-name", message, f"write {better}" if better else ""


# ---- paths


def _paths(value: Any, permissive: bool) -> Iterator[tuple[Steps, str, str, str]]:
    for operator, texts, steps in _written(value):
        for index, text in enumerate(texts):
            where = (*steps, index)
            found = _escaped(operator, text, permissive)
            if found is not None:
                yield where, "encoded-path", *found
            elif permissive and operator in {"equals", "glob"}:
                split = _read_otherwise(operator, text, texts)
                if split is not None:
                    yield where, "path-readings", *split


def _written(value: Any) -> Iterator[tuple[Operator, list[str], Steps]]:
    """(operator, values, way to them) of a condition, which is a text, several, or operators."""
    if not isinstance(value, dict):
        yield "glob", [value] if isinstance(value, str) else value, ()
        return
    for operator in _OPERATORS:
        if texts := value.get(operator):
            yield operator, [texts] if isinstance(texts, str) else texts, (operator,)


def _escaped(operator: Operator, text: str, permissive: bool) -> tuple[str, str] | None:
    """Message and hint about the escapes in a path; None where they mean something, or there are none.

    The first decoding may leave an encoded slash as it is, so that `%2f` does hold, where one reading is enough.
    """
    escapes = _ESCAPES.findall(text)
    if all(_SLASH.sub("", run) == "" for run in escapes):
        if not escapes or operator == "regex" or permissive:
            return None
        message = f"path {text[:80]!r} has {escapes[0]!r}, which holds for an encoded slash in these letters only"
        return message, f"{_decoded(operator, text)}, which an encoded slash is read as too"
    shown = next(run for run in escapes if _SLASH.sub("", run))[:24]
    message = f"path {text[:80]!r} has {shown!r}, and paths are matched decoded: only one encoded twice is so"
    if any(min(unquote_to_bytes(run)) < 32 or b"\x7f" in unquote_to_bytes(run) for run in escapes):
        return message, "leave it out: a path with a control character cannot be read, and unparsable: decides"
    return message, _decoded(operator, text)


def _decoded(operator: Operator, text: str) -> str:
    """What to write for a path with escapes."""
    if operator == "regex":
        return f"write '{_unescaped(text, re.escape)}'"
    plain = _unescaped(text, str)
    marks = "".join(_unescaped(run, str) for run in _ESCAPES.findall(text))
    if "#" not in marks and "?" not in marks and not (operator == "glob" and "*" in marks):
        return f"write {plain}"
    if operator == "glob":
        pieces = [_unescaped(part, str) for part in _WILD.split(text)]
        wild = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
        pattern = "".join(wild[piece] if at % 2 else re.escape(piece) for at, piece in enumerate(pieces))
        return f"write path: {{regex: '^{pattern}$'}}"
    return f"write path: {{regex: '^{re.escape(plain)}{'$' if operator == 'equals' else ''}'}}"


def _unescaped(text: str, each: Any) -> str:
    before = None
    while before != text:
        before, text = text, _ESCAPES.sub(lambda run: each(text_of(unquote_to_bytes(run[0]))), text)
    return text


def _read_otherwise(operator: Operator, text: str, texts: list[str]) -> tuple[str, str] | None:
    """Message and hint about a path that an `allow` rule names, and that is read in a way which the rule does not."""
    sample = _WILD.sub("x", text) if operator == "glob" else text
    target = encoded(sample) if _SLASH.search(sample) is None else sample
    found = readings(target.encode("utf-8", "surrogatepass"))
    test = holds(HeaderTest(":path", operator, tuple(texts)))
    others = [] if found is None else [reading for reading in found.full if not test(reading)]
    if not others:
        return None
    shown = ", ".join(map(repr, others[:3]))
    message = f"path {text[:80]!r} is read as {shown} too, and a rule that allows must hold for all readings"
    return message, f"list {shown} too, or write that alone" if sample == text else "allow the other readings too"
