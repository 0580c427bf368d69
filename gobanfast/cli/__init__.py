"""The command line: one file per command, assembled in `app`. Needs the extra `cli` (typer, rich)."""

from __future__ import annotations

import sys


def main() -> int:
    """Exit status after running the command named in `sys.argv`; 2 without the extra `cli`."""
    try:
        from gobanfast.cli.app import app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"typer", "rich"}:
            raise
        sys.stderr.write(f"gobanfast: the command line needs {missing}; pip install 'gobanfast[cli]'\n")
        return 2
    try:
        app(prog_name="gobanfast")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0
