"""`gobanfast bans`: list and change the bans in a store. Running engines follow within a moment."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from ipaddress import ip_network
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gobanfast.cli.common import App, AsJson, Asn, counted, load_asn, moment, opened, output, table

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable
    from gobanfast.bans import Ban

BATCH = 20_000
WIDE = "Take what covers more than clients, too: over a /8 (IPv6: /11), private, loopback and the like."
FORCE = "Ban this host itself, too: its addresses and gateway, and who is logged in to it from elsewhere."
TOP_NETWORKS = {4: 24, 6: 48}

app = App(help="List, add, lift, import and export the bans in a store.", no_args_is_help=True)

Uri = Annotated[
    str,
    typer.Option(
        "--store", "-s", envvar="GOBANFAST_STORE", metavar="URI", help="sqlite:PATH, redis://host:port/db, unix://PATH."
    ),
]
Keys = Annotated[
    list[str],
    typer.Argument(metavar="KEY...", help="Addresses, prefixes, AS64500, gh2:<32 hex>[@<client>], uid:<name>."),
]


@app.command("list")
def list_bans(
    store: Uri,
    begins: Annotated[str, typer.Option("--begins", metavar="TEXT", help="Only keys that begin with this.")] = "",
    rule: Annotated[str | None, typer.Option("--rule", metavar="ID", help="Only bans that this rule made.")] = None,
    asn: Asn = None,
    pins: Annotated[
        Path, typer.Option("--pins", metavar="DIR", help="XDP drop set that says what the kernel matched.")
    ] = Path("/sys/fs/bpf/gobanfast"),
    as_json: AsJson = False,
) -> None:
    """Show the bans in force, the latest last; status 0 also when there is none."""
    from gobanfast.frontends.kernel.report import kernel_hits
    from gobanfast.stores import encode_ban

    with opened(store) as bans:
        found = [ban for ban in bans.scan(begins) if rule is None or ban.rule == rule]
    found.sort(key=lambda ban: (ban.created, ban.key))
    if as_json:
        for ban in found:
            typer.echo(encode_ban(ban))
        return
    networks = load_asn(asn)
    hits = kernel_hits((ban.key for ban in found), pins)
    columns = {
        "key": [ban.key for ban in found],
        "ends": ["never" if ban.expires is None else moment(ban.expires, ahead=True) for ban in found],
        "by": [ban.rule or ban.by for ban in found],
        "reason": ["" if ban.reason == (ban.rule or ban.by) else ban.reason for ban in found],
        "network": [network_of(ban.key, networks) for ban in found],
        "times": [str(ban.count) for ban in found],
        "kernel": [f"{hits[ban.key]:,}" if ban.key in hits else "" for ban in found],
        "made": [moment(ban.created) for ban in found],
    }
    names = [name for name, cells in columns.items() if any(cells)]  # no empty column: a reason that is the rule's name
    if found:
        output().print(table("", names, zip(*(columns[name] for name in names), strict=True)))
    typer.echo(counted(len(found), "ban"), err=True)


@app.command("add")
def add(
    keys: Keys,
    store: Uri,
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="Duration: 90s, 1h30m, 7d or permanent.")
    ] = "1h",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, shown with the ban.")] = "",
    wide: Annotated[bool, typer.Option("--wide", help=WIDE)] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE)] = False,
) -> None:
    """Ban keys. A longer ban of the same key stays."""
    from gobanfast._values import parse_duration
    from gobanfast.bans import Ban, too_wide
    from gobanfast.rules.rule import PrefixList
    from gobanfast.spared import Spared

    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    asked = canonical(keys)
    if refused := [problem for key in asked if not wide and (problem := too_wide(key)) is not None]:
        raise typer.BadParameter("\n".join([*refused, "if that is meant, say --wide"]))
    guard = Spared(None, PrefixList(b"", b""))
    if refused := [problem for key in asked if not force and (problem := guard.why(key)) is not None]:
        raise typer.BadParameter("\n".join([*refused, "if that is meant, say --force"]))
    now = time.time()
    expires = None if seconds is None else now + seconds
    with opened(store, create=True) as bans:
        bans.apply([(key, Ban(key, reason, None, now, expires, 1, "manual")) for key in asked], now=now)


@app.command("remove")
def remove(keys: Keys, store: Uri) -> None:
    """Lift the bans of keys; status 1 if one of them had none."""
    asked = canonical(keys)
    with opened(store) as bans:
        absent = [key for key in asked if not bans.delete(key)]
    for key in absent:
        typer.echo(f"{key}: not banned", err=True)
    if absent:
        raise typer.Exit(1)


@app.command("import")
def import_bans(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Lists of bans.")],
    store: Uri,
    form: Annotated[
        str,
        typer.Option("--format", "-f", help="auto, jsonl, plain, fail2ban (database or client output), crowdsec."),
    ] = "auto",
    duration: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="DURATION",
            help="Duration of bans without an expiry (default 1h); permanent ones stay permanent.",
        ),
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help=WIDE)] = False,
) -> None:
    """Import bans from lists; status 1 if an entry is refused. A longer ban of the same key stays."""
    from gobanfast._values import parse_duration
    from gobanfast.bans import DEFAULT_DURATION
    from gobanfast.stores import RecordError
    from gobanfast.stores.formats import READERS, SHOWN, Imported, read_bans

    if form not in {"auto", *READERS}:
        raise typer.BadParameter(f"{form!r} is not one of auto, {', '.join(READERS)}", param_hint="--format")
    try:
        seconds = None if duration is None else parse_duration(duration)
        lasts = parse_duration(DEFAULT_DURATION) if duration is None else seconds
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    now, wrong = time.time(), 0
    with opened(store, create=True) as bans:
        for path in files:
            found = Imported(lasts=lasts, wide=wide)
            for batch in batches(read_bans(path, form, found, now=now), BATCH):
                try:
                    bans.apply([(ban.key, bounded(ban, seconds, now)) for ban in batch], now=now)
                except RecordError as error:
                    found.bans -= len(error.problems)
                    found.wrong += len(error.problems)
                    typer.echo(str(error), err=True)
            for problem in found.problems:
                typer.echo(str(problem), err=True)
            if found.wrong > SHOWN:
                typer.echo(f"{path}: {found.wrong - SHOWN} more are refused", err=True)
            wrong += found.wrong
            typer.echo(f"{path}: {counted(found.bans, 'ban')}, {found.skipped} skipped, {found.wrong} wrong", err=True)
    if wrong:
        raise typer.Exit(1)


@app.command("export")
def export(
    store: Uri,
    form: Annotated[str, typer.Option("--format", "-f", help="jsonl, plain or crowdsec.")] = "jsonl",
    to: Annotated[
        Path | None, typer.Option("--to", dir_okay=False, help="File to write; else standard output.")
    ] = None,
) -> None:
    """Write all bans in force as a list."""
    from gobanfast.stores.formats import WRITERS, write_bans

    if form not in WRITERS:
        raise typer.BadParameter(f"{form!r} is not one of {', '.join(WRITERS)}", param_hint="--format")
    with opened(store) as bans:
        found = bans.scan()
        if to is None:
            write_bans(found, sys.stdout, form, now=time.time())
            return
        part = to.with_name(f"{to.name}.part")
        with part.open("w", encoding="utf-8") as file:
            written = write_bans(found, file, form, now=time.time())
        part.replace(to)
    typer.echo(f"{to}: {counted(written, 'ban')}", err=True)


@app.command("top")
def top(
    store: Uri,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Lines of each table.")] = 10,
    asn: Asn = None,
) -> None:
    """Show what fills the table of bans: by maker, and by network (/24, IPv6 /48)."""
    with opened(store) as bans:
        found = list(bans.scan())
    networks = load_asn(asn)
    makers = Counter(f"{ban.by} {ban.rule}" if ban.rule else ban.by for ban in found)
    places = Counter(network for ban in found if (network := network_around(ban.key)) is not None)
    for title, counts in (("by maker", makers), ("by network", places)):
        rows = [
            (name, f"{number:,}", f"{number / len(found):.1%}", network_of(name, networks) if counts is places else "")
            for name, number in counts.most_common(count)
        ]
        if rows:
            output().print(table(title, [title.removeprefix("by "), "bans", "of all", "AS"], rows))
    typer.echo(counted(len(found), "ban"), err=True)


def network_around(key: str) -> str | None:
    """The /24, or IPv6 /48, that a banned address or prefix lies in; itself where it is wider; None for other keys."""
    if key.startswith(("AS", "gh2:", "uid:")):
        return None
    found = ip_network(key)
    bits = min(TOP_NETWORKS[found.version], found.prefixlen)
    return str(found.supernet(new_prefix=bits))


@app.command("undo")
def undo(
    store: Uri,
    rule: Annotated[str, typer.Option("--rule", metavar="ID", help="The rule or tracker whose bans are lifted.")],
    since: Annotated[
        str,
        typer.Option("--since", metavar="TIME", help="Made since: 1h30m (ago), or 2026-11-26T12:00 (with zone: Z)."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be lifted.")] = False,
) -> None:
    """Lift exactly the bans that a rule made since a time; prints their keys."""
    now = time.time()
    start = since_when(since, now)
    with opened(store) as bans:
        found = [ban for ban in bans.scan() if ban.rule == rule and ban.created >= start]
        if not dry_run:
            for batch in batches(found, BATCH):
                bans.apply([(ban.key, None) for ban in batch], now=now)
    for ban in found:
        typer.echo(ban.key)
    typer.echo(f"{counted(len(found), 'ban')} {'would be ' if dry_run else ''}lifted", err=True)


def canonical(keys: list[str]) -> list[str]:
    """The keys in their one form; one usage error for all that are none."""
    from gobanfast.bans import ban_key

    done, wrong = [], []
    for key in keys:
        try:
            done.append(ban_key(key))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise typer.BadParameter("\n".join(wrong))
    return done


def bounded(ban: Ban, seconds: float | None, now: float) -> Ban:
    """The ban, with an end if it has none and `seconds` says so."""
    from dataclasses import replace

    return replace(ban, expires=now + seconds) if ban.expires is None and seconds is not None else ban


def since_when(text: str, now: float) -> float:
    """Unix seconds of an ISO 8601 time (local without a zone), or of a duration before `now`."""
    from gobanfast._values import parse_duration

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        ago = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; or an ISO 8601 time", param_hint="--since") from None
    return 0.0 if ago is None else now - ago


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The items in lists of up to `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def network_of(key: str, networks: AsnTable) -> str:
    """The AS of what a ban is on, with its name; empty where it is unknown, or where the key has no address."""
    from ipaddress import ip_network

    if key.startswith("AS"):
        return networks.describe(int(key[2:]))
    if key.startswith("uid:"):
        return ""
    place = key.partition("@")[2] if key.startswith("gh") else key
    if not place:
        return ""
    whole = ip_network(place)
    number = networks.lookup(str(whole[0]))
    return "" if number is None or number != networks.lookup(str(whole[-1])) else networks.describe(number)
