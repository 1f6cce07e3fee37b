"""The state of the service, as its admin process reports it."""

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


def test_status_shows_the_problems_of_a_failed_reload(house: House) -> None:
    house.write(f"{house.text}\n[nonsense")
    assert house.hang_up()["event"] == "reload_failed"
    wait_until(lambda: json.loads(house.get("/status")[1])["last_reload"] is not None)
    status = json.loads(house.get("/status")[1])
    assert status["generation"] == 1
    assert (status["last_reload"]["ok"], len(status["last_reload"]["problems"])) == (False, 1)
    assert "is not TOML" in status["last_reload"]["problems"][0]
    assert house.get("/readyz") == (200, "ready\n")
    assert house.metric('kkdcpd_reloads_total{result="failed"}') == 1


def test_draining_service_is_not_ready(house: House) -> None:
    with house.connect() as client:
        assert client.ask(GOOD_REQUEST).status == 200
        house.daemon.send_signal(signal.SIGTERM)
        wait_until(lambda: house.get("/readyz")[0] == 503)
        assert house.get("/readyz")[1] == (
            "the service drains: it finishes the requests in flight, and ends\nno worker process is ready\n"
        )
        assert house.get("/livez")[0] == 200
    assert house.daemon.wait(timeout=PATIENCE_SECONDS) == 0
