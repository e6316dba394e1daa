"""The log: one line an event, as JSON for machines or as text for people.

What a caller passes as `extra` becomes fields of the line. An `exception` is shown whole, in JSON
as one string, so that a traceback never spreads over several lines.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from typing import Literal, TextIO

import msgspec

Format = Literal["json", "text"]
LEVELS = ("debug", "info", "warning", "error")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(
    level: str = "info", line_format: Format = "json", stream: TextIO | None = None
) -> None:
    """Sends the log of the whole process to one stream; called again, it replaces what it set.

    Args:
        level: One of `LEVELS`; what is below it is not written.
        line_format: How a line looks.
        stream: Where to; standard error unless said otherwise.

    Raises:
        ValueError: There is no such level or format.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is not one of {', '.join(LEVELS)}")
    formatters: dict[str, type[logging.Formatter]] = {"json": JsonLines, "text": TextLines}
    if line_format not in formatters:
        raise ValueError(f"log format {line_format!r} is not one of {', '.join(formatters)}")
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(formatters[line_format]())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    _leave_out_what_no_line_shows()
    # gRPC tells its own story at every level; what matters of it, the driver logs itself.
    logging.getLogger("grpc").setLevel(logging.ERROR)
    logging.captureWarnings(True)


def _leave_out_what_no_line_shows() -> None:
    """Saves looking up the caller, the thread and the process of each event.

    "Optimization" in the Logging HOWTO of Python.
    """
    vars(logging)["_srcfile"] = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        line: dict[str, object] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            **_fields(record),
        }
        exception = _exception(self, record)
        if exception:
            line["exception"] = exception
        return _encode(line)


class TextLines(logging.Formatter):
    """Time, level and message, then the fields; a traceback follows, set in."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the lines of a record."""
        fields = _fields(record)
        exception = _exception(self, record) or fields.pop("exception", "")
        parts = [
            _timestamp(record),
            f"{record.levelname:<7}",
            record.name,
            _plain(record.getMessage()),
        ]
        parts += [f"{key}={_value(value)}" for key, value in fields.items()]
        lines = [" ".join(parts)]
        lines += [f"    {_plain(line)}" for line in str(exception).splitlines()]
        return "\n".join(lines)


def _timestamp(record: logging.LogRecord) -> str:
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""


def _encode(value: object) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=repr).decode()
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        # A name from the disk that is no UTF-8, or a value that is no data: better odd than lost.
        return msgspec.json.encode(_tame(value)).decode()


def _tame(value: object) -> object:
    if isinstance(value, dict):
        return {_utf8(str(key)): _tame(entry) for key, entry in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    return _utf8(value if isinstance(value, str) else repr(value))


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(text: str) -> str:
    """Writes control characters as escapes: no value may begin a line of its own."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _value(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable() and not set(value) & set(' "='):
        return value
    return _encode(value)
