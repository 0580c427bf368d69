"""`gobanfast scan`: apply rules to the traffic in access logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from os import urandom
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from gobanfast.batch.coverage import required_headers
from gobanfast.batch.logs import LogError, LogFile
from gobanfast.batch.parallel import ScannedFile, scan_files
from gobanfast.batch.scan import Reason, Scan, moment
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
from gobanfast.cli.follow import follow as follow_log
from gobanfast.engine import Engine

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable


class FailOn(StrEnum):
    """The actions `--fail-on` takes."""

    CHALLENGE = "challenge"
    BAN = "ban"


def scan(
    logs: Annotated[
        list[Path],
        typer.Argument(metavar="LOG...", help="Plain, or packed by gzip, bzip2, xz or zstd; - is stdin."),
    ],
    rules: Rules,
    asn: Asn = None,
    layout: Format = Layout.AUTO,
    field: Field = None,
    mount: Mount = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write every decision here, a JSON line each.")
    ] = None,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Also apply bans, trackers and score, all lines at the times in the log."),
    ] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes for several files; without it one a core.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the network and client tables.")] = 5,
    fail_on: Annotated[FailOn | None, typer.Option(help="Status 1 when a line gets this action.")] = None,
    as_json: AsJson = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Decide what is written from now on, and print each ban as it is made.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", "-s", envvar="GOBANFAST_STORE", metavar="URI", help="With --follow: store of the bans."
        ),
    ] = None,
) -> None:
    """Decide every line of access logs and show what would have happened.

    The rules alone decide each line; with --replay so do the bans they make, trackers and score, as the lines of all
    logs come by their own times, and whom a tracker would have stopped is shown. Lines without a usable address are
    counted and shown, never fatal. A port after the address is no part of it; of a list (X-Forwarded-For) the last
    address outside the rules' trust: counts, because the first ones are what the client wrote. In JSON logs the address
    is the first of these keys: remote_addr, client_ip, remote_ip, clientip, ip, address, ClientIP, ClientHost,
    client_addr, source_ip, src_ip, request.client_ip, request.remote_ip, client.ip, source.ip,
    downstream_remote_address, httpRequest.remoteIp, httpRequest.clientIp, properties.clientIp, clientIp (nginx-json:
    remote_addr, address). A CSV column is found by the same names, or by an address in the first line.
    """
    networks = load_asn(asn, rules)
    engine = load_engine(rules, networks)
    if follow:
        follow_log(engine, logs, layout=layout.value, field=field, mount=mount, store=store)
    if replay:
        engine = Engine(engine.ruleset, clock=lambda: 0.0, seed=urandom(16))  # whose limits count here alone
    start = perf_counter()
    interrupted = False
    opened: list[LogFile | ScannedFile] = []
    with ExitStack() as stack:
        sink = None if out is None else stack.enter_context(out.open("w", encoding="ascii"))
        scanned = Scan(engine, out=sink, mount=mount)
        advance = stack.enter_context(_progress(logs))
        parallel = len(logs) > 1 and out is None and not replay and jobs != 1 and all(path.is_file() for path in logs)
        for name, stream in [] if parallel else log_streams(logs, stack):
            opened.append(
                LogFile(
                    stream, name, layout=layout.value, field=field, requests=scanned.asks_requests, times=replay,
                    asked=required_headers(engine.compiled), trusted=trusted(engine.ruleset),
                )
            )  # fmt: skip
        try:
            if parallel:
                opened += scan_files(
                    engine.ruleset, logs, scanned, jobs=jobs, layout=layout.value, field=field, mount=mount,
                    progress=lambda _: advance(-1),
                )  # fmt: skip
            elif replay:
                files = [log for log in opened if isinstance(log, LogFile)]
                scanned.replay(files, lambda: advance(sum(log.consumed for log in files)))
            else:
                for log in [log for log in opened if isinstance(log, LogFile)]:
                    scanned.read(log, lambda log=log: advance(log.consumed))  # type: ignore[misc]
                    advance(-1)
        except KeyboardInterrupt:  # what was read until then is shown, and --out has whole lines
            interrupted = True
    seconds = perf_counter() - start

    if scanned.lines and not scanned.decided and not interrupted:
        shown = "\n".join(map(str, scanned.faults))
        raise LogError(f"{shown}\nno line of {scanned.lines:,} holds an address; say where with --format and --field")
    if as_json:
        typer.echo(json.dumps(_members(scanned, networks, top, seconds, opened, interrupted)))
    else:
        _print(scanned, networks, top, seconds, opened, interrupted)
    if interrupted:
        raise typer.Exit(130)
    if fail_on is not None and any(key == fail_on.value for key, _, _ in scanned.by_action()):
        raise typer.Exit(1)


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


def _print(
    scanned: Scan,
    networks: AsnTable,
    top: int,
    seconds: float,
    opened: Sequence[LogFile | ScannedFile],
    interrupted: bool,
) -> None:
    console = output()
    total = scanned.decided
    console.print(
        table(
            "What would have happened",
            ["action", "lines", "percent"],
            [(coloured(action), f"{lines:,}", percent(lines, total)) for _, action, lines in scanned.by_action()],
        )
    )
    console.print()
    console.print(
        table(
            "By rule",
            ["rule", "action", "lines", "percent", "reason"],
            [
                (_decider(key), coloured(action), f"{lines:,}", percent(lines, total), key.reason or "")
                for key, action, lines in scanned.by_reason()
            ],
        )
    )
    console.print()
    found = scanned.by_asn()
    hidden = f", {top} of {len(found)} rows" if len(found) > top else ""
    console.print(
        table(
            f"By network{hidden}",
            ["network", "action", "lines", "percent"],
            [
                (network(key, networks), coloured(action), f"{lines:,}", percent(lines, total))
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
    if scanned.timeline is not None:
        console.print()
        title = "Clients that trackers stopped" + "".join(
            f"; {tracker}: {counted(clients, 'client')}" for tracker, clients in scanned.clients_stopped.items()
        )
        stopped = [
            (row.tracker, row.address, network(row.asn, networks), moment(row.first), f"{row.lines:,}")
            for row in scanned.stopped(top)
        ]
        columns = ["tracker", "address", "network", "first stopped at", "lines"]
        console.print(table(title, columns, stopped or [("none", "", "", "", "")]))
    for title, tallies in (
        ("Shadow rules: matched, but only watched", scanned.by_shadow()),
        ("Rules that only log", scanned.by_logged()),
    ):
        if tallies:
            console.print()
            rows = [(key, coloured(action), f"{lines:,}", percent(lines, total)) for key, action, lines in tallies]
            console.print(table(title, ["rule", "what happened instead", "lines", "percent"], rows))
    if scanned.by_share():
        console.print()
        shares = [
            (key.share, key.rule or "no rule grants it", coloured(action), f"{lines:,}", percent(lines, total))
            for key, action, lines in scanned.by_share()
        ]
        title = "Pages of other origins: what they could read"
        console.print(table(title, ["share", "rule", "what became of the request", "lines", "percent"], shares))
    if scanned.by_share_shadow():
        console.print()
        watched = [(key, stood, f"{lines:,}", percent(lines, total)) for key, stood, lines in scanned.by_share_shadow()]
        title = "Shadow share rules: matched, but only watched"
        console.print(table(title, ["rule", "what was shared instead", "lines", "percent"], watched))
    if scanned.bad:
        console.print(f"\n[bold]{scanned.bad:,} lines without a usable address[/bold], the first of them:")
        for fault in scanned.faults:
            console.print(f"  {fault}", markup=False)
    for line in _caveats(scanned, opened, interrupted):
        console.print(f"\n{line}", markup=False)
    deciding = f"{total / scanned.seconds_deciding:,.0f}" if scanned.seconds_deciding else "-"
    console.print(
        f"\n{counted(scanned.lines, 'line')} in {seconds:.2f} s: {scanned.lines / seconds:,.0f} lines/s read and "
        f"decided, {deciding} lines/s decided alone."
    )
    console.print(_meaning(scanned), markup=False)


def _decider(key: Reason) -> str:
    """What decided, in the first column of "By rule"."""
    if key.rule is not None:
        return key.rule if key.cause == "rule" else f"{key.rule} ({key.cause})"
    return "(no rule matched)" if key.cause == "none" else f"(no rule matched; {key.cause})"


def _caveats(scanned: Scan, opened: Sequence[LogFile | ScannedFile], interrupted: bool) -> Iterator[str]:
    """Sentences on how far the counts are to be taken for the truth."""
    elsewhere = [
        f"{log.name}: {log.found.layout}, {log.found.where}"
        for log in opened
        if log.found is not None and log.found.layout in {"combined", "csv"} and log.found.where != "field 1"
    ]
    if elsewhere:
        yield f"The client is taken from: {'; '.join(elsewhere)}."
    if scanned.unjudged:
        yield (
            f"Not judged in full, because these logs do not hold what they require: {', '.join(scanned.unjudged)}. "
            "No condition on what a log does not hold is met, except sni: absent, which always is."
        )
    partly = {rule: lines for rule, lines in scanned.unjudged_lines.items() if rule not in scanned.unjudged}
    if partly:
        found = ", ".join(f"{rule} in {counted(lines, 'line')}" for rule, lines in partly.items())
        yield f"Not judged in lines that do not hold what a rule requires: {found}."
    if scanned.timeline is None and scanned.not_asked:
        yield (
            f"Each line is decided by the rules alone: {listed(scanned.not_asked)} were not asked; --replay asks them, "
            "by the log's own times."
        )
    elif scanned.not_asked:
        yield f"Not asked: {listed(scanned.not_asked)}."
    if scanned.timeline is not None:
        yield _order(scanned, len(opened))
    if interrupted:
        yield f"Interrupted: only the {scanned.lines:,} lines that were read until then are counted."


def _order(scanned: Scan, logs: int) -> str:
    """How the lines of a replay were put in order."""
    timeline = scanned.timeline
    assert timeline is not None  # noqa: S101
    merged = f"{logs} logs merged by time" if logs > 1 else "one log"
    text = f"Replayed: {merged}, bans made: {scanned.bans_made:,}."
    if timeline.late:
        text += f" {counted(timeline.late, 'line')} out of order: decided at the latest time before them."
    if timeline.untimed:
        text += f" {counted(timeline.untimed, 'line')} without a time: decided at that of the line before them."
    return text


def _meaning(scanned: Scan) -> str:
    """One sentence that says what the counts come to."""
    total = scanned.decided
    if not total:
        return "In short: the logs are empty, so there was nothing to decide."
    lines = {action: lines for _, action, lines in scanned.by_action()}
    allowed, challenged, banned = (
        f"{lines.get(action, 0):,} ({percent(lines.get(action, 0), total)})" for action in ("allow", "challenge", "ban")
    )
    watched = sum(shadow.lines for shadow in scanned.by_shadow())
    refused = sum(each.lines for each in scanned.by_share() if each.key.share == "refused" and each.action == "allow")
    share = f" Share rules would have refused {refused:,} of the requests that come in." if refused else ""
    shadow = f" Shadow rules matched {watched:,} times and changed nothing." if watched else ""
    return (
        f"In short: of {total:,} requests, {allowed} would have come in, {challenged} would have been asked to prove "
        f"themselves, and {banned} would have been refused.{share}{shadow}"
    )


def _members(
    scanned: Scan,
    networks: AsnTable,
    top: int,
    seconds: float,
    opened: Sequence[LogFile | ScannedFile],
    interrupted: bool,
) -> dict[str, object]:
    """The summary as JSON members."""
    found: dict[str, object] = {
        "lines": scanned.lines,
        "decided": scanned.decided,
        "bad": scanned.bad,
        "actions": {action: lines for _, action, lines in scanned.by_action()},
        "rules": [
            {"rule": key.rule, "action": action, "lines": lines, "cause": key.cause, "reason": key.reason}
            for key, action, lines in scanned.by_reason()
        ],
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
        "unjudged_lines": scanned.unjudged_lines,
        "not_asked": list(scanned.not_asked),
        "clients_exact": scanned.clients_exact,
        "faults": [fault._asdict() for fault in scanned.faults],
        "logs": [
            {"log": log.name, "format": log.found.layout, "client": log.found.where}
            for log in opened
            if log.found is not None
        ],
        "interrupted": interrupted,
        "seconds": round(seconds, 6),
    }
    if scanned.asks_sharing:
        found["share"] = [
            {"share": key.share, "rule": key.rule, "action": action, "lines": lines}
            for key, action, lines in scanned.by_share()
        ]
        found["share_shadow"] = [
            {"rule": key, "share": stood, "lines": lines} for key, stood, lines in scanned.by_share_shadow()
        ]
    if scanned.timeline is not None:
        found["replay"] = {
            "bans_made": scanned.bans_made,
            "out_of_order": scanned.timeline.late,
            "without_time": scanned.timeline.untimed,
            "clients_stopped": dict(scanned.clients_stopped),
            "stopped": [
                {"tracker": row.tracker, "address": row.address, "asn": row.asn, "lines": row.lines,
                 "first": moment(row.first)}
                for row in scanned.stopped(top)
            ],
        }  # fmt: skip
    return found
