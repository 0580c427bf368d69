"""The Python of docs/stores.md, docs/decision-log.md and docs/metrics.md runs, one page's objects given to the next."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def code(page: str, places: dict[str, Path]) -> str:
    """The Python of a page, with files of ours in place of those that are written there."""
    block = "".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL))
    assert any(written in block for written in places)
    for written, place in places.items():
        block = block.replace(written, str(place))
    return str(block)


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is a program: the ban of the first page decides; the second logs that, the third counts it."""
    prometheus_client = pytest.importorskip("prometheus_client", reason="metrics need the extra metrics")
    pytest.importorskip("fastapi")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text("{version: 1, rules: []}")
    places = {
        "/var/lib/app/bans.db": tmp_path / "bans.db",
        "/var/log/gobanfast.jsonl": tmp_path / "decisions.jsonl",
        "/run/app/gobanfast.metrics": tmp_path / "metrics",
    }
    programs: list[dict[str, Any]] = []
    try:
        for page in ("stores.md", "decision-log.md", "metrics.md"):
            programs.append({"__name__": page})
            exec(code(page, places), programs[-1])  # noqa: S102
        stored, logged, counted = programs
        assert {ban.key: ban.expires for ban in stored["bans"].bans()} == stored["mine"] != {}
        logged["decisions"].flush()
        (line,) = (tmp_path / "decisions.jsonl").read_text().splitlines()
        counted["metrics"].observe(counted["metrics"].timed(counted["engine"].decide)("203.0.113.7"))

        assert ("ban", logged["id"]) == (json.loads(line)["cause"], json.loads(line)["id"])
        assert 1 == prometheus_client.REGISTRY.get_sample_value("ban_by_asn_total", {"asn": "unknown"})
    finally:
        for names in programs:
            if "metrics" in names:
                prometheus_client.REGISTRY.unregister(names["metrics"])
                names["metrics"].close()
            if "decisions" in names:
                names["decisions"].close()
            if "engine" in names:
                names["engine"].sync.close()
