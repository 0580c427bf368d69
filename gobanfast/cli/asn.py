"""`gobanfast asn`: compile and inspect AS tables."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, cast

import typer

from gobanfast._errors import GobanError
from gobanfast.cli.common import App, load_asn, output, table

if TYPE_CHECKING:
    from gobanfast.asn import Reading

app = App(help="Compile and inspect tables of origin AS numbers.", no_args_is_help=True)

Source = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="MMDB, CSV (also .gz), or table.gbf.")
]


@app.command()
def build(
    file: Source,
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="Output file, usually *.gbf.")],
    names: Annotated[
        Path | None,
        typer.Option("--names", exists=True, dir_okay=False, help="CSV of asn,name, for a table without names."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Column layout: prefix, address, length, first, last, asn, name, - (another); or asn=24.",
        ),
    ] = None,
) -> None:
    """Compile FILE into a table that opens in about a millisecond."""
    from gobanfast.asn import read

    start = perf_counter()
    try:
        made = read(file, names=names, columns=columns)
    except GobanError:
        raise
    except ValueError as error:  # names or columns for what has its own, or columns that are none
        option = "--columns" if "columns" in str(error) else "--names"
        raise typer.BadParameter(str(error), param_hint=f"'{option}'") from None
    made.save(out)
    typer.echo(f"{out}: {len(made):,} prefixes, {made.nbytes:,} bytes, {perf_counter() - start:.2f} s")
    reading = cast("Reading | None", made.reading)
    if reading is not None and reading.without_asn:
        typer.echo(f"{reading.without_asn:,} of {reading.rows:,} rows have no AS (0, empty, or a set of several)")


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
