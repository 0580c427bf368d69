"""Arrow columns out and in: equal to plain lists, whatever form they have, with nulls everywhere."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast._core import arrow_data
from gobanfast.asn import AsnTable
from gobanfast.batch.arrow import ArrowColumn, ArrowStream, ArrowTable, as_name_column, numbers, texts
from gobanfast.engine import Engine
from gobanfast.rules import Ruleset

pa = pytest.importorskip("pyarrow")

RULES = """
rules:
- {id: bad, when: {prefix: 203.0.113.0/24}, action: ban}
- {id: tool, when: {header: {user-agent: {contains: sqlmap}}}, action: ban}
- {id: shop, when: {sni: "*.shop.example"}, action: challenge}
share:
- {id: app, when: {path: "/api/**", origin: "https://app.example.com"}, action: grant}
"""
ADDRESSES = ["203.0.113.9", "8.8.8.8", "2001:db8::1", "x", None]
AGENTS = ["sqlmap/1", "curl", "", None]
NAMES = ["a.shop.example", "b", None]

FORMS: dict[str, Callable[[list[Any]], Any]] = {
    "string": lambda items: pa.array(items, pa.string()),
    "large": lambda items: pa.array(items, pa.large_string()),
    "view": lambda items: pa.array(items, pa.string_view()),
    "dictionary": lambda items: pa.array(items, pa.string()).dictionary_encode(),
    "narrow": lambda items: pa.array(items, pa.dictionary(pa.int8(), pa.large_string())),
    "sliced": lambda items: pa.array(["cut", *items], pa.string()).dictionary_encode().slice(1),
    "chunked": lambda items: pa.chunked_array([pa.array(items[:2], pa.string()), pa.array(items[2:], pa.string())]),
    "chunked dictionary": lambda items: pa.chunked_array([
        pa.array(items[:3], pa.string()).dictionary_encode(), pa.array(items[3:], pa.string()).dictionary_encode(),
    ]),
    "empty chunks": lambda items: pa.chunked_array([pa.array([], pa.string()), pa.array(items, pa.string())]),
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path: Path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(RULES)
    return Engine(Ruleset.load(path, asn=AsnTable.starter()))


rows = st.lists(st.tuples(st.sampled_from(ADDRESSES), st.sampled_from(AGENTS), st.sampled_from(NAMES)), max_size=20)


@settings(deadline=None)
@given(rows, st.sampled_from(sorted(FORMS)), st.sampled_from(sorted(FORMS)), st.sampled_from(sorted(FORMS)))
def test_every_form_decides_alike(engine: Engine, table: list[Any], one: str, two: str, three: str) -> None:
    """Strings, views, dictionaries and chunks of each are the lists they hold; the answers come out as Arrow."""
    ip, agent, sni = ([row[which] for row in table] for which in range(3))
    expected = engine.decide_many(ip, sni=sni, headers={"user-agent": agent})
    made = engine.decide_many(FORMS[one](ip), sni=FORMS[three](sni), headers={"user-agent": FORMS[two](agent)})

    for name in ("action", "rule", "asn", "cause", "share"):
        assert getattr(expected, name).tolist() == getattr(made, name).tolist()
    out = pa.table(made)
    out.validate(full=True)
    rules = [rule.id for rule in engine.compiled.rules]
    assert out["action"].to_pylist() == [("allow", "challenge", "limit", "ban")[each] for each in made.action.tolist()]
    assert out["rule"].to_pylist() == [None if each == 0xFFFFFFFF else rules[each] for each in made.rule.tolist()]
    assert out["asn"].to_pylist() == [each or None for each in made.asn.tolist()]
    assert pa.record_batch(made).to_pylist() == out.to_pylist()


def test_columns_that_are_all_null(engine: Engine) -> None:
    """A column of type null is one of absent values."""
    made = engine.decide_many(pa.array(["8.8.8.8"] * 3), sni=pa.nulls(3), headers={"user-agent": pa.nulls(3)})

    assert {"allow": 3, "challenge": 0, "limit": 0, "ban": 0} == made.actions()
    assert ["unparsable"] * 2 == pa.table(engine.decide_many(pa.nulls(2)))["cause"].to_pylist()


def test_other_engines_take_it(engine: Engine) -> None:
    """Polars and DuckDB read the same answers through the same interface."""
    pl = pytest.importorskip("polars")
    made = engine.decide_many(["203.0.113.9", "8.8.8.8"], headers={"user-agent": ["x", "y"]})

    assert ["ban", "allow"] == pl.DataFrame(made)["action"].to_list()
    assert ["bad", None] == pl.DataFrame(made)["rule"].to_list()
    duckdb = pytest.importorskip("duckdb")
    answers = pa.table(made)
    assert [("allow", 1), ("ban", 1)] == duckdb.connect().from_arrow(answers).aggregate("action, count(*)").order(
        "action"
    ).fetchall()


def test_memory_is_borrowed_and_kept() -> None:
    """An array outlives what it was made of, and has the very same memory."""
    values = np.arange(5, dtype=np.uint32)
    array = pa.array(ArrowColumn(numbers("n", values)))
    assert values.ctypes.data == array.buffers()[1].address
    table = pa.table(ArrowTable([numbers("n", values), numbers("t", values % 2, values > 1, texts("", ["a", "é"]))], 5))
    del values
    gc.collect()
    assert [0, 1, 2, 3, 4] == array.to_pylist() == table["n"].to_pylist()
    assert [None, None, "a", "é", "a"] == table["t"].to_pylist()


def test_streams() -> None:
    """Tables one after the other; an error on the way reaches whoever reads."""

    def tables(broken: bool) -> Any:
        for first in (0, 2):
            yield ArrowTable([numbers("n", np.arange(first, first + 2))], 2)
        if broken:
            raise ValueError("no more")

    assert [0, 1, 2, 3] == pa.RecordBatchReader.from_stream(ArrowStream(tables(False))).read_all()["n"].to_pylist()
    with pytest.raises((OSError, pa.ArrowInvalid), match="ValueError: no more"):
        pa.RecordBatchReader.from_stream(ArrowStream(tables(True))).read_all()
    with pytest.raises(ValueError, match="no table"):
        ArrowStream([])


def test_names_of_networks() -> None:
    """One name for each distinct AS, null where there is none."""
    column = ArrowColumn(
        as_name_column("as_name", np.array([15169, 0, 4_200_000_000, 15169], np.uint32), AsnTable.starter())
    )

    array = pa.array(column)
    assert [AsnTable.starter().name(15169), None, None, AsnTable.starter().name(15169)] == array.to_pylist()
    assert 4 == len(column)


def test_bad_dictionaries() -> None:
    """An index outside the dictionary and values that are no strings are errors; other types are not taken."""
    broken = pa.DictionaryArray.from_arrays(pa.array([0, 5], pa.int8()), pa.array(["a"]), safe=False)
    with pytest.raises(ValueError, match="row 1 has index 5 in a dictionary of 1 values"):
        arrow_data.coded(broken, 2)
    with pytest.raises(TypeError, match="holds no strings; cast it to string"):
        arrow_data.coded(pa.array([5, 6]).dictionary_encode(), 2)
    with pytest.raises(ValueError, match="more rows than 1"):
        arrow_data.coded(pa.array(["a", "b"]).dictionary_encode(), 1)
    with pytest.raises(ValueError, match="2 items for 3 rows"):
        arrow_data.coded(pa.array(["a", "b"]).dictionary_encode(), 3)
    assert arrow_data.coded(pa.array(["a"]), 1) is None
    assert arrow_data.coded(["a"], 1) is None
