import logging

import pytest

from kkdcpd.log.events import EventLogger

logger = EventLogger("kkdcpd.test")


def test_event_has_its_fields_but_those_without_value(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logger.debug("first", a=1, b=None)
    logger.info("second", event="third", sum_by="key")
    logger.warning("third")
    logger.error("fourth")
    records = [(each.levelname, each.msg, vars(each)) for each in caplog.records]
    assert [(level, event, of["fields"], of["sum_by"]) for level, event, of in records] == [
        ("DEBUG", "first", {"a": 1}, None),
        ("INFO", "second", {"event": "third"}, "key"),
        ("WARNING", "third", {}, None),
        ("ERROR", "fourth", {}, None),
    ]


def test_exception_has_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        int("quotes a client")
    except ValueError:
        logger.exception("bug_in_test", id="1")
    error = OSError()
    logger.error("bug_in_test", exc_info=error)
    kinds = [(each.levelname, each.exc_info and each.exc_info[0]) for each in caplog.records]
    assert kinds == [("ERROR", ValueError), ("ERROR", OSError)]


def test_event_below_the_level_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "kkdcpd.test")
    logger.info("event")
    assert not caplog.records
