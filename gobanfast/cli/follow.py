"""`gobanfast scan --follow`: bans from a live log, into a store and as JSON lines on standard output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gobanfast.cli.common import counted

if TYPE_CHECKING:
    from gobanfast.bans import Ban
    from gobanfast.engine import Engine


def follow(
    engine: Engine, logs: list[Path], *, layout: str, field: str | None, mount: str, store: str | None
) -> None:  # fmt: skip
    """Never returns but by an interrupt: decides what is written to one log, and prints each ban as it is made."""
    from gobanfast.batch.follow import Follower
    from gobanfast.stores import attach, encode_ban

    if len(logs) != 1 or str(logs[0]) == "-":
        raise typer.BadParameter("--follow takes one log, and no standard input; start one for each")
    if store is not None:
        try:
            attach(engine, store)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--store") from None
    follower = Follower(engine, logs[0], layout=layout, field=field, mount=mount)

    def tell(ban: Ban) -> None:
        typer.echo(encode_ban(ban))

    try:
        follower.run(tell)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        if engine.sync is not None:
            engine.sync.close()
        typer.echo(
            f"{logs[0]}: {counted(follower.decided, 'line')} decided, {follower.bad:,} without address", err=True
        )
