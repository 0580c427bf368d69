"""Rewrites the tables of README.md from a record: `python -m benchmarks.readme [RECORD]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.report import find, newest_record, read_record, table

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
SUBJECTS = (
    "gobanfast lookup", "dict.get", "no-op call", "maxminddb-rust .get_path", "maxminddb C .get",
    "pytricia frozen .get", "pyasn.lookup", "py-radix search_best", "ipaddress + bisect",
)  # fmt: skip
GROUPS = ("v4_mix", "v4_zipf", "v6_mix", "v6_zipf")
HEADINGS = ("ns per lookup", "IPv4 mixed", "IPv4 Zipf", "IPv6 mixed", "IPv6 Zipf")
BATCHES = {"v4_mix uint32": "IPv4, uint32", "v6_mix 16 bytes": "IPv6, 16 bytes", "v4_mix str": "IPv4, list of str"}


def text(record: dict[str, Any], name: str) -> str:
    """What stands between the marks: where the figures come from, single lookups, batch lookups."""
    machine = record["machine"]
    lines = []
    for subject in SUBJECTS:
        rows = [find(record, "prefix", group, subject) for group in GROUPS]
        if any(rows):
            lines.append([subject, *(f"{row['median']:.0f}" if row else "-" for row in rows)])
    single = table(HEADINGS, lines)
    batches = [(label, find(record, "batch", group, "gobanfast lookup_many")) for group, label in BATCHES.items()]
    rates = [[label, f"{1e3 / row['median']:.0f}"] for label, row in batches if row]
    batch = "\n" + table(("`lookup_many`, one core", "million a second"), rates) if rates else ""
    source = (
        f"Medians of {record['rounds']} interleaved rounds over {record['table']['prefixes']:,} prefixes on "
        f"{machine['cpu']}, {machine['python'].partition(' (')[0]}, {record['date'][:10]}; "
        f"all figures: [benchmarks/record/{name}.md](benchmarks/record/{name}.md).\n"
    )
    return f"{source}\n{single}{batch}"


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
