"""Rewrites the tables of README.md from a record: `python -m benchmarks.readme [RECORD]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.report import find, newest_record, read_record, table

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
WEB = {
    "bare": "no middleware",
    "gobanfast": "gobanfast: trackers, score",
    "Starlette CORSMiddleware": "Starlette CORSMiddleware",
    "slowapi": "slowapi",
    "Starlette BaseHTTPMiddleware, no-op": "Starlette BaseHTTPMiddleware that does nothing",
    "fastapi-guard": "fastapi-guard",
}
SERVERS = {"asgi": "ASGI", "fastapi": "FastAPI", "wsgi": "WSGI"}


def text(record: dict[str, Any], name: str) -> str:
    """What stands between the marks: where the figures come from, whole requests, single calls."""
    machine = record["machine"]
    lines = []
    for subject, label in WEB.items():
        rows = [find(record, "http", group, subject) for group in SERVERS]
        lines.append([label, *(f"{row['median'] / 1e3:.1f}" if row else "-" for row in rows)])
    web = table(("µs for a whole request of 13 headers", *SERVERS.values()), lines)
    calls = [
        ("one `decide` (100 rules, 100,000 bans, trackers, score)", "engine", "full triple", "gobanfast decide"),
        ("the AS of an address, whole Internet table", "prefix", "v4_mix", "gobanfast lookup"),
        ("the same address in a `dict`", "prefix", "v4_mix", "dict.get"),
        ("in pytricia", "prefix", "v4_mix", "pytricia frozen .get"),
    ]
    told = "; ".join(f"{label} {row['median']:.0f} ns" for label, *where in calls if (row := find(record, *where)))
    source = (
        f"`{record['command']}`: medians of {record['rounds']} interleaved rounds on {machine['cpu']}, "
        f"{machine['python'].partition(' (')[0]}, {record['date'][:10]}; "
        f"all figures: [benchmarks/record/{name}.md](benchmarks/record/{name}.md).\n"
    )
    return f"{source}\n{web}\nSingle calls: {told}.\n"


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else newest_record()
    readme = README.read_text()
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise SystemExit(f"README.md: the marks {START} and {END} are missing")
    README.write_text(f"{before}{START}\n{text(read_record(path), path.stem)}{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
