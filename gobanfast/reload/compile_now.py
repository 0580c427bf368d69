"""Compile rules in this process and run their inline tests."""

from __future__ import annotations

import os

from gobanfast._errors import RuleError
from gobanfast._fork import importing
from gobanfast.asn.source import AsnSource
from gobanfast.rules import ruleset_file
from gobanfast.rules.ruleset import Ruleset
from gobanfast.rules.sources import Inputs


def compile_now(path: str | os.PathLike[str], networks: AsnSource, inputs: Inputs) -> Ruleset:
    """The ruleset in `path`, its inline tests passed. Raises what `Ruleset.load` and the reading of AS tables raise."""
    asn = None
    if not ruleset_file.is_stored(path):
        _import_reader()
        asn = networks.table(inputs)
    return run_tests(Ruleset.load(path, asn=asn, inputs=inputs))


def run_tests(ruleset: Ruleset) -> Ruleset:
    """The same ruleset. RuleError when it fails its inline tests."""
    failures = ruleset.failures()
    if failures:
        raise RuleError(failures)
    return ruleset


def _import_reader() -> None:
    """Imports what reading rules needs, and a compiled ruleset did not."""
    with importing:
        import yaml  # noqa: F401

        from gobanfast.rules import inline_test  # noqa: F401
        from gobanfast.rules.check import lint  # noqa: F401
        from gobanfast.rules.compile import address, connection, request  # noqa: F401
        from gobanfast.rules.text import includes, schema  # noqa: F401
