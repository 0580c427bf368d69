"""`gobanfast asn`: compile and inspect AS tables."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, cast

import typer

from gobanfast._errors import GobanError
from gobanfast.cli.common import App, AsJson, Asn, load_asn, output, table

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
def lookup(
    what: Annotated[str, typer.Argument(metavar="ADDRESS|AS", help="An address, or an AS number like AS15169.")],
    asn: Asn = None,
    online: Annotated[
        bool, typer.Option("--online", help="Ask RIPEstat, RDAP and Team Cymru where the table says nothing.")
    ] = False,
    cache: Annotated[
        str | None, typer.Option("--cache", metavar="URI", help="With --online: sqlite:PATH or redis://, for a day.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say who announces an address, or who holds an AS; status 1 if nobody is known.

    Online the /24 or /48 of the address leaves this machine, never the address itself.
    """
    from gobanfast.enrich.asn import AsnLookup, key_of

    try:
        key = key_of(what)
    except ValueError as error:
        if not _is_address(what):
            raise typer.BadParameter(str(error)) from None
        key = ""  # private: a table may know it, nobody else
    known = load_asn(asn)
    number = int(key[2:]) if key.startswith("AS") else known.lookup(what)
    members: dict[str, object] = {}
    if number is not None and (not key.startswith("AS") or known.name(number) is not None):
        members = {"asn": number, "org": known.name(number), "country": None, "prefix": None, "source": known.source}
    if online and key and (not members or not members["org"]):
        from dataclasses import asdict

        asked = AsnLookup(cache=cache, timeout=5.0)
        try:
            answer = asked.lookup(what)
        finally:
            asked.close()
        members = {} if answer is None else asdict(answer)
    if as_json:
        typer.echo(json.dumps(members))
    elif members:
        rows = [(name, str(value)) for name, value in members.items() if value is not None]
        output().print(table("", ["what", what], rows))
    if not members:
        if not as_json:
            hint = "" if online else "; --online asks RIPEstat, RDAP and Team Cymru"
            typer.echo(f"{what}: nobody is known{hint}", err=True)
        raise typer.Exit(1)


@app.command()
def learned(
    rules: Annotated[Path, typer.Argument(metavar="RULES", exists=True, dir_okay=False, help="Rules of the service.")],
    as_json: AsJson = False,
) -> None:
    """Show what was learned online for a rules file."""
    from gobanfast.asn.folder import LEARNED, folder_of
    from gobanfast.asn.learned import read_learned

    found = read_learned(folder_of(rules) / LEARNED)
    if as_json:
        for prefix, (number, name) in found.items():
            typer.echo(json.dumps({"prefix": prefix, "asn": number, "org": name or None}))
        return
    if found:
        rows = [(prefix, f"AS{number}", name) for prefix, (number, name) in found.items()]
        output().print(table("", ["prefix", "asn", "network"], rows))
    typer.echo(f"{len(found):,} learned", err=True)


def _is_address(text: str) -> bool:
    from gobanfast._core.address import parse_address

    return parse_address(text) is not None


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
