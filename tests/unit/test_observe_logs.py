"""The log's two formats, and what no record may do to them."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.observe.logs import Format, JsonLines, TextLines, configure_logging


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    root, grpc = logging.getLogger(), logging.getLogger("grpc")
    handlers, level, grpc_level = root.handlers[:], root.level, grpc.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    grpc.setLevel(grpc_level)
    logging.captureWarnings(False)


def configured(level: str = "info", line_format: Format = "json") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level, line_format, stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("csi.test", logging.INFO, __file__, 1, message, None, None)
    vars(made).update(fields)
    return made


def test_json() -> None:
    stream = configured()
    logging.getLogger("csi.rpc").info(
        "%s OK", "Probe", extra={"method": "Probe", "duration_ms": 0.5, "request": {"a": [1]}}
    )
    (line,) = lines(stream)
    moment = dt.datetime.fromisoformat(line.pop("ts"))
    assert moment.utcoffset() == dt.timedelta(0)
    assert abs((dt.datetime.now(dt.UTC) - moment).total_seconds()) < 60
    assert line == {
        "level": "info",
        "logger": "csi.rpc",
        "msg": "Probe OK",
        "method": "Probe",
        "duration_ms": 0.5,
        "request": {"a": [1]},
    }


def test_the_time_has_its_fraction_even_when_it_is_zero() -> None:
    line = json.loads(JsonLines().format(record("x", created=1_700_000_000.0)))
    assert line["ts"] == "2023-11-14T22:13:20.000000Z"


def test_a_traceback_is_one_string_in_one_line() -> None:
    stream = configured()
    try:
        int("odd")
    except ValueError:
        logging.getLogger("csi").exception("failed")
    assert stream.getvalue().count("\n") == 1
    (line,) = lines(stream)
    assert line["msg"] == "failed"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: invalid literal for int() with base 10: 'odd'")


def test_text() -> None:
    made = record(
        "staged", created=1_700_000_000.25, volume_id="vol-1", reason='two "words"', count=3
    )
    assert TextLines().format(made) == (
        "2023-11-14T22:13:20.250000Z INFO    csi.test staged "
        'volume_id=vol-1 reason="two \\"words\\"" count=3'
    )


@pytest.mark.parametrize("given_as", ["exc_info", "field"])
def test_a_traceback_in_text_is_set_in(given_as: str) -> None:
    made = record("failed", count=1)
    if given_as == "field":
        vars(made)["exception"] = "Traceback:\n  odd\x1b[2J"
    else:
        error = ValueError("odd\x1b[2J")
        made.exc_info = (ValueError, error, None)
    first, *rest = TextLines().format(made).split("\n")
    assert first.endswith("failed count=1")
    assert all(line.startswith("    ") for line in rest)
    assert rest[-1].endswith(r"odd\x1b[2J")


@pytest.mark.parametrize("line_format", ["json", "text"])
@pytest.mark.parametrize("text", ["a\nb", "\r\n", "\x1b[31m", "\u2028", "\x85", "\udcff", ""])
def test_no_value_begins_a_line_of_its_own(line_format: Format, text: str) -> None:
    stream = configured(line_format=line_format)
    logging.getLogger("csi").warning(
        "name %s", text, extra={"volume_name": text, "n": {text: text}}
    )
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert "\x1b" not in written
    assert "\r" not in written


@given(st.text(), st.dictionaries(st.text(), st.text() | st.floats() | st.binary()))
def test_every_record_can_be_written(text: str, value: dict[str, object]) -> None:
    made = record("%", value=value, text=text, thing=object(), error=ValueError(text))
    made.msg = text.replace("%", "%%")
    line = json.loads(JsonLines().format(made))
    assert line["logger"] == "csi.test"
    assert "\n" not in TextLines().format(made)


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(level: str, shown: list[str]) -> None:
    stream = configured(level)
    for method in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("csi"), method)("x")
    assert [line["level"] for line in lines(stream)] == shown


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ValueError, match="log level 'loud' is not one of debug, info"):
        configure_logging("loud")
    with pytest.raises(ValueError, match="log format 'xml' is not one of json, text"):
        configure_logging("info", "xml")  # type: ignore[arg-type]


def test_a_second_call_replaces_the_first() -> None:
    first, second = configured(), configured()
    logging.getLogger("csi").info("x")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


def test_the_default_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logging.getLogger("csi").info("x")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["msg"] == "x"


def test_grpc_is_kept_quiet() -> None:
    stream = configured("debug")
    logging.getLogger("grpc._server").warning("noise")
    logging.getLogger("grpc").error("trouble")
    assert [line["msg"] for line in lines(stream)] == ["trouble"]


def test_warnings_are_lines_too() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", stacklevel=1)
        logging.captureWarnings(False)
    (line,) = lines(stream)
    assert line["level"] == "warning"
    assert "old" in line["msg"]
