"""Import of Jaeger's sampling strategies as record rules: a rate class for each route of a service, and the rest."""

from __future__ import annotations

import json
import re

from gobanfast.rules.importers.notes import Notes
from gobanfast.rules.importers.sharing import head, tests
from gobanfast.rules.text.jaeger_strategies import RateClass, read_strategies

TOOL = "strategies.json of Jaeger"
LEAST, MOST = 1 / 60, 1e6  # traces a second that `target` takes
_WORDS = re.compile(r"[^a-z0-9]+")


def rules(text: str, service: str, notes: Notes) -> str:
    """The rules file for one service of the file.

    Raises:
        RuleError: Jaeger would not take the file, with all problems.
    """
    found = read_strategies(text, service=service, source=notes.source)
    notes.warnings += found.warnings
    lines, cases, taken = [], [], {"rest"}
    for each in found.classes:
        name = "rest" if each.path is None else _id(each.name, taken)
        rate = f"action: rate, class: {name}, {_rate(each, notes)}"
        lines.append(f"  - {{id: {name}, {_when(each)}, {rate}}}")
        asked = "" if each.method is None else f", method: {each.method}"
        path = "/any/other/path" if each.path is None else each.path.replace("*", "1")
        cases.append(f"{{path: {json.dumps(path)}{asked}, record: rate, rule: {name}}}")
    if any(each.controller == "target" for each in found.classes):
        notes.warn("ratelimiting is of each process in Jaeger", "per_second is of a host, over its workers")
    written = "\n".join(lines)
    return (
        f"{head(TOOL, notes)}\n"
        "trace: {propagators: [tracecontext, baggage]}\n"
        "# Jaeger's rates are of roots, and so are these: under a parent its decision is followed.\n"
        f"record:\n{written}\n" + tests(cases)
    )


def _id(name: str, taken: set[str]) -> str:
    base = _WORDS.sub("-", name.lower()).strip("-")[:60] or "root"
    found, number = base, 1
    while found in taken:
        number += 1
        found = f"{base}-{number}"
    taken.add(found)
    return found


def _when(each: RateClass) -> str:
    if each.path is None:
        return "when: any"
    method = "" if each.method is None else f", method: {each.method}"
    return f"when: {{path: {json.dumps(each.path)}{method}}}"


def _rate(each: RateClass, notes: Notes) -> str:
    if each.per_second is None:
        return f"probability: {each.probability:.10g}"
    rate = min(max(each.per_second, LEAST), MOST)
    if rate != each.per_second:
        notes.warn(f"'{each.name}' keeps {each.per_second:g} traces a second", f"imported as {rate:.4g}")
    return f"controller: target, per_second: {rate:.10g}"
