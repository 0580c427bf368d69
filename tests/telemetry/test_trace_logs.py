"""Log correlation: three fields where there is a trace context, and nothing where there is none."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest

from gobanfast.telemetry.trace_logs import TraceFilter, log_fields, loguru_patcher, structlog_processor
from gobanfast.trace import TraceContext, extract, use

CONTEXT = TraceContext("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7", sampled=True, random=True)
FIELDS = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "00f067aa0ba902b7", "trace_flags": "03"}
WITHOUT = [None, extract({"b3": "1"}), extract({"baggage": "a=1"})]


def by_logging() -> dict[str, Any]:
    record = logging.LogRecord("a", logging.INFO, __file__, 1, "text", None, None)
    assert TraceFilter().filter(record) is True
    return {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}


def by_structlog() -> dict[str, Any]:
    event: dict[str, Any] = {"event": "text"}
    found = dict(structlog_processor(None, "info", event))
    assert "text" == found.pop("event")
    return found


def by_loguru() -> dict[str, Any]:
    record: dict[str, Any] = {"message": "text", "extra": {"own": 1}}
    loguru_patcher(record)
    assert 1 == record["extra"].pop("own")
    return dict(record["extra"])


@pytest.mark.parametrize("way", [by_logging, by_structlog, by_loguru])
def test_fields_are_those_of_the_context(way: Any) -> None:
    """The same three of all ways, texts in lower-case hex; none without ids."""
    with use(CONTEXT):
        assert FIELDS == way() == log_fields(CONTEXT)
    for context in WITHOUT:
        with use(context):
            assert {} == way() == log_fields(context)


def test_a_handler_writes_them() -> None:
    """As the docstring says: the filter at a handler, defaults in its formatter."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(TraceFilter())
    handler.setFormatter(
        logging.Formatter("%(trace_id)s %(trace_flags)s %(message)s", defaults=dict.fromkeys(FIELDS, "-"))
    )
    logger = logging.Logger("trace")  # noqa: LOG001 - of no tree
    logger.addHandler(handler)
    with use(CONTEXT):
        logger.info("inside")
    logger.info("outside")

    assert f"{FIELDS['trace_id']} 03 inside\n- - outside\n" == out.getvalue()


def test_real_structlog() -> None:
    """In its chain of processors, where it is installed."""
    structlog = pytest.importorskip("structlog")
    out = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(out), processors=[structlog_processor, structlog.processors.JSONRenderer(sort_keys=True)]
    )
    with use(CONTEXT):
        logger.info("inside")

    assert '{"event": "inside", "span_id": "00f067aa0ba902b7", "trace_flags": "03", ' in out.getvalue()


def test_real_loguru() -> None:
    """As its patcher, where it is installed."""
    loguru = pytest.importorskip("loguru")
    lines: list[str] = []
    logger = loguru.logger.patch(loguru_patcher)
    number = loguru.logger.add(lines.append, format="{extra[trace_id]} {message}")
    try:
        with use(CONTEXT):
            logger.info("inside")
    finally:
        loguru.logger.remove(number)

    assert [f"{FIELDS['trace_id']} inside\n"] == lines
