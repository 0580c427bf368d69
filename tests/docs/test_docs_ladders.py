"""The rules of docs/ladders.md load, and its program does what the page says."""

from __future__ import annotations

import re
import time
from pathlib import Path

from gobanfast import Ruleset

PAGE = (Path(__file__).parents[2] / "docs" / "ladders.md").read_text()


def test_the_rules_load():
    (rules,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    ladder = Ruleset.from_text(rules).settings.bans.ladder

    assert (((24, 16), (20, 64)), 3600.0, 3) == (ladder.ipv4, ladder.duration, ladder.collateral)


def test_the_program_ends_with_one_ban():
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"__name__": "ladders"}
    exec(program, names)  # noqa: S102
    until = time.monotonic() + 30
    while len(names["engine"].ban_table) != 1 and time.monotonic() < until:  # its own thread may have been first
        time.sleep(0.05)

    assert ["45.66.7.0/24"] == [ban.key for ban in names["engine"].bans()]
