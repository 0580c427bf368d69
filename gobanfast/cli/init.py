"""`gobanfast init`: a commented rules file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gobanfast.cli.common import Force, counted, output, table, write_new


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="The file to write.")] = Path(
        "rules.yaml"
    ),
    preset: Annotated[str | None, typer.Option("--preset", metavar="NAME", help="What to start from.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Print the presets.")] = False,
    force: Force = False,
) -> None:
    """Write a rules file to start from: Host list, cross-origin rules, bans, comments, and tests that pass.

    What in it is yours to change, its first lines say; `gobanfast rules test` says whether the rules still do what the
    tests ask for.
    """
    from gobanfast.rules import Ruleset
    from gobanfast.rules.presets import preset_text, presets

    if listing:
        output().print(table("", ["preset", "what"], list(presets().items())))
        return
    if preset is None:
        raise typer.BadParameter(f"write one of {', '.join(presets())}; --list describes them", param_hint="--preset")
    text = preset_text(preset)
    write_new(file, text, force=force)
    ruleset = Ruleset.from_text(text)
    typer.echo(
        f"{file}: preset {preset}, {counted(len(ruleset.rules), 'rule')}, {counted(len(ruleset.tests), 'test')}; "
        f"put in your own names, then gobanfast rules test {file}"
    )
