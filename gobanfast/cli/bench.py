"""`gobanfast bench`: a quick measurement of lookups on this machine; the full suite is `make bench`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter_ns
from typing import Annotated

import typer

from gobanfast.cli.common import Asn, counted, load_asn, load_engine, output, table

ROUNDS = 7
SEED = 7
NAME = "www.shop.example"
HEADERS = [
    (b"host", NAME.encode()),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"upgrade-insecure-requests", b"1"),
    (b"sec-fetch-dest", b"document"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-site", b"none"),
]  # Firefox 144


def bench(
    rules: Annotated[
        Path | None,
        typer.Option(
            "--rules", "-r", exists=True, dir_okay=False, help="Rules to decide by; default: those of the demo."
        ),
    ] = None,
    asn: Asn = None,
    queries: Annotated[int, typer.Option(min=1_000, max=10_000_000, help="Addresses in a round.")] = 100_000,
) -> None:
    """Time lookups and decisions beside a dict and a call that does nothing.

    Decisions are timed twice: with the address alone, and with all that a browser's request says, which costs what the
    rules require. Indicative only: one process, no pinning, whatever else the machine does. `make bench` in the source
    tree measures with care, beside other libraries, and says how.
    """
    networks = load_asn(asn, rules)
    with as_file(files("gobanfast") / "demo" / "rules.yaml") as demo:
        engine = load_engine(rules or demo, networks)
    request = partial(engine.decide, sni=NAME, headers=HEADERS, method="GET", path="/")
    random = Random(SEED)
    packed = [random.getrandbits(32).to_bytes(4, "big") for _ in range(queries)]
    known = dict.fromkeys(_texts(packed), 1)
    timed: list[tuple[str, Callable[[str], object]]] = [
        ("no-op: callable(address), a built-in that only answers", callable),
        ("dict.get(address), all addresses in the dict", known.get),
        (f"AsnTable.lookup(address), {len(networks):,} prefixes", networks.lookup),
        (f"Engine.decide(address), {counted(len(engine.ruleset.rules), 'rule')}", engine.decide),
        (f"... with server name, method, path, {len(HEADERS)} headers", request),
    ]
    medians = [median(_nanoseconds(call, packed) for _ in range(ROUNDS)) / queries for _, call in timed]
    rows = [
        (name, f"{nanoseconds:.0f} ns", f"{nanoseconds / medians[1]:.2f}")
        for (name, _), nanoseconds in zip(timed, medians, strict=True)
    ]
    columns = ["call", "value", "dict.get = 1"]
    title = f"{queries:,} random IPv4 addresses, each a fresh str; median of {ROUNDS} rounds, loop included"
    output().print(table(title, columns, rows))
    typer.echo("Indicative only; `make bench` in the source tree measures with care and beside other libraries.")


def _texts(packed: list[bytes]) -> list[str]:
    return ["{}.{}.{}.{}".format(*address) for address in packed]


def _nanoseconds(call: Callable[[str], object], packed: list[bytes]) -> int:
    texts = _texts(packed)  # fresh: no cached hash, no identity with the dict's keys
    start = perf_counter_ns()
    for text in texts:
        call(text)
    return perf_counter_ns() - start
