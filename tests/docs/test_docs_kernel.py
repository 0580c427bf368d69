"""docs/kernel.md has every command, option, verdict and metric; its unit starts what the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer

from gobanfast.cli.app import app
from gobanfast.frontends.kernel.maps import VERDICTS
from gobanfast.frontends.kernel.report import HELP

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "kernel.md").read_text()
UNIT = (ROOT / "examples" / "gobanfast-kernel.service").read_text()
UP = typer.main.get_command(app).commands["kernel"].commands["up"]


def test_every_option_is_on_the_page() -> None:
    """Options of `up` in the table, and no others; the other commands are named."""
    rows = PAGE.partition("## Options of `up`")[2].partition("\n## ")[0]
    told = {found for line in rows.splitlines() for found in re.findall(r"--[a-z][a-z-]*", line.partition(" | ")[0])}
    options = {name for option in UP.params for name in option.opts if name.startswith("--")}

    assert options == told
    for command in ("status", "confirm", "stats", "down"):
        assert f"`gobanfast kernel {command}`" in PAGE


def test_every_verdict_and_metric_is_on_the_page() -> None:
    """Also those that only the running process knows."""
    metrics = PAGE.partition("## Metrics")[2].partition("\n## ")[0]

    assert [] == [name for name in HELP if f"`{name}`" not in metrics]
    assert [] == [name for name in VERDICTS if name not in metrics]


def test_unit_starts_what_there_is() -> None:
    """Its options exist, and its process may do two things that others may not."""
    (start,) = re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)
    words = shlex.split(start)

    assert words[1:3] == ["kernel", "up"]
    UP.make_parser(UP.context_class(UP)).parse_args(words[3:])
    assert re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT, re.MULTILINE) == ["CAP_BPF CAP_NET_ADMIN"]
    assert "Type=notify" in UNIT
    assert re.search(r"^WatchdogSec=\d+$", UNIT, re.MULTILINE)
