"""Reader of settings files (JSON, TOML, Python settings modules) and of single options in them."""

from __future__ import annotations

import json
import tomllib
from typing import Any, TypeVar

from gobanfast._errors import Problem, RuleError
from gobanfast.rules.importers.notes import Notes
from gobanfast.rules.importers.settings_module import read_module

Kind = TypeVar("Kind", bool, int, str)
_WORDS = {bool: "true or false", int: "a whole number", str: "a text"}


def read_options(text: str, source: str, notes: Notes, *, modules: bool) -> dict[str, object]:
    """The options in a settings file.

    Raises:
        RuleError: it is not what its name says, or no mapping.
    """
    if source.endswith(".py"):
        if not modules:
            raise _error(source, "a Python file is read for django-cors alone", "write the options as JSON or TOML")
        return read_module(text, source, notes)
    kind = "TOML" if source.endswith(".toml") else "JSON"
    try:
        options = tomllib.loads(text) if kind == "TOML" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _error(source, f"the file is no {kind}: {error}", "write the options as one mapping") from None
    if not isinstance(options, dict):
        raise _error(source, f"the file holds a {type(options).__name__}, no mapping", "write {name: value, ...}")
    return options


def _error(source: str, message: str, hint: str) -> RuleError:
    return RuleError([Problem(source, 0, 0, message, hint)])


def single(options: dict[str, Any], name: str, default: Kind, notes: Notes) -> Kind:
    """One value of the type of `default`, which it is when it is not there or of another type (an error)."""
    value = options.get(name)
    if value is None:
        return default
    if type(value) is not type(default):
        notes.error(f"{name} is {value!r:.80}", f"write {_WORDS[type(default)]}")
        return default
    return value


def texts(options: dict[str, Any], name: str, default: tuple[str, ...], notes: Notes) -> list[str]:
    """A list of texts; `default` when it is not there. A text alone is an error, as everything else."""
    value = options.get(name, default)
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return list(dict.fromkeys(value))
    notes.error(f"{name} is {value!r:.80}", 'write a list of texts: ["...", "..."]')
    return []


def unknown(options: dict[str, Any], known: tuple[str, ...], what: str, notes: Notes) -> None:
    """Warns of options that nothing reads."""
    for name in options.keys() - set(known):
        notes.warn(f"{name[:80]!r} is no option of {what}", "it was left out")
