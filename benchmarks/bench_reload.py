"""What new rules cost: a million names and a million prefixes read, or opened compiled, and the swap under load."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case, Data, Row, timed
from benchmarks.tables import CACHE, SEED, data_folder

SUITE = "reload"
CAPTION = "Reload of 1M names and 1M prefixes, and decisions while rules are swapped: median (best)"
BIG = "1M names, 1M prefixes"
SWAP = "decide, 100 swaps beside it"
NAMES = 1_000_000
SWAPS = 100
ROUNDS = 5
LABELS = ("com", "net", "org", "example", "co.uk", "info")


def cases(data: Data) -> Iterator[Case]:
    from gobanfast import Engine, Ruleset

    rules = write_rules(data)
    compiled = rules.with_suffix(".gbf")
    Ruleset.load(rules).save(compiled)

    def serve(verify: bool) -> None:
        from gobanfast.rules import ruleset_file

        Engine(ruleset_file.load(compiled, Ruleset, verify=verify)).decide("192.0.2.1", sni="www.example.com")

    yield _once("YAML and lists, compiled", lambda: Ruleset.load(rules))
    yield _once("rules.gbf, to the first decision", lambda: serve(True))
    yield _once("rules.gbf, to the first decision, hashes not checked", lambda: serve(False))


def write_rules(data: Data) -> Path:
    """Path of rules over two list files: blocked names (with GOBANFAST_DATA real ones), all prefixes of the table."""
    folder = CACHE / "reload"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "names.txt").write_text("\n".join(blocked_names()))
    (folder / "prefixes.txt").write_text("\n".join(data.table.texts))
    rules = folder / "rules.yaml"
    rules.write_text(
        "rules:\n"
        "- {id: names, when: {sni_file: names.txt}, action: ban}\n"
        "- {id: prefixes, when: {prefix_file: prefixes.txt}, action: challenge}\n"
    )
    return rules


def blocked_names() -> list[str]:
    folder = data_folder()
    if folder is not None:
        with gzip.open(folder / "block-names.txt.gz", "rt") as lines:
            return lines.read().split("\n")
    random = np.random.default_rng(SEED)
    words = random.integers(0, 1 << 48, NAMES).tolist()
    return [f"{word:x}.{LABELS[word % len(LABELS)]}" for word in words]


def _once(name: str, run: Any) -> Case:
    return Case(SUITE, BIG, name, "ours", 1, lambda: None, lambda _: run())


def facts(data: Data) -> list[Row]:
    """Size of the file; and of single decisions, by the wall clock, the 99.9th percentile with swaps and without."""
    rules = write_rules(data)
    rows = [Row(SUITE, BIG, "rules.gbf", "ours", "bytes", [float(rules.with_suffix(".gbf").stat().st_size)])]
    quiet, swapped = [], []
    for _ in range(ROUNDS):  # interleaved, so that both meet the same neighbours
        quiet.append(tail(swaps=False))
        swapped.append(tail(swaps=True))
    rows.append(Row(SUITE, SWAP, "p99.9 without swaps", "yardstick", "ns", quiet))
    rows.append(Row(SUITE, SWAP, "p99.9 with swaps", "ours", "ns", swapped))
    added = [with_swaps - without for with_swaps, without in zip(swapped, quiet, strict=True)]
    rows.append(Row(SUITE, SWAP, "added by swaps at p99.9", "ours", "ns", added))
    return rows


def tail(*, swaps: bool) -> float:
    """The 99.9th percentile of the time of one decision, ns, while another thread swaps rulesets or sleeps as often."""
    from gobanfast import Engine, Ruleset

    rulesets = [
        Ruleset.from_text(f"rules: [{{id: a, when: {{prefix: 192.0.2.0/24}}, action: {action}}}]")
        for action in ("ban", "challenge")
    ]
    engine = Engine(rulesets[0])
    done = threading.Event()

    def swapper() -> None:
        for number in range(SWAPS):
            time.sleep(0.005)
            if swaps:
                engine.swap(rulesets[number % 2])
        done.set()

    thread = threading.Thread(target=swapper)
    spent: list[int] = []
    clock = time.perf_counter_ns
    thread.start()
    while not done.is_set():
        for _ in range(1000):
            begun = clock()
            engine.decide("192.0.2.1")
            spent.append(clock() - begun)
    thread.join()
    return float(np.percentile(np.array(spent), 99.9))


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
