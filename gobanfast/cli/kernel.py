"""`gobanfast kernel`: let the Linux kernel drop packets of banned sources (XDP, nftables)."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gobanfast.cli.common import App, AsJson, Asn, counted, output, table

if TYPE_CHECKING:
    from gobanfast.frontends.kernel.maps import DropSet

PINS = Path("/sys/fs/bpf/gobanfast")
TOKEN = "GOBANFAST_TOKEN"  # noqa: S105 - the variable's name
EMPTY = "rules: []\n"

app = App(help="Let the Linux kernel drop packets of banned sources: XDP, or nftables.", no_args_is_help=True)

Pins = Annotated[Path, typer.Option("--pins", metavar="DIR", help="Folder in a bpffs that holds the XDP drop set.")]
Table = Annotated[str, typer.Option("--table", metavar="NAME", help="nftables table (family inet).")]


@app.command("up")
def up(
    store: Annotated[
        str,
        typer.Option("--store", "-s", envvar="GOBANFAST_STORE", metavar="URI", help="Store to read the bans from."),
    ],
    rules: Annotated[
        Path | None,
        typer.Option("--rules", "-r", exists=True, dir_okay=False, help="Rules: allow, trust, bans: capacity."),
    ] = None,
    asn: Asn = None,
    interface: Annotated[
        list[str] | None,
        typer.Option("--interface", "-i", metavar="NAME", help="Where packets come in; default: of the default route."),
    ] = None,
    xdp: Annotated[bool, typer.Option("--xdp", help="XDP, or nothing.")] = False,
    nft: Annotated[bool, typer.Option("--nft", help="nftables.")] = False,
    mode: Annotated[str, typer.Option("--mode", help="count (dry run), drop, or reset (nftables only).")] = "drop",
    syn_only: Annotated[
        bool, typer.Option("--syn-only", help="Drop what opens TCP connections only; all else passes.")
    ] = False,
    confirm: Annotated[
        str | None,
        typer.Option("--confirm", metavar="DURATION", help="Stop dropping after this, unless `confirm` is run: 60s."),
    ] = None,
    keep: Annotated[
        list[int] | None,
        typer.Option("--keep", metavar="PORT", min=1, max=65535, help="Ports kept for peers with a session (22)."),
    ] = None,
    ignore_allow: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore-allow", metavar="ID", help="An allow rule that the kernel cannot see, and may go without."
        ),
    ] = None,
    doctor: Annotated[
        str | None,
        typer.Option(
            "--doctor", metavar="URL", help="Doctor of the application that proves that clients connect directly."
        ),
    ] = None,
    capacity: Annotated[
        int | None, typer.Option("--capacity", min=1, help="Entries of each part; default: bans: capacity.")
    ] = None,
    attach: Annotated[str, typer.Option("--attach", help="XDP: auto, native (by the driver) or generic.")] = "auto",
    metrics: Annotated[
        Path | None, typer.Option("--metrics", metavar="FILE", help="Write Prometheus metrics there, every 5 s.")
    ] = None,
    down_at_exit: Annotated[
        bool, typer.Option("--down-at-exit", help="Take all of it down on the way out; else drops go on.")
    ] = False,
    pins: Pins = PINS,
    nft_table: Table = "gobanfast",
) -> None:
    """Start dropping, and follow the store until ended; drops go on without this process."""
    from gobanfast._values import parse_duration
    from gobanfast.engine import Engine
    from gobanfast.frontends.kernel.bpf import KernelError
    from gobanfast.frontends.kernel.daemon import Follower, RefusedError, only_one
    from gobanfast.frontends.kernel.guards import default_interfaces
    from gobanfast.frontends.kernel.maps import Clock
    from gobanfast.frontends.kernel.nft import NftDrops
    from gobanfast.frontends.kernel.xdp import XdpDrops
    from gobanfast.rules import Ruleset

    if mode not in {"count", "drop", "reset"}:
        raise typer.BadParameter(f"{mode!r} is not one of count, drop, reset", param_hint="--mode")
    if attach not in {"auto", "native", "generic"}:
        raise typer.BadParameter(f"{attach!r} is not one of auto, native, generic", param_hint="--attach")
    if xdp and nft:
        raise typer.BadParameter("--xdp and --nft exclude each other")
    if keep is not None and len(keep) > 8:
        raise typer.BadParameter("at most 8 ports can be kept", param_hint="--keep")
    try:
        seconds = None if confirm is None else parse_duration(confirm)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--confirm") from None
    logging.basicConfig(level=logging.WARNING, format="gobanfast: %(message)s", stream=sys.stderr)
    held = only_one(nft_table if nft else str(pins))
    if rules is not None:
        engine = Engine.load(rules, asn=asn, store=store)
    else:
        from gobanfast.stores import attach as attach_store

        engine = Engine(Ruleset.from_text(EMPTY))
        attach_store(engine, store)
    room = capacity or engine.ban_table.capacity
    names = tuple(interface or ())
    options: dict[str, Any] = {
        "capacity": room, "mode": mode, "syn_only": syn_only, "clock": Clock(engine.ban_table.offset)
    }  # fmt: skip
    direct = doctor is not None and _proved(doctor)

    def started(made: DropSet) -> Follower:
        """The follower of a set that is in force; one that cannot be is taken away."""
        follower = Follower(
            engine,
            made,
            capacity=room,
            ignore_allow=frozenset(ignore_allow or ()),
            ports=tuple(keep) if keep is not None else (22,),
            direct=direct,
            dropping=mode != "count",
            metrics=metrics,
        )
        try:
            follower.start(seconds)
        except (KernelError, OSError):
            made.discard()
            raise
        return follower

    follower = None
    if not nft and (xdp or mode != "reset"):
        try:
            where = names or default_interfaces()
            if not where:
                raise KernelError("there is no default route to tell the interface by; name it: --interface NAME")
            follower = started(XdpDrops.make(where, attach=attach, pins=pins, **options))  # type: ignore[arg-type]
        except RefusedError:
            raise
        except KernelError as error:
            if xdp:
                raise
            typer.echo(f"gobanfast: no XDP ({error}); taking nftables", err=True)
    if follower is None:
        follower = started(NftDrops.make(names, table=nft_table, **options))
    drops = follower.drops
    if rules is not None:
        engine.watch(rules, asn=asn)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: follower.stop())
    entries = sum(drops.status()["entries"].values())
    typer.echo(
        f"gobanfast: {drops.kind} on {', '.join(drops.interfaces) or 'all interfaces'}, mode {mode}, "
        f"{counted(entries, 'entry').replace('entrys', 'entries')}"
        + (f"; stops dropping after {confirm} unless gobanfast kernel confirm is run" if confirm else ""),
        err=True,
    )
    follower.run()
    if down_at_exit:
        drops.down()
    drops.close()
    held.close()


def _proved(url: str) -> bool:
    """True where the Doctor at `url` has seen clients connect directly; RefusedError where it saw anything else."""
    from gobanfast.frontends.doctor import consult, consulted
    from gobanfast.frontends.kernel.daemon import RefusedError

    token = os.environ.get(TOKEN, "")
    problems = [f"{found.code}: {found.what}; {found.advice}" for found in consult(url, token) if found.code in CHAIN]
    counts = consulted(url, token)
    if counts.get("believed"):
        problems.append(f"{counts['believed']} of {counts['requests']} requests came through proxies that trust: names")
    elif counts.get("requests", 0) < FEW:
        problems.append(
            f"the Doctor has seen {counts.get('requests', 0)} requests, and needs {FEW} to tell; wait for more"
        )
    if problems:
        raise RefusedError("\n".join(problems))
    return True


FEW = 20
CHAIN = {
    "server-believes-everyone", "server-believes-us", "server-rewrote-client", "unix-socket", "one-peer",
    "chains-from-strangers", "proxy-says-nothing",
}  # fmt: skip
"""Findings of the Doctor that make the peer of a connection, which the kernel sees, another than the client."""


@app.command("status")
def status(pins: Pins = PINS, nft_table: Table = "gobanfast", as_json: AsJson = False) -> None:
    """Show what is in force; status 1 if nothing is, or an interface lost it."""
    found = [drops.status() for drops in _present(pins, nft_table)]
    if as_json:
        typer.echo(json.dumps(found))
    elif not found:
        typer.echo("nothing is in force", err=True)
    for told in () if as_json else found:
        armed = told["armed"] if isinstance(told["armed"], str) else f"for {told['armed']} s, unless confirmed"
        rows = [
            ["kind", told["kind"]],
            ["interfaces", ", ".join(told["interfaces"])],
            *([["lost", ", ".join(told["lost"])]] if told["lost"] else []),
            ["mode", told["mode"] + (", SYN only" if told["syn_only"] else "")],
            ["armed", armed],
            ["entries", ", ".join(f"{name} {count:,}" for name, count in told["entries"].items() if count) or "none"],
            *([["memory", f"{told['memory'] / 1e6:,.1f} MB"]] if told["memory"] else []),
        ]
        output().print(table("", ["what", "value"], rows))
    if not found or any(told["lost"] for told in found):
        raise typer.Exit(1)


@app.command("stats")
def stats(
    pins: Pins = PINS,
    nft_table: Table = "gobanfast",
    prometheus: Annotated[bool, typer.Option("--prometheus", help="In Prometheus' text format.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what became of packets, since the set was made; status 1 if none is in force."""
    from gobanfast.frontends.kernel.report import exposition

    found = [drops.status() for drops in _present(pins, nft_table)]
    for told in found:
        if prometheus:
            typer.echo(exposition(told), nl=False)
        elif as_json:
            typer.echo(json.dumps({"kind": told["kind"], "packets": told["packets"], "reasons": told["reasons"]}))
        else:
            rows = [[name, f"{packets:,}", f"{size:,}"] for name, (packets, size) in told["packets"].items()]
            rows += [[f"by {name}", f"{packets:,}", ""] for name, packets in told["reasons"].items()]
            output().print(table("", [told["kind"], "packets", "bytes"], rows))
    if not found:
        typer.echo("nothing is in force", err=True)
        raise typer.Exit(1)


@app.command("confirm")
def confirm(pins: Pins = PINS, nft_table: Table = "gobanfast") -> None:
    """Let what `up --confirm` started drop for good; status 1 if nothing is in force."""
    found = _present(pins, nft_table)
    for drops in found:
        drops.arm(None)
    if not found:
        typer.echo("nothing is in force", err=True)
        raise typer.Exit(1)


@app.command("down")
def down(pins: Pins = PINS, nft_table: Table = "gobanfast") -> None:
    """Take it all down: programs, maps, tables. A running `up` ends by itself."""
    from gobanfast.frontends.kernel.xdp import remove

    found = []
    try:
        found = _present(pins, nft_table)
    finally:
        for drops in found:
            drops.down()
        remove(pins)
    for drops in found:
        typer.echo(f"{drops.kind}: taken down", err=True)
    if not found:
        typer.echo("nothing is in force", err=True)


def _present(pins: Path, nft_table: str) -> list[DropSet]:
    """The drop sets that are in force."""
    from gobanfast.frontends.kernel.bpf import KernelError
    from gobanfast.frontends.kernel.nft import NftDrops
    from gobanfast.frontends.kernel.xdp import XdpDrops

    found: list[DropSet] = []
    xdp = XdpDrops.pinned(pins)
    if xdp is not None:
        found.append(xdp)
    try:
        nft = NftDrops.present_table(nft_table)
    except KernelError as error:
        if xdp is None and "not on PATH" not in str(error):
            raise
        nft = None  # no nft here, so no table of ours
    if nft is not None:
        found.append(nft)
    return found
