import io
import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from kkdcpd.config import LogConfig
from kkdcpd.log import configure_logging
from tests.frontends.site import parse_line

logger = logging.getLogger("kkdcpd.test")

HOSTILE = (
    "",
    " ",
    "a b",
    "a=b",
    'a"b',
    "a\\b",
    "a\\nb",
    "a\nb",
    "a\r\nb",
    "\x00",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\x9b31m",
    "\u2028\u2029",
    "\u202e",
    "\ud800",
    "\udcff",
    "é",
    "😀",
    "2026-01-01T00:00:00.000Z info exchange outcome=answered",
    '"} {"event": "exchange"',
)


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was before once the test is over."""
    root = logging.getLogger()
    handlers, level, hook = root.handlers[:], root.level, sys.unraisablehook
    yield root
    sys.unraisablehook = hook
    root.handlers[:] = handlers
    root.setLevel(level)


Write = Callable[..., str]


@pytest.fixture(params=["text", "json"])
def write(request: pytest.FixtureRequest) -> Write:
    """Log an event with fields, and return what was written."""

    def write(event: str, **fields: object) -> str:
        stream = io.StringIO()
        configure_logging(LogConfig(format=request.param), stream)
        logger.info(event, extra={"fields": fields})
        return stream.getvalue()

    return write


@pytest.mark.parametrize("value", HOSTILE)
def test_value_comes_back_from_the_line_as_it_was(write: Write, value: str) -> None:
    assert parse_line(write("event", first=value, last="end").removesuffix("\n"))["first"] == value


@pytest.mark.parametrize("value", HOSTILE)
def test_line_is_one_line_of_printable_ascii(write: Write, value: str) -> None:
    line = write("event", key=value)
    assert line.endswith("\n")
    assert all(" " <= character <= "~" for character in line[:-1])


def test_value_is_cut_after_256_characters(write: Write) -> None:
    line = parse_line(write("event", short="x" * 256, long="x" * 257).removesuffix("\n"))
    assert line["short"] == "x" * 256
    assert line["long"] == "x" * 256 + "...(257 characters)"


def test_line_has_time_level_and_event(write: Write) -> None:
    line = parse_line(write("tls_handshake_failed", a=1).removesuffix("\n"))
    assert (line["level"], line["event"]) == ("info", "tls_handshake_failed")
    assert line["time"].endswith("Z")


def test_event_without_fields_is_a_line_too(write: Write) -> None:
    assert parse_line(write("stopped").removesuffix("\n"))["event"] == "stopped"


@pytest.mark.parametrize(
    "value",
    ["EXAMPLE.COM", "alice@EXAMPLE.COM", "HTTP/www.example.com", "[2001:db8::1]:88", "1,2", "-5", "a\\b"],
)
def test_usual_values_need_no_quotes_as_text(value: str) -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(), stream)
    logger.info("event", extra={"fields": {"key": value}})
    assert stream.getvalue().endswith(f" info event key={value}\n")


def test_numbers_stay_numbers_in_json() -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(format="json"), stream)
    logger.info("event", extra={"fields": {"status": 200, "ms": 1.5}})
    entry = json.loads(stream.getvalue())
    assert (entry["status"], entry["ms"]) == (200, 1.5)


def test_traceback_follows_the_line_as_text() -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(), stream)
    try:
        int("lost")
    except ValueError:
        logger.exception("bug", extra={"fields": {"id": "1"}})
    line, *traceback = stream.getvalue().splitlines()
    assert line.endswith(" error bug id=1")
    assert (traceback[0], traceback[-1]) == (
        "Traceback (most recent call last):",
        "ValueError: invalid literal for int() with base 10: 'lost'",
    )


def test_traceback_is_within_the_line_in_json() -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(format="json"), stream)
    try:
        int("lost")
    except ValueError:
        logger.exception("bug")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["traceback"].endswith(
        "ValueError: invalid literal for int() with base 10: 'lost'"
    )


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_nothing_below_the_level_is_written(level: str) -> None:
    stream = io.StringIO()
    levels = ["debug", "info", "warning", "error"]
    configure_logging(LogConfig(level=level), stream)  # type: ignore[arg-type]
    for name in levels:
        logger.log(logging.getLevelNamesMapping()[name.upper()], "event")
    written = [line.split(" ")[1] for line in stream.getvalue().splitlines()]
    assert written == levels[levels.index(level) :]


def test_configuring_again_replaces_what_was(root: logging.Logger) -> None:
    configure_logging(LogConfig(), io.StringIO())
    stream = io.StringIO()
    configure_logging(LogConfig(), stream)
    logger.warning("event")
    assert len(root.handlers) == 1
    assert len(stream.getvalue().splitlines()) == 1


def test_log_goes_to_standard_output_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig())
    logger.warning("event")
    assert " warning event" in capsys.readouterr().out


def test_messages_of_libraries_are_lines_too() -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(), stream)
    logging.getLogger("asyncio").error("something\n%s\x1b", "happened")
    assert stream.getvalue().endswith(" error something?happened?\n")


def test_what_no_caller_can_be_told_is_one_line_at_debug() -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(level="debug"), stream)

    class Odd:
        def __del__(self) -> None:
            raise ValueError("odd\nname")

    Odd()
    (line,) = stream.getvalue().splitlines()
    assert "debug" in line
    assert "ValueError" in line
