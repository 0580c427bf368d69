"""`gobanfast labels`: list and change the labels in a store. Running engines follow within a moment."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from gobanfast.cli.bans import Uri
from gobanfast.cli.common import App, AsJson, counted, moment, opened, output, table

app = App(help="List, add and remove the labels in a store.", no_args_is_help=True)

Word = Annotated[str, typer.Argument(metavar="WORD", help="The label: up to 32 of a-z, 0-9, '.', '_' and '-'.")]
Keys = Annotated[
    list[str],
    typer.Argument(
        metavar="KEY...",
        help="Addresses, prefixes, AS64500, gh2:<32 hex>[@<client>], uid:<name>, session:<8 hex>:<32 hex>.",
    ),
]


@app.command("list")
def list_labels(
    store: Uri,
    word: Annotated[str | None, typer.Option("--word", metavar="WORD", help="Only labels of this word.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the labels in force, the latest last; status 0 also when there is none."""
    from gobanfast.bans import label_of

    with opened(store) as records:
        found = [label_of(record) for record in records.scan("label:" if word is None else f"label:{checked(word)}:")]
    found.sort(key=lambda label: (label.created, label.key, label.word))
    if as_json:
        for label in found:
            typer.echo(json.dumps(asdict(label)))
        return
    columns = {
        "key": [label.key for label in found],
        "label": [label.word for label in found],
        "ends": ["never" if label.expires is None else moment(label.expires, ahead=True) for label in found],
        "by": [label.by for label in found],
        "reason": [label.reason for label in found],
        "made": [moment(label.created) for label in found],
    }
    names = [name for name, cells in columns.items() if any(cells)]
    if found:
        output().print(table("", names, zip(*(columns[name] for name in names), strict=True)))
    typer.echo(counted(len(found), "label"), err=True)


@app.command("add")
def add(
    word: Word,
    keys: Keys,
    store: Uri,
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="Duration: 90s, 1h30m, 7d or permanent.")
    ] = "1h",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, shown with the label.")] = "",
) -> None:
    """Put a label on keys. One of the same word that lasts longer stays."""
    from gobanfast._values import parse_duration
    from gobanfast.bans import Label

    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    asked, now = canonical(keys), time.time()
    expires = None if seconds is None else now + seconds
    records = [Label(key, checked(word), reason, now, expires).record for key in asked]
    with opened(store, create=True) as labels:
        labels.apply([(record.key, record) for record in records], now=now)


@app.command("remove")
def remove(word: Word, keys: Keys, store: Uri) -> None:
    """Take a label off keys; status 1 if one of them did not carry it."""
    asked = [f"label:{checked(word)}:{key}" for key in canonical(keys)]
    with opened(store) as labels:
        absent = [key for key in asked if not labels.delete(key)]
    for key in absent:
        typer.echo(f"{key.split(':', 2)[2]}: not labelled {word}", err=True)
    if absent:
        raise typer.Exit(1)


def checked(word: str) -> str:
    """The word; a usage error for what is none."""
    from gobanfast.bans import label_word

    try:
        return label_word(word)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="WORD") from None


def canonical(keys: list[str]) -> list[str]:
    """The keys in their one form; one usage error for all that are none."""
    from gobanfast.bans import label_key

    done, wrong = [], []
    for key in keys:
        try:
            done.append(label_key(key))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise typer.BadParameter("\n".join(wrong))
    return done
