"""JSON Schema of rules files, for completion and checks in editors."""

from __future__ import annotations

import warnings
from typing import Any

from pydantic.json_schema import models_json_schema

from gobanfast.rules.text.conditions import SetModel
from gobanfast.rules.text.record_schema import RATED
from gobanfast.rules.text.schema import GRANTED, NO_REQUEST, RulesFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a rules file and of the files it includes.

    What the schema refuses, loading refuses too; loading knows more (prefixes, regexes, what sets exist).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about defaults that are no JSON; they are left out
        _, made = models_json_schema(
            [(RulesFile, "validation"), (SetModel, "validation")], by_alias=True, ref_template="#/$defs/{model}"
        )
    definitions = made["$defs"]
    for name in ("PrefixList", "NameList"):  # what a file is read into
        definitions.pop(name, None)
    definitions["When"]["minProperties"] = definitions["Not"]["minProperties"] = 1
    definitions["Not"]["properties"]["header"]["maxProperties"] = 1
    definitions["RecordWhen"]["minProperties"] = 1
    usual = ("RuleModel", "ShareRuleModel", "LimitModel")
    for model, when in (*((model, "When") for model in usual), ("RecordRuleModel", "RecordWhen")):
        definitions[model]["properties"]["when"] = {
            "anyOf": [{"const": "any"}, {"$ref": f"#/$defs/{when}"}],
            "description": "the conditions, all of which must hold; any: always",
        }
    share = definitions["ShareRuleModel"]
    given = sorted(name for name in share["properties"] if name in GRANTED)
    share["if"] = {"properties": {"action": {"const": "grant"}}}
    share["else"] = {"properties": dict.fromkeys(given, False)}
    record = definitions["RecordRuleModel"]
    rated = [name for name in record["properties"] if name in (*RATED, "class")]
    record["if"] = {"properties": {"action": {"const": "rate"}}}
    record["then"] = {"required": ["class"]}
    record["else"] = {"properties": dict.fromkeys(rated, False)}
    case = definitions["CaseModel"]
    said = [name for name in case["properties"] if name not in NO_REQUEST]
    case["allOf"] = [
        {"anyOf": [{"required": ["expect"]}, {"required": ["share"]}, {"required": ["record"]}]},
        {"anyOf": [{"required": [name]} for name in said]},
    ]
    root = definitions.pop("RulesFile")
    properties = root["properties"]
    properties["sets"] = {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z0-9_.-]{1,64}$"},
        "additionalProperties": {"$ref": "#/$defs/SetModel"},
        "description": "named lists; '@name' in a condition stands for what the set lists under the same key",
    }
    one_or_more = definitions["TrustModel"]["properties"]["prefix"]
    properties["trust"] = {"anyOf": [*one_or_more["anyOf"], {"$ref": "#/$defs/TrustModel"}]}
    for section in ("bans", "fingerprint", "labels"):
        properties[section] = {"anyOf": [properties[section], {"type": "null"}]}
    schema = {"$schema": DIALECT, "title": "gobanfast rules, version 1", **root, "$defs": definitions}
    plain: dict[str, Any] = _plain(schema)
    return plain


def _plain(schema: Any, *, named: bool = False) -> Any:
    """The schema without the titles and defaults that pydantic makes of names; `named`: keys are names of ours."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _plain(value, named=key in ("properties", "$defs") and not named)
        for key, value in schema.items()
        if named or key not in ("title", "default") or value == "gobanfast rules, version 1"
    }
