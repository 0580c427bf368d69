"""A block list of 383,000 IPv4 prefixes asked with `in`; a tenth of the queries is on the list."""

from __future__ import annotations

from collections.abc import Iterator
from socket import inet_aton
from typing import Any

import numpy as np

from benchmarks.bench_prefix import dict_get
from benchmarks.cases import Case, Data, Row, Subject, contains_each, str_case, timed
from benchmarks.tables import QUERIES, SEED, Queries, from_rows

SUITE = "set"
CAPTION = "Block list as a set, `in`: ns median (times the no-op call / times `dict.get`)"
GROUP = "v4 blocklist"


def cases(data: Data) -> Iterator[Case]:
    raw = _queries(data)
    for subject in data.subjects:
        if subject.kind == "yardstick" and not subject.slow:
            yield str_case(SUITE, GROUP, subject, 4, raw)
    yield str_case(SUITE, GROUP, dict_get(data, "v4_mix"), 4, data.queries.raw("v4_mix"))
    for subject in _subjects(data):
        yield str_case(SUITE, GROUP, subject, 4, raw)


def facts(data: Data) -> list[Row]:
    return [Row(SUITE, "bytes", "gobanfast in", "ours", "bytes", [float(_ours(data.block_list).targets[4].nbytes)])]


def _queries(data: Data) -> list[bytes]:
    listed = from_rows("block list", [(prefix, 1) for prefix in data.block_list])
    asked = data.queries.packed("v4_uniform").copy()
    asked[: QUERIES // 10] = Queries(listed).packed("v4_prefix")[: QUERIES // 10]
    shuffled = np.random.default_rng(SEED).permutation(asked)
    queries = Queries(listed, QUERIES, {"v4_block": shuffled})
    return queries.raw("v4_block")


def _subjects(data: Data) -> Iterator[Subject]:
    for build in (_ours, _pytricia, _pysubnettree, _pyroaring, _set_of_str):
        try:
            yield build(data.block_list)
        except ImportError as error:
            data.skipped[f"set {build.__name__.strip('_')}"] = str(error)


def _ours(prefixes: list[str]) -> Subject:
    from gobanfast import PrefixSet

    return Subject("gobanfast in", "ours", "bool", {4: PrefixSet(prefixes)}, contains_each)


def _pytricia(prefixes: list[str]) -> Subject:
    from pytricia import PyTricia

    tree = PyTricia(32)
    for prefix in prefixes:
        tree[prefix] = 1
    tree.freeze()
    return Subject("pytricia frozen in", "peer", "bool", {4: tree}, contains_each)


def _pysubnettree(prefixes: list[str]) -> Subject:
    from SubnetTree import SubnetTree

    tree = SubnetTree()
    for prefix in prefixes:
        tree[prefix] = 1
    return Subject("pysubnettree in", "peer", "bool", {4: tree}, contains_each)


def _pyroaring(prefixes: list[str]) -> Subject:
    from pyroaring import BitMap

    bitmap = BitMap()
    for prefix in prefixes:
        address, _, bits = prefix.partition("/")
        start = int.from_bytes(inet_aton(address))
        bitmap.add_range(start, start + (1 << (32 - int(bits))))
    bitmap.run_optimize()

    def each(bitmap: Any, texts: list[str]) -> None:
        parse, to_int = inet_aton, int.from_bytes
        for text in texts:
            to_int(parse(text)) in bitmap  # noqa: B015

    return Subject("pyroaring in, through inet_aton", "peer", "bool", {4: bitmap}, each)


def _set_of_str(prefixes: list[str]) -> Subject:
    hosts = {prefix[:-3] for prefix in prefixes if prefix.endswith("/32")}
    return Subject("set of str in, single addresses only", "peer", "bool", {4: hosts}, contains_each)


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
