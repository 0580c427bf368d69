"""The Python of docs/stores.md, docs/decision-log.md and docs/metrics.md runs, one page's objects given to the next."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def code(page: str, written: str, place: Path) -> str:
    """The one Python block of a page, with `place` for the path that is written there."""
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert written in block
    return str(block).replace(written, str(place))


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ban of the first page decides; the second logs that, the third counts it."""
    prometheus_client = pytest.importorskip("prometheus_client", reason="metrics need the extra metrics")
    asgi = pytest.importorskip("gobanfast.frontends.asgi")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text("{version: 1, rules: []}")
    names: dict[str, Any] = {"address": "203.0.113.7", "name": "shop.example", "path": "/", "app": None}
    pages = {"stores.md": ("/var/lib/app/bans.db", tmp_path / "bans.db"),
             "decision-log.md": ("/var/log/gobanfast.jsonl", tmp_path / "decisions.jsonl"),
             "metrics.md": ("/run/app/gobanfast.metrics", tmp_path / "metrics")}  # fmt: skip
    try:
        for page, (written, place) in pages.items():
            if page == "metrics.md":
                names |= {"Gobanfast": asgi.Gobanfast, "decision": names["engine"].peek(names["address"])}
            exec(code(page, written, place), names)  # noqa: S102
        names["decisions"].flush()
        (line,) = (tmp_path / "decisions.jsonl").read_text().splitlines()

        assert ("ban", names["id"]) == (json.loads(line)["cause"], json.loads(line)["id"])
        assert 1 == prometheus_client.REGISTRY.get_sample_value("ban_by_asn_total", {"asn": "unknown"})
    finally:
        if "metrics" in names:
            prometheus_client.REGISTRY.unregister(names["metrics"])
            names["metrics"].close()
        if "decisions" in names:
            names["decisions"].close()
        if "engine" in names:
            names["engine"].sync.close()
