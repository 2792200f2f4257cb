"""The access log: one line for each request, in the format of the log."""

import json
import logging
import re
from collections.abc import Sequence

from kerve.runtime.errors import Code
from kerve.runtime.observation.observer import TRACE_PARENT, Observation

__all__ = ["AccessLog"]

log = logging.getLogger("kerve.access")

# Values that need no quotes.
WORD = re.compile(r'[^\s"=]+')


class AccessLog:
    """Writes a line for every request, with the time of its response."""

    everything = True
    traced = None

    def notify(self, observations: Sequence[Observation]) -> None:
        """Write their lines."""
        if not log.isEnabledFor(logging.INFO):
            return
        for each in observations:
            log.handle(record(each))

    def close(self) -> None:
        """Do nothing."""


def record(each: Observation) -> logging.LogRecord:
    """Return the log record of a request: as text in its message, for JSON in its fields."""
    fields: dict[str, object] = {
        "request_id": each.request_id,
        "method": each.method.removeprefix("/"),
        "model": each.model,
        "version": each.version,
        "rows": each.rows,
        "batch": each.batch,
        "code": Code(each.code).name,
        "queue_ms": milliseconds(each.queued),
        "compute_ms": milliseconds(each.computed),
        "total_ms": milliseconds(each.total),
        "peer": each.peer,
    }
    # The caller of a traced request may have sent an invalid `traceparent`.
    if each.sampled and (parent := TRACE_PARENT.fullmatch(each.trace_parent)) is not None:
        fields["trace_id"] = parent["trace"]
    shown = " ".join(f"{key}={plain(value)}" for key, value in fields.items() if value not in ("", None))
    ended = (each.arrived + each.total) / 1e9
    return logging.makeLogRecord(
        {
            "name": log.name,
            "levelno": logging.INFO,
            "levelname": "INFO",
            "msg": f"request {shown}",
            "created": ended,
            "msecs": int(ended * 1000) % 1000,
            "fields": fields,
        }
    )


def milliseconds(nanoseconds: int | None) -> float | None:
    """Convert a duration to milliseconds."""
    return None if nanoseconds is None else round(nanoseconds / 1e6, 3)


def plain(value: object) -> str:
    """Return a value as one word, quoted if needed: clients' values could be mistaken for other fields."""
    text = str(value)
    return text if WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)
