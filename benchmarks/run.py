"""Runs the suites interleaved and writes a dated record: `python -m benchmarks.run --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import distributions
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.cases import Data, Row, interleave

HERE = Path(__file__).parent
RECORD = HERE / "record"
SUITES = tuple(sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py")))
DISTRIBUTIONS = (
    "gobanfast", "cachetools", "cython", "maxminddb", "maxminddb-rust", "numpy", "py-radix", "pyasn", "pyroaring",
    "pysubnettree", "pytricia", "django", "django-cors-headers", "flask", "flask-cors", "mcp", "opentelemetry-sdk",
    "pyre2", "sse-starlette", "starlette",
)  # fmt: skip


def cpu_name() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What a reader must know about the place the figures come from."""
    caches = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = _read(index / "type")
        caches[f"L{_read(index / 'level')} {kind.lower()}"] = _read(index / "size")
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "caches": caches,
        "kernel": platform.release(),
        "compiler": _output([compiler, "--version"]).partition("\n")[0],
        "python": f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})",
    }


def versions() -> dict[str, str]:
    installed = {found.name.lower().replace("_", "-"): found.version for found in distributions()}
    return {name: installed[name] for name in DISTRIBUTIONS if name in installed}


def run(suites: Iterable[str], rounds: int, only: str = "") -> dict[str, Any]:
    """A whole record, as JSON takes it."""
    data = Data()
    load_before = os.getloadavg()
    rows: list[Row] = []
    notes: list[str] = []
    captions: dict[str, str] = {}
    for name in suites:
        try:
            suite = import_module(f"benchmarks.bench_{name}")
            captions[suite.SUITE] = suite.CAPTION
            if hasattr(suite, "disagreements"):
                notes += suite.disagreements(data)
            for group, cases in groupby(suite.cases(data), key=lambda case: case.group):
                if only in group:
                    print(f"{name} {group}", file=sys.stderr, flush=True)
                    rows += interleave(cases, rounds)
            if hasattr(suite, "facts"):
                rows += suite.facts(data)
        except Exception as error:  # noqa: BLE001 - the figures of the other suites must not be lost with it
            data.skipped[f"suite {name}"] = f"{type(error).__name__}: {error}"
            print(f"{name}: {data.skipped[f'suite {name}']}", file=sys.stderr, flush=True)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": f"python -m benchmarks.run {' '.join(sys.argv[1:])}".strip(),
        "commit": _output(["git", "-C", str(HERE), "describe", "--always", "--dirty"]).strip(),
        "machine": machine(),
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "versions": versions(),
        "table": {"source": data.table.source, "prefixes": len(data.table)},
        "rounds": rounds,
        "skipped": data.skipped,
        "disagreements": notes,
        "captions": captions,
        "rows": [row.as_json() for row in rows],
    }


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("suites", nargs="*", default=SUITES, help=f"of {', '.join(SUITES)}; default all")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    parser.add_argument("--only", default="", help="time only groups whose name contains this text, for example v4_mix")
    parser.add_argument("--to", type=Path, help="record to write; default record/<date>-<cpu>.json")
    arguments = parser.parse_args()
    unknown = set(arguments.suites) - set(SUITES)
    if unknown:
        parser.error(f"suite {min(unknown)!r} is not one of {', '.join(SUITES)}")
    record = run(arguments.suites, arguments.rounds, arguments.only)
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(.*?\)", "", cpu_name()).lower()).strip("-")
    path = arguments.to or RECORD / f"{record['date'][:10]}-{slug}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(report.document(record))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
