"""`gobanfast explain`: why that is the decision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gobanfast.cli.check import refuse_malformed
from gobanfast.cli.common import (
    Asn,
    Header,
    Ja4,
    Method,
    Rules,
    Sni,
    UrlPath,
    load_asn,
    load_engine,
    request_signals,
)


def explain(
    rules: Rules,
    address: Annotated[str | None, typer.Argument(help="IPv4 or IPv6 address.")] = None,
    asn: Asn = None,
    sni: Sni = None,
    ja4: Ja4 = None,
    header: Header = None,
    method: Method = None,
    path: UrlPath = None,
    log: Annotated[
        Path | None, typer.Option("--log", exists=True, dir_okay=False, help="Decision log that holds the decision.")
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="Id of the decision in the log.")] = None,  # noqa: A002
) -> None:
    """Say why one request is decided as it is: the rule, where it stands, what it saw, what would change it.

    What a whole file says, rule by rule: `gobanfast rules explain`.

    With --log and --id: decide a logged decision again, by the rules of that time; status 1 if it comes out otherwise.
    """
    said = request_signals(sni, ja4, header, method, path)
    if address is not None and log is None and id is None:
        refuse_malformed([address])
        engine = load_engine(rules, load_asn(asn))
        typer.echo(engine.explain(engine.peek(address, **said)))
    elif address is None and not said and log is not None and id is not None:
        logged(rules, asn, log, id)
    else:
        raise typer.BadParameter("give an ADDRESS, or --log with --id")


def logged(rules: Path, asn: Path | None, log: Path, wanted: str) -> None:
    """Explains a line of a decision log."""
    from gobanfast.telemetry.replay import find_line, replay

    with log.open(encoding="utf-8", errors="surrogateescape") as lines:
        line = find_line(lines, wanted, str(log))
    engine = load_engine(rules, load_asn(asn))
    again = replay(line, engine.ruleset)
    typer.echo(engine.explain(again.decision))
    typer.echo(f"  logged     {line['time']}, {line['action']} (cause {line['cause']})")
    for note in again.notes:
        typer.echo(f"  note       {note}")
    for name, (then, now) in again.differences.items():
        typer.echo(f"  differs    {name}: {then!r} then, {now!r} now")
    if again.differences:
        raise typer.Exit(1)
    typer.echo("  decided again: the same")
