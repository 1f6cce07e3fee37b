"""The state of the service, as its admin process reports it."""

import http.client
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frontends.site import GOOD_REQUEST
from tests.supervisor.house import House, run_house
from tests.support.waiting import wait_until

PATIENCE_SECONDS = 10.0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with run_house(tmp_path, sections='[admin]\naddress = "127.0.0.1:0"') as running:
        yield running


def get(house: House, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", house.daemon.ports[-1], timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def value(house: House, series: str) -> float:
    text = get(house, "/metrics")[1]
    return float(next(line for line in text.splitlines() if line.startswith(f"{series} ")).split()[1])


def test_status_shows_the_problems_of_a_failed_reload(house: House) -> None:
    house.write(f"{house.text}\n[nonsense")
    assert house.hang_up()["event"] == "reload_failed"
    wait_until(lambda: json.loads(get(house, "/status")[1])["last_reload"] is not None)
    status = json.loads(get(house, "/status")[1])
    assert status["generation"] == 1
    assert (status["last_reload"]["ok"], len(status["last_reload"]["problems"])) == (False, 1)
    assert "is not TOML" in status["last_reload"]["problems"][0]
    assert get(house, "/readyz") == (200, "ready\n")
    assert value(house, 'kkdcpd_reloads_total{result="failed"}') == 1


def test_draining_service_is_not_ready(house: House) -> None:
    with house.connect() as client:
        assert client.ask(GOOD_REQUEST).status == 200
        house.daemon.send_signal(signal.SIGTERM)
        wait_until(lambda: get(house, "/readyz")[0] == 503)
        assert get(house, "/readyz")[1] == (
            "the service drains: it finishes the requests in flight, and ends\nno worker process is ready\n"
        )
        assert get(house, "/livez")[0] == 200
    assert house.daemon.wait(timeout=PATIENCE_SECONDS) == 0
