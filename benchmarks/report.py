"""A record as text: the Markdown beside each record, and the tables other commands cut from it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
KINDS = ("ours", "yardstick", "peer")


def table(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    cells = list(header)
    text = [f"| {' | '.join(cells)} |", f"|{'---|' * len(cells)}"]
    text += [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join(text) + "\n"


def quantity(row: Row) -> str:
    """Median, and best where there is more than one round, with the unit a person reads."""
    if len(row["rounds"]) == 1:
        return amount(row["median"], row["unit"])
    return f"{amount(row['median'], row['unit'])} ({amount(row['best'], row['unit'])})"


def amount(value: float, unit: str) -> str:
    if unit == "ns" and value >= 1e6:
        return f"{value / 1e6:.3g} ms" if value < 1e9 else f"{value / 1e9:.3g} s"
    if unit == "ns" and value >= 1e4:
        return f"{value / 1e3:.3g} us"
    if unit == "bytes" and value >= 1e5:
        return f"{value / 1e6:.2f} MB"
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def find(record: dict[str, Any], suite: str, group: str, name: str) -> Row | None:
    for row in record["rows"]:
        if (row["suite"], row["group"], row["name"]) == (suite, group, name):
            return row
    return None


def matrix(record: dict[str, Any], suite: str) -> str:
    """Subjects down, query sets across: the median in ns, and how many no-op calls and dict hits that is."""
    rows = [row for row in record["rows"] if row["suite"] == suite]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    names = list(dict.fromkeys(row["name"] for kind in KINDS for row in rows if row["kind"] == kind))
    lines = []
    for name in names:
        line = [name]
        for group in groups:
            row = find(record, suite, group, name)
            line.append(_cell(record, row) if row else "-")
        lines.append(line)
    return table(["", *groups], lines)


def _cell(record: dict[str, Any], row: Row) -> str:
    if row["suite"] == "batch" and row["unit"] == "ns":
        return f"{1e3 / row['median']:.3g}"
    if row["unit"] != "ns" or row["median"] >= 1e5:
        return quantity(row)
    text = f"{row['median']:.0f}" if row["median"] >= 100 else f"{row['median']:.1f}"
    ratios = [
        f"{row['median'] / base['median']:.1f}"
        for base in (find(record, row["suite"], row["group"], name) for name in ("no-op call", "dict.get"))
        if base
    ]
    return f"{text} ({' / '.join(ratios)})" if ratios else text


def document(record: dict[str, Any]) -> str:
    """The whole record for a reader."""
    machine = record["machine"]
    facts = {
        "date": record["date"],
        "commit": record["commit"],
        "command": f"`{record['command']}`",
        "cpu": f"{machine['cpu']}, {machine['cpus']} visible",
        "caches": ", ".join(f"{name} {size}" for name, size in machine["caches"].items()),
        "kernel": machine["kernel"],
        "compiler": machine["compiler"],
        "python": machine["python"],
        "load average": " -> ".join(
            " ".join(f"{value:.2f}" for value in record["load_average"][when]) for when in ("before", "after")
        ),
        "versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        "table": f"{record['table']['source']}, {record['table']['prefixes']:,} prefixes",
        "rounds": f"{record['rounds']}, interleaved",
    }
    text = f"# Record of {record['date']}\n\n" + table(["", ""], ([name, value] for name, value in facts.items()))
    for name, reason in record["skipped"].items():
        text += f"\nSkipped: {name}: {reason}\n"
    for line in record["disagreements"]:
        text += f"\nDisagrees: {line}\n"
    for suite in dict.fromkeys(row["suite"] for row in record["rows"]):
        text += f"\n## {suite}\n\n{record['captions'][suite]}\n\n{matrix(record, suite)}"
    return text


def read_record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def newest_record() -> Path:
    """The record with the latest date in its name."""
    found = sorted((Path(__file__).parent / "record").glob("*.json"))
    if not found:
        raise SystemExit("no record yet; make one with python -m benchmarks.run")
    return found[-1]
