"""Signals to the parent process, with a real daemon."""

import asyncio
import os
import signal

import pytest

from lab.daemon import is_exchange
from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST, parse_line
from tests.supervisor.daemons import SECONDS_TO_STOP, Start, wait_until_refused
from tests.support.fake_kdc import FakeKdcThread
from tests.support.http_client import HttpClient


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_an_idle_process_with_exit_code_0(start: Start, number: signal.Signals) -> None:
    daemon = start("127.0.0.1:0")
    daemon.send_signal(number)
    assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
    assert parse_line(daemon.lines[-1])["event"] == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_a_request_in_flight_finish(
    start: Start, kdc: FakeKdcThread, may_answer: asyncio.Event, number: signal.Signals
) -> None:
    may_answer.clear()
    daemon = start("127.0.0.1:0")
    with HttpClient(daemon.ports[0]) as client:
        client.send(GOOD_REQUEST)
        kdc.wait_for_messages()
        daemon.send_signal(number)
        wait_until_refused(daemon.ports[0])
        kdc.set(may_answer)
        assert client.response().body == GOOD_REPLY
        assert client.is_closed_in_time()
    assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
    (exchange,) = (parse_line(line) for line in daemon.lines if is_exchange(line))
    assert exchange["outcome"] == "answered"
    assert parse_line(daemon.lines[-1])["event"] == "stopped"


def test_second_signal_ends_at_once(start: Start) -> None:
    daemon = start("127.0.0.1:0")
    with HttpClient(daemon.ports[0]) as client:
        client.ask(GOOD_REQUEST)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait_for_line(lambda line: "stopping" in line)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=SECONDS_TO_STOP) == 0


def test_signal_to_the_whole_group_is_one_signal(start: Start) -> None:
    """Ctrl-C, and the end of a container, signal the whole group."""
    daemon = start("127.0.0.1:0")
    with HttpClient(daemon.ports[0]) as client:
        client.ask(GOOD_REQUEST)
        os.killpg(daemon.pid, signal.SIGINT)
        wait_until_refused(daemon.ports[0])
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
    assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
