"""Holds a record against bars.toml, one line a bar: `python -m benchmarks.bars [RECORD]`. Exit 1 when one fails."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from benchmarks.report import amount, find, newest_record, read_record

BARS = Path(__file__).with_name("bars.toml")


def fastest_peer(record: dict[str, Any], suite: str, group: str) -> dict[str, Any] | None:
    rows = [row for row in record["rows"] if (row["suite"], row["group"], row["kind"]) == (suite, group, "peer")]
    return min(rows, key=lambda row: row["median"], default=None)


def judge(record: dict[str, Any], bar: dict[str, Any]) -> tuple[str, str]:
    """ "pass", "fail" or "none" (not in this record), and what was got."""
    suite, group, name = bar["of"]
    row = find(record, suite, group, name)
    over = bar.get("over")
    minus = find(record, *bar["minus"]) if "minus" in bar else None
    base = fastest_peer(record, suite, group) if over == "fastest peer" else find(record, *over) if over else None
    if row is None or (over and base is None) or ("minus" in bar and minus is None):
        return "none", "not in this record"
    value, text = row["median"], amount(row["median"], row["unit"])
    if bar.get("per_second"):
        value = 1e3 / row["median"]
        text = f"{value:.0f} M/s"
    elif minus and base:
        added, theirs = value - minus["median"], base["median"] - minus["median"]
        value = added / theirs
        text = f"{value:.2f} (added {amount(added, row['unit'])} / {amount(theirs, row['unit'])}, {base['name']})"
    elif minus:
        value -= minus["median"]
        text = f"{amount(value, row['unit'])} ({text} - {amount(minus['median'], row['unit'])}, {minus['name']})"
    elif base:
        value = row["median"] / base["median"]
        text = f"{value:.2f} ({text} / {amount(base['median'], base['unit'])}, {base['name']})"
    kept = value <= bar["at_most"] if "at_most" in bar else value >= bar["at_least"]
    return "pass" if kept else "fail", text


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else newest_record()
    record = read_record(path)
    print(f"{path.name}: {record['machine']['cpu']}, load average {record['load_average']['before'][0]:.2f}")
    failed = 0
    for bar in tomllib.loads(BARS.read_text())["bar"]:
        verdict, got = judge(record, bar)
        failed += verdict == "fail"
        print(f"{verdict:4}  {bar['text']}: {got}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
