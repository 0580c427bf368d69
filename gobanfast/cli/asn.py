"""`gobanfast asn`: AS tables, made and shown."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from gobanfast._errors import GobanError
from gobanfast.cli.common import App, load_asn, output, table

app = App(help="Make and show tables of origin AS numbers.", no_args_is_help=True)

Source = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="MMDB, CSV (also .gz), or table.gbf.")
]


@app.command()
def build(
    file: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the table goes, by custom *.gbf.")],
    names: Annotated[
        Path | None, typer.Option("--names", exists=True, dir_okay=False, help="CSV of asn,name, for a CSV without.")
    ] = None,
) -> None:
    """Compile FILE into a table that opens in about a millisecond."""
    from gobanfast.asn import read

    start = perf_counter()
    try:
        made = read(file, names=names)
    except GobanError:
        raise
    except ValueError as error:  # names for what has its own
        raise typer.BadParameter(str(error), param_hint="'--names'") from None
    made.save(out)
    typer.echo(f"{out}: {len(made):,} prefixes, {made.nbytes:,} bytes, {perf_counter() - start:.2f} s")


@app.command()
def show(file: Source) -> None:
    """Show what a table holds."""
    shown = load_asn(file)
    numbers = shown.asns()
    rows = [
        ("prefixes", f"{len(shown):,}"),
        ("AS numbers", f"{len(numbers):,}"),
        ("with a name", f"{sum(shown.name(number) is not None for number in numbers.tolist()):,}"),
        ("bytes", f"{shown.nbytes:,}"),
        ("content hash", shown.content_hash),
        ("source", shown.source),
    ]
    output().print(table("", ["table", str(file)], rows))
