"""No class of the package can be made, or called, into a signal: see class_probe.py, which finds them by itself."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROBE = Path(__file__).parents[1].joinpath("class_probe.py")
ENDINGS = 10  # of the process, after which the rest is not looked at


@functools.cache
def probed(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Every line that the probe printed, and what ended it: one process for all, and another after each that ended."""
    lines: list[dict[str, Any]] = []
    ended: list[str] = []
    while len(ended) < ENDINGS and not (lines and "end" in lines[-1]):
        first = lines[-1]["number"] + 1 if lines else 0
        run = subprocess.run(
            [sys.executable, "-X", "faulthandler", PROBE, str(first)], capture_output=True, text=True, cwd=folder,
            timeout=300, check=False,
        )  # fmt: skip
        lines += map(json.loads, run.stdout.splitlines())
        if run.returncode != 0 or not lines:
            place = f"{lines[-1]['cls']}: {lines[-1].get('what')}" if lines and "number" in lines[-1] else "the start"
            ended.append(f"{place}: status {run.returncode}: {run.stderr[-600:]}")
        if not lines:
            break
    return lines, ended


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[str]]:
    return probed(tmp_path_factory.mktemp("classes"))


def test_no_signal(found: tuple[list[dict[str, Any]], list[str]]) -> None:
    """Whatever way a class is made, with and without arguments, and whatever is then called with whatever: an answer or
    an exception."""
    lines, ended = found

    assert [] == ended
    assert "end" in lines[-1]


def test_every_compiled_class_was_tried_whole(found: tuple[list[dict[str, Any]], list[str]]) -> None:
    """A compiled class that a module defines has a whole object in the probe, too, so that its methods were called."""
    made_inside = {
        "gobanfast._core.asn_table.AsnBlock",
        "gobanfast._core.engine_core.EngineCore",
        "gobanfast._core.decision.StoredBan",
    }

    missing = {line["cls"] for line in found[0] if line.get("done") and line["compiled"] and not line["whole"]}

    assert missing <= made_inside


def test_refusals_say_what_makes_one(found: tuple[list[dict[str, Any]], list[str]]) -> None:
    """`C()` of a compiled class gives a whole object, or a TypeError: where one comes from, or what it takes."""
    helpful = re.compile(r"TypeError: .* comes? from |TypeError: [\w.]+\(\) (takes|needs|missing) |not safe, use ")
    compiled = {line["cls"] for line in found[0] if line.get("done") and line["compiled"]}

    refused = {
        line["cls"]: line["error"] for line in found[0]
        if line.get("cls") in compiled and line.get("made") in {"C()", "C.__new__(C)", "S: S()", "S: C.__new__(S)"}
    }  # fmt: skip

    assert {} == {name: error for name, error in refused.items() if not helpful.search(error)}
    assert (
        "an AsnTable comes from AsnTable.starter(), .from_csv, .from_mmdb or .load" in refused["gobanfast.asn.AsnTable"]
    )
