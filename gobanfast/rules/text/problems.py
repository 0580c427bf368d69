"""Validation errors of pydantic as problems with file, line, column and a hint."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gobanfast._errors import Problem

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from gobanfast.rules.text.yaml_nodes import Node

Models = Mapping[tuple[str, ...], type["BaseModel"]]

_MEANT = {
    "cidr": "prefix", "ip": "prefix", "duration": "for", "asn_prefix": "asn", "asn_regex": "asn_name",
    "domain": "sni", "server_name": "sni", "tls_version": "tls_version_below", "includes": "include",
    "headers": "header", "url": "path", "uri": "path",
    "starts_with": "prefix", "ends_with": "suffix", "startswith": "prefix", "endswith": "suffix", "exact": "equals",
    "matches": "regex",
    "cors": "share", "allow_origins": "origin", "allowed_origins": "origin", "expose_headers": "expose",
    "exposed_headers": "expose", "allowed_methods": "methods", "allowed_headers": "headers",
    "sampling": "record", "traces": "trace", "tracing": "trace", "sample_rate": "probability", "ratio": "probability",
    "param": "probability", "name": "class", "rate_class": "class",
}  # fmt: skip
_HEADERS = ("user-agent", "user_agent", "referer", "accept", "accept-language", "cookie")
_FORMS = {  # of keys that other products have, and no key here stands for
    "any": "'when: any' matches everything; for one of several conditions write a rule for each",
    "or": "values of one condition are alternatives; for one of several conditions write a rule for each",
    "and": "conditions of one rule must all hold; write them side by side under when:",
    "all": "conditions of one rule must all hold; write them side by side under when:",
    "country": "there are no countries; write the prefixes of a list under prefix_file:, or asn: numbers",
    "geo": "there are no countries; write the prefixes of a list under prefix_file:, or asn: numbers",
    "continent": "there are no countries; write the prefixes of a list under prefix_file:, or asn: numbers",
}  # fmt: skip
_VALUES = {
    "deny": "ban", "block": "ban", "drop": "ban", "reject": "ban", "refuse": "ban", "forbid": "ban", "blacklist": "ban",
    "denylist": "ban", "accept": "allow", "pass": "allow", "permit": "allow", "whitelist": "allow",
    "allowlist": "allow", "captcha": "challenge", "js": "challenge", "managed_challenge": "challenge",
    "monitor": "log", "count": "log", "audit": "log", "report": "log", "test": "shadow", "dry-run": "shadow",
    "disabled": "off", "enabled": "enforce", "on": "enforce", "active": "enforce",
}  # fmt: skip
_SHARED = {  # the same of share rules
    "allow": "grant", "accept": "grant", "permit": "grant", "share": "grant", "deny": "withhold", "ban": "refuse",
    "block": "refuse", "drop": "refuse", "reject": "refuse", "forbid": "refuse",
}  # fmt: skip
_RECORDED = {  # and of record rules
    "keep": "always", "sample": "rate", "on": "always", "all": "always", "drop": "never", "ignore": "never",
    "off": "never", "none": "never", "deny": "never", "probability": "rate", "ratio": "rate", "sampled": "rate",
}  # fmt: skip
_ELSEWHERE = {  # values that belong under another key
    ("rules", "action", "always"): "rules with the action always belong under record:",
    ("rules", "action", "never"): "rules with the action never belong under record:",
    ("rules", "action", "rate"): "rules with the action rate belong under record:",
    ("record", "action", "log"): "rules with the action log belong under rules:; to keep a trace write always",
    ("rules", "action", "grant"): "rules with the action grant belong under share:",
    ("rules", "action", "withhold"): "rules with the action withhold belong under share:",
    ("rules", "action", "refuse"): "rules with the action refuse belong under share:; to keep a client out write ban",
    ("share", "action", "log"): "rules with the action log belong under rules:; mode: shadow reports a share rule",
    ("share", "action", "challenge"): "rules with the action challenge belong under rules:",
    ("tests", "expect", "granted"): "write share: granted",
    ("tests", "expect", "withheld"): "write share: withheld",
    ("tests", "expect", "refused"): "write share: refused",
    ("tests", "share", "grant"): "write granted",
    ("tests", "share", "withhold"): "write withheld",
    ("tests", "share", "refuse"): "write refused",
}
_KINDS = {
    "string": "text", "int": "a whole number", "bool": "true or false", "list": "a list", "dict": "a mapping",
    "model": "a mapping",
}  # fmt: skip


def problem(root: Node, source: str, error: ErrorDetails, models: Models, above: Sequence[str | int] = ()) -> Problem:
    """The problem that pydantic found; `above` is the path to what it validated, `models` the model at every path."""
    path, kind = (*above, *error["loc"]), error["type"]
    line, column = root.place(path)
    if kind == "extra_forbidden":
        line, column = root.key_place(path)
        return Problem(source, line, column, f"unknown key '{path[-1]}'", _hint_for_key(path, models))
    if kind == "missing":
        hint = "write 'when: any' to match everything" if path[-1] == "when" else ""
        return Problem(source, line, column, f"missing key '{path[-1]}'", hint)
    if kind == "value":
        message, _, hint = error["ctx"]["text"].partition("; ")
        return Problem(source, line, column, message, hint, code=error["ctx"].get("code", ""))
    if kind == "literal_error":
        value, expected = error["input"], error["ctx"]["expected"]
        choices = [choice.strip("'") for choice in expected.replace(" or ", ", ").split(", ")]
        text, names = str(value).lower(), [step for step in path if isinstance(step, str)]
        near = {"share": _SHARED, "record": _RECORDED}.get(names[0], _VALUES).get(text)
        near = near if near in choices else _near(str(value), choices)
        message = f"{path[-1]} is {quoted(value)}, not {expected}"
        elsewhere = _ELSEWHERE.get((names[0], names[-1], text))
        if elsewhere is not None:
            return Problem(source, line, column, message, elsewhere)
        return Problem(source, line, column, message, f"did you mean '{near}'?" if near else "")
    wanted = _KINDS.get(kind.removesuffix("_type"))
    if wanted:
        hint = "quote it" if wanted == "text" and not isinstance(error["input"], (list, dict)) else ""
        if wanted == "a list" and isinstance(error["input"], dict):
            hint = "begin each item with '- '"
        name = next((step for step in reversed(path) if isinstance(step, str)), "the file")
        return Problem(source, line, column, f"{name} is {quoted(error['input'])}, not {wanted}", hint)
    return Problem(source, line, column, f"{path[-1]} is {quoted(error['input'])}; {error['msg'].lower()}")


def _hint_for_key(path: tuple[int | str, ...], models: Models) -> str:
    where = tuple(step for step in path[:-1] if isinstance(step, str))
    key = str(path[-1])
    model = (
        models.get(where) or models.get(where[:3]) or models.get((*where[:1], "*")) or models[()]
    )  # a header's name is the fourth step
    known = [info.alias or name for name, info in model.model_fields.items()]
    if where[-1:] == ("not",) and key in models["rules", "when"].model_fields:
        return (
            f"'{key}' has no negation: what satisfies it is looked up, not asked; write a rule for it before this one"
        )
    if key == "outcome" and "when" in where:
        return "only a rule under record: knows what became of the request, and it has no negation"
    if where in (("rules",), ("share",), ("record",)) and key in models["record", "when"].model_fields:
        return f"'{key}' belongs under when:"
    if where == ("share",) and _MEANT.get(key) == "origin":
        return "write origin: under when:"
    if where == ("tests",) and key == "host":
        return "write headers: {host: ...}"
    if where == () and key in models["root",].model_fields:
        return f"'{key}' belongs in the file that includes this one"
    if where[1:] == ("when",) and key.lower() in _HEADERS and key not in known:
        return f"write header: {{{key.lower().replace('_', '-')}: ...}}"
    if key.lower() in _FORMS and key not in known and "when" in where:
        return _FORMS[key.lower()]
    near = _MEANT.get(key)
    near = near if near in known else _near(key, known)
    return f"did you mean '{near}'?" if near else f"known keys: {', '.join(known)}"


def _near(text: str, choices: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(text, choices, 1)), None)


def quoted(value: object) -> str:
    """A value as messages show it."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    return f"'{value[:80]}'" if isinstance(value, str) else str(value).lower()
