"""`gobanfast backtest`: whom candidate rules would have refused, and who of them looks innocent."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gobanfast.cli.common import (
    AsJson,
    Asn,
    Field,
    Format,
    Layout,
    Mount,
    Rules,
    coloured,
    counted,
    listed,
    load_asn,
    load_engine,
    log_streams,
    network,
    output,
    percent,
    table,
    trusted,
)

if TYPE_CHECKING:
    from gobanfast import PrefixSet
    from gobanfast.asn import AsnTable
    from gobanfast.batch.backtest import Backtest

_BUDGET = re.compile(r"collateral=(\d+(?:\.\d+)?)%")


def backtest(
    logs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[LOG...]", help="Logs, plain or packed, - is stdin; or one .parquet file."),
    ] = None,
    rules: Rules = Path("rules.yaml"),
    current: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The rules in force, to compare with.")
    ] = None,
    sql: Annotated[
        str | None, typer.Option(help="A DuckDB query in place of logs; its columns are ip, time, method, path, ...")
    ] = None,
    good: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Addresses or prefixes that are innocent, a line each."),
    ] = None,
    partitions: Annotated[int, typer.Option(min=1, max=1024, help="Engines that share the clients.")] = 1,
    sample: Annotated[float, typer.Option(min=0.0001, max=1, help="Fraction of the clients to look at.")] = 1.0,
    budget: Annotated[
        str | None, typer.Option(help="collateral=0.1%: status 1 when more of the good clients would be refused.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report here, as a page.")] = None,
    asn: Asn = None,
    layout: Format = Layout.AUTO,
    field: Field = None,
    mount: Mount = "",
    as_json: AsJson = False,
) -> None:
    """Replay old requests against candidate rules and count whom they refuse, and who of those looks innocent.

    Bans and trackers take part, each line at its own time. A client looks good when --good names it, when it was logged
    in, when an allow rule of --current let it in, or when it has a long good history.
    """
    from gobanfast.batch.backtest import backtest as run
    from gobanfast.batch.backtest import log_events, sql_events
    from gobanfast.batch.coverage import required_headers
    from gobanfast.batch.logs import LogFile

    percent_allowed = None
    if budget is not None:
        matched = _BUDGET.fullmatch(budget)
        if matched is None:
            raise typer.BadParameter(f"{budget!r} is no budget; write collateral=0.1%", param_hint="--budget")
        percent_allowed = float(matched[1])
    if bool(logs) == (sql is not None):
        raise typer.BadParameter("give logs, or a query with --sql")
    networks = load_asn(asn)
    candidate = load_engine(rules, networks).ruleset
    before = None if current is None else load_engine(current, networks).ruleset
    with ExitStack() as stack:
        if sql is None and logs and len(logs) == 1 and logs[0].suffix == ".parquet":
            name = str(logs[0]).replace("'", "''")
            sql = f"SELECT * FROM '{name}'"  # noqa: S608 - a file of the caller's own
        if sql is not None:
            events = sql_events(sql)
        else:
            used = [candidate.compiled, *([] if before is None else [before.compiled])]
            events = log_events([
                LogFile(
                    stream, name, layout=layout.value, field=field, requests=True, times=True,
                    asked=required_headers(*used), trusted=trusted(candidate),
                )
                for name, stream in log_streams(logs or [], stack)
            ])  # fmt: skip
        try:
            found = run(
                candidate, events, current=before, good=_good(good), partitions=partitions, sample=sample, mount=mount
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    over = None if percent_allowed is None else found.over(percent_allowed)
    if html is not None:
        from gobanfast.batch.backtest_html import page

        html.write_text(page(found, f"Backtest of {rules}"), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found.members() | {"over_budget": over}))
    else:
        _print(found, networks)
        if over is not None:
            typer.echo(over)
    if over is not None:
        raise typer.Exit(1)


def _good(path: Path | None) -> PrefixSet | None:
    from gobanfast import PrefixSet

    if path is None:
        return None
    return PrefixSet([text for line in path.read_text().splitlines() if (text := line.partition("#")[0].strip())])


def _print(found: Backtest, networks: AsnTable) -> None:
    console = output()
    rows = [
        (
            each.id if each.cause == "rule" else f"{each.id} ({each.cause})", coloured(each.action), f"{each.lines:,}",
            f"{each.clients:,}", "-" if each.first is None else f"{each.first:,.0f} s", f"{each.good_clients:,}",
            f"{each.only_lines:,}", f"{each.new_lines:,}",
        )
        for each in found.effects
    ]  # fmt: skip
    head = ["rule", "action", "lines", "clients", "median time to it", "good clients", "it alone", "let in until now"]
    console.print(table("What the candidate rules would have done", head, rows or [("nothing", *[""] * 7)]))
    if found.overlap:
        console.print()
        shown = [(one, other, f"{lines:,}") for one, other, lines in found.overlap[:10]]
        console.print(table("Lines that two rules match", ["rule", "and", "lines"], shown))
    if found.collateral_networks:
        console.print()
        shown_networks = [(network(number, networks), f"{count:,}") for number, count in found.collateral_networks]
        console.print(
            table("Clients that look good and would have been refused", ["network", "clients"], shown_networks)
        )
    console.print()
    spread = ""
    if found.collateral_interval is not None:
        low, high = found.collateral_interval
        spread = f" (95 %: {100 * low:.3g}% to {100 * high:.3g}%, of a sample of {100 * found.sample:g}%)"
    why = listed([f"{count:,} {reason}" for reason, count in found.good.items()]) or "none"
    console.print(
        f"Collateral: {found.good_refused:,} of {counted(found.good_clients, 'client')} that look good would have been "
        f"refused, {percent(found.good_refused, max(found.good_clients, 1))}{spread}; {found.good_challenged:,} "
        f"challenged. They look good because: {why}."
    )
    console.print(
        f"{counted(found.lines, 'line')} of {counted(found.clients, 'client')}; {found.bad:,} without an address."
    )
    if found.not_judged:
        rules = listed([f"{rule} in {counted(lines, 'line')}" for rule, lines in found.not_judged.items()])
        console.print(f"Not judged, because the logs do not hold what a rule requires: {rules}.")
    if found.not_asked:
        console.print(f"Not asked: {listed(found.not_asked)}.")
    if found.late:
        console.print(f"{counted(found.late, 'line')} out of order: decided at the latest time before them.")
    if not found.clients_exact:
        console.print("There were too many clients to know all: those past the first million count as lines alone.")
