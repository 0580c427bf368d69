"""Log correlation: trace_id, span_id and trace_flags in records of logging, structlog and loguru.

Names and forms are OpenTelemetry's for logs that are not OTLP. Without a trace context nothing is added: no zeros, no
"None", no id that nobody else has.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gobanfast._core.trace_context import current_ids

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from gobanfast.trace import TraceContext


def log_fields(context: TraceContext | None) -> dict[str, str]:
    """The fields of a context; none without ids."""
    if context is None or context.trace_id is None or context.span_id is None:
        return {}
    return {"trace_id": context.trace_id, "span_id": context.span_id, "trace_flags": context.trace_flags}


class TraceFilter(logging.Filter):
    """Filter of a handler that lets every record pass, with attributes for its formatter.

    A format that names them needs `logging.Formatter(..., defaults={"trace_id": "-"})`, for lines without a context.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """True."""
        if (ids := current_ids()) is not None:
            record.trace_id, record.span_id, record.trace_flags = ids
        return True


def structlog_processor(
    logger: object,  # noqa: ARG001 - structlog's signature
    method: str,  # noqa: ARG001
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """Processor of structlog: `structlog.configure(processors=[structlog_processor, ...])`."""
    if (ids := current_ids()) is not None:
        event["trace_id"], event["span_id"], event["trace_flags"] = ids
    return event


def loguru_patcher(record: MutableMapping[str, Any]) -> None:
    """Patcher of loguru, into `extra`: `logger.configure(patcher=loguru_patcher)`."""
    if (ids := current_ids()) is not None:
        extra = record["extra"]
        extra["trace_id"], extra["span_id"], extra["trace_flags"] = ids
