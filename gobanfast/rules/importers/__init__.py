"""Import of other tools' settings as rules: of Starlette, django-cors-headers and the MCP SDK (cross-origin), of Jaeger
(sampling), of slowapi and Django REST framework (limits).

The rules give what the settings gave, less what was surely not meant; each such hole is closed, and named in a warning.
"""

from __future__ import annotations

from collections.abc import Callable

from gobanfast._errors import GobanError, Problem, RuleError
from gobanfast.rules.importers import django_cors, jaeger, limit_texts, mcp, starlette
from gobanfast.rules.importers.notes import Notes
from gobanfast.rules.importers.options import read_options

IMPORTERS: dict[str, Callable[[dict[str, object], Notes], str]] = {
    "starlette": starlette.rules,
    "django-cors": django_cors.rules,
    "mcp": mcp.rules,
    "slowapi": limit_texts.slowapi,
    "drf": limit_texts.drf,
}
"""By the name of the tool: the rules file that its options stand for."""

JAEGER = "jaeger"
TOOLS = (*IMPORTERS, JAEGER)
"""All that can be imported."""


def import_rules(tool: str, text: str, source: str, *, service: str = "") -> tuple[str, list[Problem]]:
    """The rules file for settings of `tool`, and a warning for everything that is not the same.

    Args:
        text: the settings. source: the name of their file; its ending says what they are (.toml, .py, else JSON).
        service: whose strategies to take of a file of Jaeger; the default's where it names none.
    Raises:
        RuleError: they cannot be read, or leave nothing to write rules about.
    """
    from gobanfast.rules.ruleset import Ruleset

    notes = Notes(source)
    if tool == JAEGER:
        written = jaeger.rules(text, service, notes)
    else:
        options = read_options(text, source, notes, modules=tool == "django-cors")
        written = IMPORTERS[tool](options, notes)
    if notes.errors:
        raise RuleError([*notes.errors, *notes.warnings])
    made = Ruleset.from_text(written)
    if failures := made.failures():
        raise GobanError(f"{source}: the rules made of it do not do what they should: {failures[0].message}")
    return written, notes.warnings
