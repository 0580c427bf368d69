"""Damaged tables that are opened without their hashes: a FormatError or an answer, never a signal or another error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROBE = Path(__file__).parents[1].joinpath("damage_probe.py")
KINDS = ("rules", "asn", "names", "origins", "prefix", "set")


@pytest.mark.parametrize("seed", ["1", "7"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_table_answers_or_is_refused(kind: str, seed: str) -> None:
    """Words and bytes of a saved table are overwritten; it is loaded with `verify=False` and asked everything."""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", PROBE, kind, "150", seed], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip

    assert (0, "") == (run.returncode, run.stderr[-800:])
