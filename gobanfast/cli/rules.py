"""`gobanfast rules`: what is wrong with rules before they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gobanfast._errors import RuleError
from gobanfast.cli.common import Asn, load_asn

app = typer.Typer(help="Work on rules files.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Work on rules files."""


@app.command()
def lint(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Rules (YAML).")],
    asn: Asn = None,
) -> None:
    """Print every error and warning as file:line:column; status 1 if there is any, 2 if a file cannot be read."""
    from gobanfast.rules import Ruleset

    networks = load_asn(asn)
    errors = warnings = 0
    for file in files:
        try:
            ruleset = Ruleset.load(file, asn=networks)
        except RuleError as error:
            problems = error.problems
        else:
            problems = ruleset.problems
            if not problems:
                typer.echo(f"{file}: {len(ruleset.rules)} rules, nothing to say")
        for problem in problems:
            typer.echo(f"{problem} [{problem.severity}]")
            errors += problem.severity == "error"
            warnings += problem.severity != "error"
    if errors or warnings:
        typer.echo(f"{errors} errors, {warnings} warnings")
        raise typer.Exit(1)
