import json
import logging
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.log.lines import JsonLines, Lines, Plain, TextLines
from tests.frontends.site import parse_line

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
FORMS = [TextLines(), JsonLines()]
IDS = ["text", "json"]
PIPE_BUF = 4096

forms = pytest.mark.parametrize("form", FORMS, ids=IDS)


def record(level: int = logging.INFO, created: float = 1763770560.25) -> logging.LogRecord:
    made = logging.LogRecord("kkdcpd.test", level, "", 0, "some_event", (), None)
    made.created = created
    return made


def written(form: Lines, **fields: object) -> str:
    return form.render(record(), fields).decode("ascii")


@forms
@pytest.mark.parametrize("value", HOSTILE)
def test_value_comes_back_from_the_line_as_it_was(form: Lines, value: str) -> None:
    assert parse_line(written(form, first=value, last="end").removesuffix("\n"))["first"] == value


@forms
def test_plain_value_is_written_as_any_other(form: Lines) -> None:
    assert written(form, id=Plain("0f3a")) == written(form, id="0f3a")


@forms
@pytest.mark.parametrize("value", HOSTILE)
def test_line_is_one_line_of_printable_ascii(form: Lines, value: str) -> None:
    line = written(form, key=value)
    assert line.endswith("\n")
    assert all(" " <= character <= "~" for character in line[:-1])


@forms
def test_value_is_cut_after_256_characters(form: Lines) -> None:
    line = parse_line(written(form, short="x" * 256, long="x" * 257).removesuffix("\n"))
    assert line["short"] == "x" * 256
    assert line["long"] == "x" * 256 + "...(257 characters)"


@forms
def test_line_has_time_level_and_event(form: Lines) -> None:
    line = parse_line(written(form, a=1).removesuffix("\n"))
    assert (line["time"], line["level"], line["event"]) == (
        "2025-11-22T00:16:00.250Z",
        "info",
        "some_event",
    )


@forms
def test_each_line_has_its_own_time(form: Lines) -> None:
    moments = (1763770560.0, 1763770560.9999, 1763770561.0015, 1763770560.5)
    times = [parse_line(form.render(record(created=m), {}).decode().rstrip())["time"][17:] for m in moments]
    assert times == ["00.000Z", "00.999Z", "01.001Z", "00.500Z"]


@forms
def test_event_without_fields_is_a_line_too(form: Lines) -> None:
    assert parse_line(written(form).removesuffix("\n"))["event"] == "some_event"


@pytest.mark.parametrize(
    "value",
    ["EXAMPLE.COM", "alice@EXAMPLE.COM", "HTTP/www.example.com", "[2001:db8::1]:88", "1,2", "-5", "a\\b"],
)
def test_usual_values_need_no_quotes_as_text(value: str) -> None:
    assert written(TextLines(), key=value).endswith(f" info some_event key={value}\n")


def test_numbers_stay_numbers_in_json() -> None:
    line = json.loads(written(JsonLines(), status=200, ms=1.5))
    assert (line["status"], line["ms"]) == (200, 1.5)


@pytest.mark.parametrize(
    ("level", "prefix"),
    [
        (logging.DEBUG, "<7>"),
        (logging.INFO, "<6>"),
        (logging.WARNING, "<4>"),
        (logging.ERROR, "<3>"),
        (25, "<6>"),
    ],
)
def test_journal_learns_the_level_by_a_prefix(level: int, prefix: str) -> None:
    text = TextLines(for_journal=True).render(record(level), {"a": 1}).decode()
    assert text == f"{prefix}{logging.getLevelName(level).lower()} some_event a=1\n"
    entry = JsonLines(for_journal=True).render(record(level), {"a": 1}).decode()
    assert entry.startswith(prefix)
    assert json.loads(entry.removeprefix(prefix))["time"] == "2025-11-22T00:16:00.250Z"


def failed(text: str) -> logging.LogRecord:
    made = record(logging.ERROR)
    made.exc_info = ValueError, ValueError(text), None
    return made


def test_traceback_can_not_pass_for_a_line() -> None:
    _, *lines = TextLines().render(failed("bad"), {}).decode().splitlines()
    assert lines == ["    Traceback (most recent call last):", "    ValueError"]
    _, *lines = TextLines(for_journal=True).render(failed("bad"), {}).decode().splitlines()
    assert lines == ["<3>    Traceback (most recent call last):", "<3>    ValueError"]


def fail(words: str) -> None:
    raise OSError(24, words)


def fail_twice(words: str) -> None:
    try:
        fail(words)
    except OSError as error:
        raise LookupError(words) from error


@forms
def test_traceback_has_the_types_of_exceptions_and_not_their_texts(form: Lines) -> None:
    made = record(logging.ERROR)
    try:
        fail_twice("a stranger's words")
    except LookupError:
        made.exc_info = sys.exc_info()
    text = form.render(made, {}).decode()
    assert text.index("OSError (errno 24)") < text.index("LookupError")
    assert "test_lines.py" in text
    assert text.count("stranger") == 1  # in the source line


def test_traceback_has_the_text_of_the_system_for_an_errno() -> None:
    made = record(logging.ERROR)
    try:
        Path("/nowhere/a stranger's name").read_bytes()
    except OSError:
        made.exc_info = sys.exc_info()
    text = TextLines().render(made, {}).decode()
    assert text.endswith("    FileNotFoundError (errno 2: No such file or directory)\n")


def test_traceback_is_a_value_of_json() -> None:
    (line,) = JsonLines().render(failed("odd\nname"), {}).decode().splitlines()
    assert json.loads(line)["traceback"].endswith("\nValueError")


def fail_deep_down(depth: int) -> None:
    if depth:
        fail_deep_down(depth - 1)
    raise ValueError


@forms
def test_long_traceback_is_cut(form: Lines) -> None:
    made = record(logging.ERROR)
    try:
        fail_deep_down(200)
    except ValueError:
        made.exc_info = sys.exc_info()
    line = form.render(made, {"id": "x" * 300})
    assert len(line) < PIPE_BUF
    assert b"ValueError" in line


@forms
@given(values=st.lists(st.text(max_size=600), min_size=24, max_size=24))
def test_no_line_is_longer_than_a_pipe_takes_at_once(form: Lines, values: list[str]) -> None:
    fields: dict[str, Any] = {f"a_rather_long_name_{n}": value for n, value in enumerate(values)}
    assert len(form.render(record(), fields)) < PIPE_BUF


@forms
def test_worst_line_fits_too(form: Lines) -> None:
    assert len(written(form, **{f"a_rather_long_name_{n}": "\U0001f600" * 999 for n in range(24)})) < PIPE_BUF


def test_long_values_are_cut_before_they_are_kept() -> None:
    """Clients and DNS can make values as long as a message, and different each time."""
    record = logging.LogRecord("kkdcpd", logging.INFO, "", 0, "event", (), None)
    tracemalloc.start()
    try:
        for number in range(3000):
            for lines in (TextLines(), JsonLines()):
                line = lines.render(record, {"detail": f"{number} " + "x y" * 20_000})
                assert b"...(6000" in line
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 5_000_000
