"""Engine.decide_many, one core: a million rows of addresses, then with names, then with fingerprints as well.

100 rules over the whole routing table, as in bench_decide; with names 40 more that require names, and with fingerprints
40 more that ask for those. Names and fingerprints are Zipf. The peer is what is there without columns: one call a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.bench_decide import rules
from benchmarks.cases import Case, Data, Kind, timed
from benchmarks.rivals.gobanfast_asn import csv
from benchmarks.tables import BATCH, SEED, Queries, data_folder

SUITE = "columns"
CAPTION = "Columns of requests: ns a row, median"
NAMES, FINGERPRINTS, SOME, ROWS = 20_000, 5_000, 50_000, 20_000


def zipf(random: np.random.Generator, values: int) -> np.ndarray[Any, Any]:
    """BATCH indexes below `values`."""
    return np.minimum(random.zipf(1.2, BATCH) - 1, values - 1)


def names() -> list[str]:
    return [f"{'www' if i % 3 else 'api'}.site{i}.{'example' if i % 2 else 'test'}" for i in range(NAMES)]


def fingerprint_pool() -> np.ndarray[Any, Any]:
    return np.frombuffer(np.random.default_rng(SEED).bytes(16 * FINGERPRINTS), "V16")


def engine(data: Data, *, signals: int) -> Any:
    """Rules on addresses; with 1 on names, too; with 2 also on fingerprints."""
    from gobanfast import AsnTable, Engine, Ruleset

    text = rules(data)
    for i in range(40 * (signals > 0)):
        text += f"  - {{id: name-{i}, action: challenge, when: {{sni: ['*.site{i}.example', '.site{i * 7}.test']}}}}\n"
    for i in range(40 * (signals > 1)):
        text += (
            f"  - {{id: print-{i}, action: ban, when: {{fingerprint: 'gh2:{bytes(fingerprint_pool()[i]).hex()}'}}}}\n"
        )
    folder = data_folder()
    table = AsnTable.from_csv(csv(data.table), names=folder / "asn-names.csv.gz" if folder else None)
    return Engine(Ruleset.from_text(text, source="bench rules", asn=table))


def cases(data: Data) -> Iterator[Case]:
    import pyarrow as pa

    random = np.random.default_rng(SEED)
    queries = Queries(data.table, BATCH)
    addresses, texts = queries.uint32("v4_mix"), [raw.decode() for raw in queries.raw("v4_mix")[:SOME]]
    listed = np.array(names(), object)[zipf(random, NAMES)]
    fingerprints = fingerprint_pool()[zipf(random, FINGERPRINTS)]
    column = pa.array(listed)
    alone, named, whole = (engine(data, signals=signals) for signals in range(3))

    def case(group: str, name: str, count: int, run: Callable[[None], object], kind: Kind = "ours") -> Case:
        def warm() -> None:
            run(None)

        return Case(SUITE, group, name, kind, count, warm, run, "Columns" if kind == "ours" else "Decisions")

    def one_by_one(_: None) -> None:
        for text in texts:
            alone.peek(text)

    def one_by_one_named(_: None) -> None:
        for text, name in zip(texts, listed, strict=False):
            named.peek(text, sni=name)

    def replayed(_: None) -> None:
        whole.replay(texts[:ROWS], times=np.zeros(ROWS), sni=column[:ROWS])

    yield case("v4", "gobanfast decide_many", BATCH, lambda _: alone.decide_many(addresses))
    yield case("v4", "gobanfast peek, one by one", SOME, one_by_one, "peer")
    yield case("v4, sni", "gobanfast decide_many", BATCH, lambda _: named.decide_many(addresses, sni=column))
    yield case("v4, sni", "gobanfast peek, one by one", SOME, one_by_one_named, "peer")
    yield case("v4, sni", "gobanfast replay", ROWS, replayed)
    yield case(
        "v4, sni, fingerprint", "gobanfast decide_many", BATCH,
        lambda _: whole.decide_many(addresses, sni=column, fingerprint=fingerprints),
    )  # fmt: skip


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
