import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kkdcpd.config import LogConfig
from kkdcpd.log import configure_logging
from kkdcpd.log.events import EventLogger
from kkdcpd.values import PrincipalName
from tests.frontends.site import parse_line

logger = EventLogger("kkdcpd.test")

Read = Callable[[], list[str]]


@pytest.fixture
def root() -> logging.Logger:
    """The root logger. The test restores its former state."""
    return logging.getLogger()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[int, Read]]:
    """A descriptor for the log, and a function that reads the lines."""
    path = tmp_path / "log"
    with path.open("ab") as file:
        yield file.fileno(), lambda: path.read_text().splitlines()


@pytest.mark.parametrize("form", ["text", "json"])
def test_event_and_fields_are_written(log: tuple[int, Read], form: str) -> None:
    descriptor, read = log
    configure_logging(LogConfig(format=form), descriptor)  # type: ignore[arg-type]
    logger.info("some_event", a="b c")
    (line,) = map(parse_line, read())
    assert (line["level"], line["event"], line["a"]) == ("info", "some_event", "b c")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_nothing_below_the_level_is_written(log: tuple[int, Read], level: str) -> None:
    descriptor, read = log
    levels = ["debug", "info", "warning", "error"]
    configure_logging(LogConfig(level=level), descriptor)  # type: ignore[arg-type]
    for name in levels:
        getattr(logger, name)("event")
    assert [line.split(" ")[1] for line in read()] == levels[levels.index(level) :]


def test_second_configuration_replaces_the_first(root: logging.Logger, log: tuple[int, Read]) -> None:
    descriptor, read = log
    configure_logging(LogConfig(), descriptor)
    configure_logging(LogConfig(), descriptor)
    logger.warning("event")
    assert len(root.handlers) == 1
    assert len(read()) == 1


def test_texts_of_libraries_are_lines_too(log: tuple[int, Read]) -> None:
    descriptor, read = log
    configure_logging(LogConfig(), descriptor)
    logging.getLogger("asyncio").error("%s\x1b\nhappened", "something")
    (line,) = map(parse_line, read())
    assert (line["level"], line["event"]) == ("error", "library_message")
    assert (line["library"], line["text"]) == ("asyncio", "something\x1b")


def test_rest_of_a_librarys_text_is_left_out_as_it_may_quote_a_client(log: tuple[int, Read]) -> None:
    descriptor, read = log
    configure_logging(LogConfig(), descriptor)
    context = {"message": "Task exception was never retrieved", "exception": ValueError("secret")}
    loop = asyncio.new_event_loop()
    loop.call_exception_handler(context | {"future": ValueError("secret")})
    loop.close()
    lines = read()
    assert "Task exception was never retrieved" in lines[0]
    assert not any("secret" in line for line in lines)


def test_exception_without_a_caller_is_one_line_at_debug(log: tuple[int, Read]) -> None:
    descriptor, read = log
    configure_logging(LogConfig(level="debug"), descriptor)

    class Odd:
        def __del__(self) -> None:
            raise ValueError("odd\nname")

    Odd()
    (line,) = read()
    assert "debug" in line
    assert line.endswith(" unraisable_error error=ValueError")


def test_bug_has_its_traceback(log: tuple[int, Read]) -> None:
    descriptor, read = log
    configure_logging(LogConfig(format="json"), descriptor)
    try:
        int("why")
    except ValueError:
        logger.exception("event")
    (line,) = read()
    traceback = json.loads(line)["traceback"]
    assert traceback.endswith("\nValueError")
    assert 'int("why")' in traceback


def test_journal_gets_priorities_and_no_time() -> None:
    ours, journal = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, journal:
        status = os.fstat(ours.fileno())
        configure_logging(LogConfig(), ours.fileno(), journal_stream=f"{status.st_dev}:{status.st_ino}")
        logger.warning("event", a=1)
        assert journal.recv(999) == b"<4>warning event a=1\n"
        configure_logging(LogConfig(), ours.fileno(), journal_stream="1:2")
        logger.warning("event", a=1)
        assert journal.recv(999).startswith(b"20")


def test_principals_are_hidden_in_every_line(log: tuple[int, Read]) -> None:
    descriptor, read = log
    configure_logging(LogConfig(principals="omitted"), descriptor)
    cname = PrincipalName(name_type=1, components=("alice",))
    logger.info("exchange", id="1", cname=cname)
    assert read()[0].endswith("info exchange id=1")


def test_unread_lines_are_counted_and_logged() -> None:
    reader, writer = os.pipe()
    configure_logging(LogConfig(), writer)
    started = time.monotonic()
    for number in range(40000):
        logger.info("event", number=number)
    assert time.monotonic() - started < 10
    raw = os.read(reader, 1 << 20)
    logger.info("event", number=40000)
    raw += os.read(reader, 1 << 20)
    os.close(reader)
    os.close(writer)
    *before, lost, last = map(parse_line, raw.decode().splitlines())
    assert [int(line["number"]) for line in before] == list(range(len(before)))
    assert (lost["event"], lost["level"], last["number"]) == ("lines_lost", "warning", "40000")
    assert int(lost["count"]) == 40000 - len(before)


def test_lost_reader_stops_nothing() -> None:
    reader, writer = os.pipe()
    configure_logging(LogConfig(), writer)
    os.close(reader)
    logger.info("event")
    logger.info("event")
    os.close(writer)


async def test_lines_with_one_key_are_summed() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    configure_logging(LogConfig(), writer)
    for number in range(5):
        logger.warning("event", number=number, sum_by="key")
        logging.getLogger("asyncio").warning("socket.send() raised exception.")
    logging.getLogger().handlers[0].flush()
    lines = [parse_line(line) for line in os.read(reader, 65536).decode().splitlines()]
    os.close(reader)
    os.close(writer)
    assert [(line["event"], line.get("number"), line.get("count")) for line in lines] == [
        ("event", "0", None),
        ("library_message", None, None),
        ("event", "4", "4"),
        ("library_message", None, "4"),
    ]
