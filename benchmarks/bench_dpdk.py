"""DPDK beside the batch suite, in a process of its own: its kernels take turns with each other, not with ours."""

from __future__ import annotations

from benchmarks.bench_batch import CAPTION, PACKED4, SUITE
from benchmarks.cases import Case, Data, Row
from benchmarks.rivals import dpdk
from benchmarks.tables import BATCH, Queries

__all__ = ["CAPTION", "SUITE"]  # its rows stand in the tables of the batch suite


def cases(data: Data) -> list[Case]:
    return []  # nothing of it can be called from Python


def facts(data: Data) -> list[Row]:
    rows, reason = dpdk.measure(data.table, Queries(data.table, BATCH), PACKED4)
    if reason:
        data.skipped["dpdk"] = reason
    return rows
