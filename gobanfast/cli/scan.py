"""`gobanfast scan`: what rules would have done to the traffic of old logs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from io import BufferedReader, RawIOBase
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from gobanfast.batch.logs import LogError, LogFile
from gobanfast.batch.scan import Scan
from gobanfast.cli.common import AsJson, Asn, Rules, coloured, load_asn, load_engine, network, output, share, table

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable


class Layout(StrEnum):
    """The log formats `--format` takes; the names are those of `batch.logs.FORMATS`."""

    AUTO = "auto"
    COMBINED = "combined"
    NGINX_JSON = "nginx-json"
    JSONL = "jsonl"
    CSV = "csv"


class FailOn(StrEnum):
    """The actions `--fail-on` takes."""

    CHALLENGE = "challenge"
    BAN = "ban"


def scan(
    logs: Annotated[
        list[Path],
        typer.Argument(metavar="LOG...", help="Plain or gzip; - is stdin."),
    ],
    rules: Rules,
    asn: Asn = None,
    layout: Annotated[
        Layout, typer.Option("--format", "-f", help="How lines are written; auto looks at the first.")
    ] = Layout.AUTO,
    field: Annotated[
        str | None,
        typer.Option(help="Where the address is: JSON key (a.b steps inside), CSV column, combined field number."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write every decision here, a JSON line each.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the network and client tables.")] = 5,
    fail_on: Annotated[FailOn | None, typer.Option(help="Status 1 when a line gets this action.")] = None,
    as_json: AsJson = False,
) -> None:
    """Decide every line of access logs and show what would have happened.

    Lines without a usable address are counted and shown, never fatal. In JSON logs the address is the first of these
    keys: remote_addr, client_ip, remote_ip, clientip, ip, address, ClientIP, ClientHost, client_addr, source_ip,
    src_ip, request.client_ip, request.remote_ip, client.ip, source.ip (nginx-json: remote_addr, address). A CSV column
    is found by the same names, or by an address in the first line.
    """
    networks = load_asn(asn)
    engine = load_engine(rules, networks)
    start = perf_counter()
    with ExitStack() as stack:
        sink = None if out is None else stack.enter_context(out.open("w", encoding="ascii"))
        scanned = Scan(engine, out=sink)
        advance = stack.enter_context(_progress(logs))
        for path in logs:
            if str(path) == "-":
                name, stream = "<stdin>", _standard_input()
            else:
                name, stream = str(path), stack.enter_context(path.open("rb"))
            log = LogFile(stream, name, layout=layout.value, field=field, requests=scanned.asks_requests)
            scanned.read(log, lambda log=log: advance(log.consumed))  # type: ignore[misc]
            advance(-1)
    seconds = perf_counter() - start

    if scanned.lines and not scanned.decided:
        shown = "\n".join(map(str, scanned.faults))
        raise LogError(f"{shown}\nno line of {scanned.lines:,} holds an address; say where with --format and --field")
    if as_json:
        typer.echo(json.dumps(_members(scanned, networks, top, seconds)))
    else:
        _print(scanned, networks, top, seconds)
    if fail_on is not None and any(key == fail_on.value for key, _, _ in scanned.by_action()):
        raise typer.Exit(1)


def _standard_input() -> BufferedReader:
    stream = sys.stdin.buffer
    if isinstance(stream, BufferedReader):
        return stream
    return BufferedReader(cast(RawIOBase, stream))  # what a test put there reads the same


@contextmanager
def _progress(logs: list[Path]) -> Iterator[Callable[[int], None]]:
    """A function that takes the bytes read of the current log, -1 for "done with it"; it draws on a terminal only."""
    console = Console(stderr=True)
    sizes = [0 if str(path) == "-" else path.stat().st_size for path in logs]
    done = Counter[str]()
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None if 0 in sizes else sum(sizes))

        def advance(consumed: int) -> None:
            if consumed < 0:
                done["bytes"] += sizes[done["logs"]]
                done["logs"] += 1
                consumed = 0
            progress.update(task, completed=done["bytes"] + consumed)

        yield advance


def _print(scanned: Scan, networks: AsnTable, top: int, seconds: float) -> None:
    console = output()
    total = scanned.decided
    reasons = scanned.reasons()
    console.print(
        table(
            "What would have happened",
            ["action", "lines", "share"],
            [(coloured(action), f"{lines:,}", share(lines, total)) for _, action, lines in scanned.by_action()],
        )
    )
    console.print()
    console.print(
        table(
            "By rule",
            ["rule", "action", "lines", "share", "reason"],
            [
                (key or "(no rule matched)", coloured(action), f"{lines:,}", share(lines, total), reasons.get(key, ""))
                for key, action, lines in scanned.by_rule()
            ],
        )
    )
    console.print()
    found = scanned.by_asn()
    hidden = f", {top} of {len(found)} rows" if len(found) > top else ""
    console.print(
        table(
            f"By network{hidden}",
            ["network", "action", "lines", "share"],
            [
                (network(key, networks), coloured(action), f"{lines:,}", share(lines, total))
                for key, action, lines in found[:top]
            ],
        )
    )
    console.print()
    approximate = "" if scanned.clients_exact else " (lower bounds: too many clients to count all)"
    console.print(
        table(
            f"Busiest clients of each action{approximate}",
            ["action", "address", "network", "rule", "lines"],
            [
                (
                    coloured(decision.action),
                    address,
                    network(decision.asn, networks),
                    decision.rule or "-",
                    f"{lines:,}",
                )
                for address, decision, lines in sorted(scanned.top_clients(top), key=lambda row: row[1].action)
            ],
        )
    )
    for title, shares in (
        ("Shadow rules: matched, but only watched", scanned.by_shadow()),
        ("Rules that only log", scanned.by_logged()),
    ):
        if shares:
            console.print()
            rows = [(key, coloured(action), f"{lines:,}", share(lines, total)) for key, action, lines in shares]
            console.print(table(title, ["rule", "what happened instead", "lines", "share"], rows))
    if scanned.bad:
        console.print(f"\n[bold]{scanned.bad:,} lines without a usable address[/bold], the first of them:")
        for fault in scanned.faults:
            console.print(f"  {fault}", markup=False)
    if scanned.unjudged:
        console.print(
            f"\nNot judged in full: {', '.join(scanned.unjudged)} ask for what these logs do not hold; nobody "
            "knows it, so no condition on it holds, but for sni: absent.",
            markup=False,
        )
    if scanned.stores_bans:
        console.print(
            "\nEach line is decided by the rules alone: a ban that a rule stores would refuse more of that client's "
            "requests than are counted here."
        )
    deciding = f"{total / scanned.seconds_deciding:,.0f}" if scanned.seconds_deciding else "-"
    console.print(
        f"\n{scanned.lines:,} lines in {seconds:.2f} s: {scanned.lines / seconds:,.0f} lines/s read and decided, "
        f"{deciding} lines/s decided alone."
    )
    console.print(_meaning(scanned), markup=False)


def _meaning(scanned: Scan) -> str:
    """One sentence that says what the counts come to."""
    total = scanned.decided
    if not total:
        return "In short: the logs are empty, so there was nothing to decide."
    lines = {action: lines for _, action, lines in scanned.by_action()}
    allowed, challenged, banned = (
        f"{lines.get(action, 0):,} ({share(lines.get(action, 0), total)})" for action in ("allow", "challenge", "ban")
    )
    watched = sum(shadow.lines for shadow in scanned.by_shadow())
    shadow = f" Shadow rules matched {watched:,} times and changed nothing." if watched else ""
    return (
        f"In short: of {total:,} requests, {allowed} would have come in, {challenged} would have been asked to prove "
        f"themselves, and {banned} would have been refused.{shadow}"
    )


def _members(scanned: Scan, networks: AsnTable, top: int, seconds: float) -> dict[str, object]:
    """The summary as JSON members."""
    return {
        "lines": scanned.lines,
        "decided": scanned.decided,
        "bad": scanned.bad,
        "actions": {action: lines for _, action, lines in scanned.by_action()},
        "rules": [{"rule": key, "action": action, "lines": lines} for key, action, lines in scanned.by_rule()],
        "networks": [
            {"asn": key, "network": None if key is None else networks.name(key), "action": action, "lines": lines}
            for key, action, lines in scanned.by_asn()
        ],
        "shadow": [{"rule": key, "action": action, "lines": lines} for key, action, lines in scanned.by_shadow()],
        "logged": [{"rule": key, "action": action, "lines": lines} for key, action, lines in scanned.by_logged()],
        "clients": [
            {"address": address, "action": decision.action, "rule": decision.rule, "asn": decision.asn, "lines": lines}
            for address, decision, lines in scanned.top_clients(top)
        ],
        "unjudged": list(scanned.unjudged),
        "clients_exact": scanned.clients_exact,
        "faults": [fault._asdict() for fault in scanned.faults],
        "seconds": round(seconds, 6),
    }
