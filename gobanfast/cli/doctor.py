"""`gobanfast doctor`: find deployment faults that make decisions by address wrong."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from gobanfast.cli.common import AsJson, Asn, load_asn, load_engine, output, table

COLOURS = {"problem": "red", "warning": "yellow", "note": "dim"}
TOKEN = "GOBANFAST_TOKEN"  # noqa: S105 - the variable's name


def doctor(
    rules: Annotated[
        Path | None, typer.Option("--rules", "-r", exists=True, dir_okay=False, help="Rules file to examine.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", help="Server with a Doctor (default path /gobanfast-doctor); GOBANFAST_TOKEN has its token."
        ),
    ] = None,
    asn: Asn = None,
    trust: Annotated[
        list[str] | None,
        typer.Option("--trust", metavar="PREFIX", help="Proxies that the frontend is configured to trust."),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes that serve.")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="The processes share a store.")] = False,
    challenge: Annotated[bool, typer.Option("--challenge", help="A challenge is configured.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find faults that make decisions by address wrong, in a configuration (--rules), a running server (--url) or both.

    Exit status 1 if there is a problem or a warning.
    """
    from gobanfast.frontends.doctor import Finding, consult, examine, ranked
    from gobanfast.frontends.trust import Trust

    if rules is None and url is None:
        raise typer.BadParameter("name a rules file (--rules), a running server (--url), or both")
    found: list[Finding] = []
    if rules is not None:
        try:
            named = Trust(trust) if trust else None
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        engine = load_engine(rules, load_asn(asn, rules))
        found += examine(engine, trust=named, asn_file=asn, challenge=challenge, shared=shared, workers=workers)
    if url is not None:
        known = {finding.code for finding in found}
        found += [finding for finding in consult(url, os.environ.get(TOKEN, "")) if finding.code not in known]
    found = ranked(found)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found]))
    elif not found:
        typer.echo("nothing to say: all fine")
    else:
        rows = [
            [Text(finding.severity, style=COLOURS[finding.severity]), finding.code, finding.what, finding.advice]
            for finding in found
        ]
        output().print(table("", ["", "code", "what", "advice"], rows))
    if any(finding.severity != "note" for finding in found):
        raise typer.Exit(1)
