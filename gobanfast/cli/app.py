"""Assembly of the commands: errors to standard error, exit status."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from gobanfast import __version__
from gobanfast._errors import GobanError
from gobanfast.cli import (
    asn,
    backtest,
    bans,
    bench,
    check,
    cors,
    doctor,
    explain,
    feeds,
    hello,
    init,
    kernel,
    labels,
    rules,
    scan,
    serve,
)
from gobanfast.cli.common import App, PlainHelp

EXIT_CODES = (
    "Exit status: 0 fine; 1 something to see (lint findings, a --fail-on action); 2 wrong usage or unusable input; "
    "3 the service could not start (its port is taken); 130 interrupted; 141 the reader of the output went away."
)


class Commands(PlainHelp, TyperGroup):
    """Turns what a command raises on purpose into one message and status 2."""

    def invoke(self, ctx: Any) -> Any:
        """What the command returns; `typer.Exit` with the status that EXIT_CODES names where it failed."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a broken pipe shows here, not at interpreter exit
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except GobanError as error:
            typer.echo(str(error), err=True)
        except OSError as error:
            typer.echo(f"{error.filename or 'gobanfast'}: {error.strerror or error}", err=True)
        else:
            return result
        raise typer.Exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


app = App(
    cls=Commands,
    help="Decide requests by address, AS, server name and headers.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Decide requests by address, AS, server name and headers."""


app.command("init", epilog=EXIT_CODES)(init.init)
app.command("check")(check.check)
app.command("explain")(explain.explain)
app.command("scan", epilog=EXIT_CODES)(scan.scan)
app.command("backtest", epilog=EXIT_CODES)(backtest.backtest)
app.command("bench")(bench.bench)
app.command("hello", epilog=EXIT_CODES)(hello.hello)
app.command("serve", epilog=EXIT_CODES)(serve.serve)
app.command("cors", epilog=EXIT_CODES)(cors.cors)
app.command("doctor", epilog=EXIT_CODES)(doctor.doctor)
app.add_typer(rules.app, name="rules")
app.add_typer(asn.app, name="asn")
app.add_typer(bans.app, name="bans")
app.add_typer(kernel.app, name="kernel")
app.add_typer(feeds.app, name="feeds")
app.add_typer(labels.app, name="labels")
