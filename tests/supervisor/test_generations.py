"""The drain of a generation at the end of the service, with a real daemon."""

import asyncio
import signal

from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST, parse_line
from tests.supervisor.daemons import SECONDS_TO_STOP, Start, wait_until_refused
from tests.support.fake_kdc import FakeKdcThread
from tests.support.http_client import HttpClient
from tests.support.messages import as_req


def test_second_request_on_a_connection_is_not_served_while_the_process_ends(
    start: Start, kdc: FakeKdcThread, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    daemon = start("127.0.0.1:0")
    with HttpClient(daemon.ports[0]) as client:
        client.send(GOOD_REQUEST)
        kdc.wait_for_messages()
        daemon.send_signal(signal.SIGTERM)
        wait_until_refused(daemon.ports[0])
        client.send(GOOD_REQUEST)
        kdc.set(may_answer)
        assert client.response().body == GOOD_REPLY
        assert client.is_closed_in_time()
    assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
    # Not counting probes.
    assert kdc.messages.count(as_req()) == 1


def test_drain_waits_for_idle_connections_until_drain_timeout(start: Start) -> None:
    daemon = start("127.0.0.1:0", process="drain_timeout = 3\n")
    with HttpClient(daemon.ports[0]) as used, HttpClient(daemon.ports[0]) as unused:
        used.ask(GOOD_REQUEST)
        daemon.send_signal(signal.SIGTERM)
        wait_until_refused(daemon.ports[0])
        response = used.ask(GOOD_REQUEST)
        assert (response.body, response.headers["connection"]) == (GOOD_REPLY, "close")
        assert used.is_closed_in_time()
        assert unused.is_closed_in_time()
        assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
    cut_off = [parse_line(line) for line in daemon.lines if "drain_timed_out" in line]
    assert [line["connections"] for line in cut_off] == ["1"]


def test_drain_waits_for_the_rest_of_a_head(start: Start) -> None:
    daemon = start("127.0.0.1:0")
    with HttpClient(daemon.ports[0]) as client:
        client.send(GOOD_REQUEST[:30])
        daemon.send_signal(signal.SIGTERM)
        wait_until_refused(daemon.ports[0])
        client.send(GOOD_REQUEST[30:])
        assert client.response().body == GOOD_REPLY
        assert client.is_closed_in_time()
    assert daemon.wait(timeout=SECONDS_TO_STOP) == 0


def test_request_in_flight_is_cut_off_after_drain_timeout(
    start: Start, kdc: FakeKdcThread, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    daemon = start("127.0.0.1:0", process="drain_timeout = 1\n")
    with HttpClient(daemon.ports[0]) as client:
        client.send(GOOD_REQUEST)
        kdc.wait_for_messages()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
    events = [parse_line(line)["event"] for line in daemon.lines if "kdc_unhealthy" not in line]
    assert events[-4:] == ["stopping", "drain_timed_out", "exchange", "stopped"]
