"""What several commands need: their shared options, loading tables and rules, tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gobanfast._decision import Decision
    from gobanfast.asn import AsnTable
    from gobanfast.engine import Engine

Rules = Annotated[Path, typer.Option("--rules", "-r", exists=True, dir_okay=False, help="Rules to decide by (YAML).")]
Asn = Annotated[
    Path | None,
    typer.Option(
        "--asn",
        "-a",
        exists=True,
        dir_okay=False,
        help="Origin AS of addresses: table.gbf, .mmdb, or CSV (also .gz). Without it: the bundled starter table.",
    ),
]
Sni = Annotated[str | None, typer.Option("--sni", metavar="NAME", help="Server name of the request.")]
Ja4 = Annotated[str | None, typer.Option("--ja4", help="JA4 of the connection, as a proxy tells it.")]
Header = Annotated[
    list[str] | None, typer.Option("--header", metavar="'NAME: VALUE'", help="A header of the request; repeatable.")
]
Method = Annotated[str | None, typer.Option("--method", help="Method of the request.")]
UrlPath = Annotated[str | None, typer.Option("--path", help="Path of the request.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")]

COLOURS = {"allow": "green", "challenge": "yellow", "ban": "red"}


class Output(Console):
    """Standard output; a broken pipe stays an exception, which `app` knows the status for."""

    def on_broken_pipe(self) -> None:
        """Never returns: raises what the write raised."""
        raise BrokenPipeError


def output() -> Console:
    """The console of this call: standard output as it is now, and no guessing at numbers or addresses in text."""
    return Output(highlight=False, soft_wrap=True)


def request_signals(
    sni: str | None, ja4: str | None, headers: list[str] | None, method: str | None, path: str | None
) -> dict[str, Any]:
    """What was said of a request, as keyword arguments of `Engine.peek`. Headers are not known unless there is one."""
    given: dict[str, Any] = {"sni": sni, "ja4": ja4, "method": method, "path": path}
    if headers:
        given["headers"] = [_pair(text) for text in headers]
    return {name: value for name, value in given.items() if value is not None}


def _pair(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter(f"--header {text!r} has no name; write 'user-agent: curl/8.5.0'")
    return name.strip().encode(), value.strip().encode()


def load_asn(path: Path | None) -> AsnTable:
    """The AS table in `path`; the starter table without one."""
    from gobanfast.asn import AsnTable, read

    return AsnTable.starter() if path is None else read(path)


def load_engine(rules: Path, asn: AsnTable) -> Engine:
    """An engine with the rules in `rules`, compiled over `asn`."""
    from gobanfast.engine import Engine
    from gobanfast.rules import Ruleset

    return Engine(Ruleset.load(rules, asn=asn))


def network(asn: int | None, table: AsnTable) -> str:
    """The AS as people write it, with its name where the table has one."""
    return "unknown network" if asn is None else table.describe(asn)


def coloured(action: str) -> Text:
    """The action in the colour it has everywhere."""
    return Text(action, style=COLOURS.get(action, ""))


def counted(count: int, noun: str) -> str:
    """The number and what is counted, as in "1 rule", "2 rules"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(things: Sequence[str]) -> str:
    """The things in words, as in "a, b and c"."""
    return " and ".join(filter(None, (", ".join(things[:-1]), things[-1]))) if things else "nothing"


def share(lines: int, total: int) -> str:
    """`lines` of `total` in percent, one decimal."""
    return f"{100 * lines / total:.1f}%" if total else "-"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table with numbers (columns called lines, share, or by a unit) to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        number = column in {"lines", "share", "value"}
        made.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return made


def members(decision: Decision, table: AsnTable) -> dict[str, object]:
    """A decision as JSON members, in the order the decision log has them."""
    return {
        "address": decision.address,
        "action": decision.action,
        "rule": decision.rule,
        "asn": decision.asn,
        "network": None if decision.asn is None else table.name(decision.asn),
        "reason": decision.reason,
        "shadow": list(decision.shadow),
        "logged": list(decision.logged),
    }
