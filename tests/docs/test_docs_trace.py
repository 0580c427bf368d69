"""What docs/trace.md shows runs, and does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gobanfast import trace

PAGE = (Path(__file__).parents[2] / "docs" / "trace.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EXAMPLES = [block for block in BLOCKS if "opentelemetry" not in block]


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the examples leave behind, run in the order of the page."""
    found: dict[str, Any] = {}
    for example in EXAMPLES:
        exec(example, found)  # noqa: S102
    return found


def test_examples_do_what_they_say(names: dict[str, Any]) -> None:
    """Same trace, another parent; the envelope, the pool, the links and the handler."""
    sent = trace.extract(names["outgoing"])
    context = names["context"]

    assert 5 == len(EXAMPLES)
    assert sent is not None
    assert "4bf92f3577b34da6a3ce929d0e0e4736" == sent.trace_id == context.trace_id
    assert ("congo=t61", True) == (sent.tracestate, sent.sampled)
    assert len({sent.span_id, context.span_id, "00f067aa0ba902b7"}) == 3
    assert (context.trace_id, {"order": 3}) == (names["parent"].trace_id, names["body"])
    assert context is names["future"].result() is names["call"]()
    assert [context.trace_id] == [link.trace_id for link in names["links"]]
    assert 1 == len(names["handler"].filters)


def test_attributes_are_those_of_a_context() -> None:
    """The table names every property."""
    rows = re.findall(r"^\| (`.*?) \| [^|]*\|$", PAGE.partition("## What counts")[0], re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)(?:\(\w+\))?`", row)}
    methods = {"child", "start", "state", "with_baggage", "with_state", "with_threshold"}

    assert told - {"state"} == {name for name in dir(trace.TraceContext) if not name.startswith("_")} - methods


def test_public_names_are_on_the_page() -> None:
    """Each function and class of the module."""
    missing = [name for name in trace.__all__ if not name.isupper() and f"{name}" not in PAGE]

    assert [] == missing


def test_opentelemetry_example() -> None:
    """The plug-ins are where the page puts them."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.propagate import get_global_textmap, set_global_textmap

    before = get_global_textmap()
    found: dict[str, Any] = {}
    try:
        for block in BLOCKS:
            if block not in EXAMPLES:
                exec(block, found)  # noqa: S102
        assert type(get_global_textmap()) is found["GobanfastPropagator"]
        assert found["provider"].sampler.get_description() == "GobanfastSampler{0.01}"
    finally:
        set_global_textmap(before)
        found["provider"].shutdown()
