"""Engine.decide: 100 rules over the whole routing table, one str in, one decision out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.bench_prefix import dict_get
from benchmarks.cases import Case, Data, Subject, str_case, timed
from benchmarks.rivals.gobanfast_asn import csv
from benchmarks.tables import SEED, data_folder

SUITE = "decide"
CAPTION = "Decisions: ns median (times the no-op call / times `dict.get`)"
GROUPS = ("v4_mix", "v4_zipf", "v6_mix", "v6_zipf")
WORDS = (
    "hosting", "cloud", "telecom", "university", "mobile", "data ?cent(er|re)", "vpn", "bank", "cable", "wireless",
    "^AS1[0-9]{3} ", "broadband", "research", "network solutions", "digital", "proxy", "satellite", "server", "energy",
    "media",
)  # fmt: skip


def rules(data: Data) -> str:
    """100 rules: 10 allow and 40 ban prefixes (4 each), 30 AS numbers (3 each), 20 a regex over AS names."""
    random = np.random.default_rng(SEED)
    prefixes = iter(random.permutation(len(data.table)).tolist())
    asns = iter(random.permutation(np.unique(data.table.values)).tolist())
    lines = ["rules:"]
    for number in range(100):
        if number < 50:
            named = ", ".join(f'"{data.table.texts[next(prefixes)]}"' for _ in range(4))
            action, when = ("allow" if number < 10 else "ban"), f"prefix: [{named}]"
        elif number < 80:
            action, when = "challenge", f"asn: [{', '.join(str(next(asns)) for _ in range(3))}]"
        else:
            action, when = "challenge", f'asn_name: ["{WORDS[number - 80]}"]'
        lines.append(f"  - {{id: rule-{number}, action: {action}, when: {{{when}}}}}")
    return "\n".join(lines) + "\n"


def engine(data: Data) -> Any:
    from gobanfast.asn import AsnTable
    from gobanfast.engine import Engine
    from gobanfast.rules import Ruleset

    folder = data_folder()
    table = AsnTable.from_csv(csv(data.table), names=folder / "asn-names.csv.gz" if folder else None)
    return Engine(Ruleset.from_text(rules(data), source="bench rules", asn=table))


def cases(data: Data) -> Iterator[Case]:
    found = engine(data)
    ours = {4: found.decide, 6: found.decide}
    for group in GROUPS:
        family, raw = int(group[1]), data.queries.raw(group)
        yield str_case(SUITE, group, dict_get(data, group), family, raw)
        for subject in data.subjects:
            if subject.kind == "yardstick" and not subject.slow:
                yield str_case(SUITE, group, subject, family, raw)
        yield str_case(SUITE, group, Subject("gobanfast Engine.decide", "ours", "a Decision", ours), family, raw)


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
