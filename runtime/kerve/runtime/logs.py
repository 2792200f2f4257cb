"""Logging as text or JSON lines, with settings that can be changed at run time under Triton's names."""

import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, Literal, TextIO

from kerve.runtime.errors import InvalidArgumentError

__all__ = ["LogControl", "LogFormat"]

LogFormat = Literal["human", "json"]
LogValue = bool | int | str

# Triton's switches, and the highest level of the records that they enable.
SWITCHES = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
TYPES: Mapping[str, type] = {
    "log_file": str,
    "log_info": bool,
    "log_warning": bool,
    "log_error": bool,
    "log_verbose_level": int,
    "log_format": str,
}
# "default" is Triton's name for the text format.
FORMATS = ("default", "ISO8601", "json")


# A record is one line, whatever the names of models and requests contain: characters that start a new line or
# control a terminal are escaped.
CONTROLS = {
    code: repr(chr(code))[1:-1]
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029)
    if chr(code) != "\t"
}


class HumanFormatter(logging.Formatter):
    """One line of text per record; times in ISO 8601, UTC."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s%(of_requests)s", defaults={"of_requests": ""})

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, with the ids of its requests after the message."""
        if ids := getattr(record, "fields", {}).get("request_ids"):
            record.of_requests = f" (request {', '.join(ids)})"
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """Return the record's line without the traceback that may follow."""
        return super().formatMessage(record).translate(CONTROLS)


class JsonFormatter(logging.Formatter):
    """One JSON object per line; the fields of `extra={"fields": ...}` are added to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str)


class LogControl:
    """The log handler of the process."""

    def __init__(self, log_format: LogFormat = "human", *, stream: TextIO | None = None) -> None:
        self._settings: dict[str, LogValue] = {
            "log_file": "",
            "log_info": True,
            "log_warning": True,
            "log_error": True,
            "log_verbose_level": 0,
            "log_format": "json" if log_format == "json" else "default",
        }
        self._handler = logging.StreamHandler(stream or sys.stderr)
        self._handler.addFilter(self._wanted)
        self._apply()

    def install(self) -> None:
        """Install the handler on the root logger."""
        logging.root.addHandler(self._handler)

    def change(self, changes: Mapping[str, Any]) -> dict[str, LogValue]:
        """Change settings and return all of them; raises InvalidArgumentError if one is invalid."""
        for key, value in changes.items():
            self._check(key, value)
        self._settings.update(changes)
        self._apply()
        return dict(self._settings)

    def _check(self, key: str, value: object) -> None:
        if key not in TYPES:
            raise InvalidArgumentError(f"unknown log setting {key!r}; expected one of {', '.join(TYPES)}")
        if type(value) is not TYPES[key]:
            raise InvalidArgumentError(f"log setting {key!r}: expected {TYPES[key].__name__}, got {value!r}")
        if isinstance(value, int) and not 0 <= value < 2**32:
            raise InvalidArgumentError(f"log setting {key!r}: expected 0 to {2**32 - 1}, got {value}")
        if key == "log_format" and value not in FORMATS:
            raise InvalidArgumentError(f"log_format: expected one of {', '.join(FORMATS)}, got {value!r}")
        if key == "log_file" and value:
            raise InvalidArgumentError(
                "log_file: log file location can not be updated through network protocol: "
                "this server logs to standard error; redirect that instead"
            )

    def _apply(self) -> None:
        json_lines = self._settings["log_format"] == "json"
        self._handler.setFormatter(JsonFormatter() if json_lines else HumanFormatter())
        verbose = bool(self._settings["log_verbose_level"])
        logging.root.setLevel(logging.DEBUG if verbose else logging.INFO)

    def _wanted(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return bool(self._settings["log_verbose_level"])
        name = next((name for name, level in SWITCHES.items() if record.levelno <= level), "log_error")
        return bool(self._settings[name])
