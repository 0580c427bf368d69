"""`gobanfast feeds`: fetch, list and check the feeds that a rules file names."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gobanfast.cli.common import App, AsJson, counted, output, roughly, table

if TYPE_CHECKING:
    from gobanfast.enrich.feeds import Outcome
    from gobanfast.rules.rule import PrefixList
    from gobanfast.rules.settings import FeedSettings

app = App(help="Fetch, list and check the feeds of a rules file.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="RULES", exists=True, dir_okay=False, help="Rules that name feeds.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Feeds; without one: all.")]
Force = Annotated[bool, typer.Option("--force", help="Take a list that is half as long or ten times as long, too.")]


@app.command()
def update(rules: File, names: Names = None, force: Force = False) -> None:
    """Fetch feeds now; status 1 if one fails. The last good list stays then."""
    from gobanfast.enrich import feeds as enrich

    chosen, trusted = _chosen(rules, names)
    folder = _folder(rules)
    with enrich.folder_lock(folder, wait=True):
        outcomes = enrich.update(chosen, folder, rules.absolute().parent, trusted, now=time.time(), force=force)
    _tell(outcomes)


@app.command()
def check(rules: File, names: Names = None) -> None:
    """Fetch feeds and say what would come of it; nothing is kept. Status 1 if one would fail."""
    from gobanfast.enrich import feeds as enrich
    from gobanfast.rules.feed_cache import state_path

    chosen, trusted = _chosen(rules, names)
    with tempfile.TemporaryDirectory(prefix="gobanfast-") as made:
        for feed in chosen:
            state = state_path(_folder(rules), feed.name)
            if state.is_file():
                shutil.copy(state, state_path(Path(made), feed.name))
        outcomes = enrich.update(chosen, Path(made), rules.absolute().parent, trusted, now=time.time())
    _tell(outcomes)


@app.command("list")
def list_feeds(rules: File, as_json: AsJson = False) -> None:
    """Show the feeds of a rules file, their entries and age; with --json one object a line."""
    import json

    from gobanfast.enrich.feeds import status_of

    chosen, _ = _chosen(rules, None)
    found = status_of(chosen, _folder(rules), time.time())
    if as_json:
        for state in found:
            typer.echo(json.dumps(state))
        return
    rows = [
        (
            state["name"],
            state["kind"],
            f"{state['entries']:,}",
            "never" if state["age"] is None else f"{roughly(state['age'])} ago",
            "stale" if state["stale"] else "",
            state["error"] or "",
        )
        for state in found
    ]
    if rows:
        output().print(table("", ["feed", "kind", "entries", "confirmed", "state", "what"], rows))
    typer.echo(counted(len(rows), "feed"), err=True)


def _chosen(rules: Path, names: list[str] | None) -> tuple[list[FeedSettings], PrefixList]:
    """The feeds of these names, and the prefixes under `trust:`."""
    from gobanfast.rules.ruleset import Ruleset
    from gobanfast.rules.ruleset_file import is_stored
    from gobanfast.rules.text.feeds_of import feeds_of

    if is_stored(rules):
        ruleset = Ruleset.load(rules)
        feeds, trusted = list(ruleset.settings.feeds), ruleset.trust
    else:
        feeds, trusted = feeds_of(rules)
    known = {feed.name: feed for feed in feeds}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise typer.BadParameter(f"no feed is called {unknown[0]!r}; feeds: {', '.join(known) or 'there are none'}")
    return [known[name] for name in names or known], trusted


def _folder(rules: Path) -> Path:
    from gobanfast.rules.feed_cache import folder_of

    return folder_of(rules)


def _tell(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        text = (
            f": {outcome.text}" if outcome.text else f": {counted(outcome.count, 'entry').replace('entrys', 'entries')}"
        )
        typer.echo(f"{outcome.name}: {outcome.result}{text}", err=outcome.result == "failed")
    if any(outcome.result == "failed" for outcome in outcomes):
        raise typer.Exit(1)
