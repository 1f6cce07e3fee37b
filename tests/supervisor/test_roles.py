"""The admin process beside the worker processes, which are replaced, reloaded and killed."""

import http.client
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.program import run
from tests.supervisor.house import House, run_house
from tests.support.waiting import wait_until

PATIENCE_SECONDS = 10.0

_SERIES = re.compile(r"^kkdcpd_requests_total\{.*\} (\S+)$", re.MULTILINE)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with run_house(tmp_path, sections='[admin]\naddress = "127.0.0.1:0"') as running:
        yield running


def requests(house: House) -> float:
    return sum(map(float, _SERIES.findall(house.get("/metrics")[1])))


class Scraper(threading.Thread):
    """Scrapes again and again, as Prometheus does, until `end`."""

    def __init__(self, house: House) -> None:
        super().__init__(name="scraper")
        self._house = house
        self._has_ended = threading.Event()
        self.seen: list[float] = []
        self.failures: list[Exception] = []

    def run(self) -> None:
        while not self._has_ended.wait(0.02):
            try:
                self.seen.append(requests(self._house))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)

    def end(self) -> None:
        self._has_ended.set()
        self.join(PATIENCE_SECONDS)


def test_counters_add_up_all_workers_and_never_decrease(house: House) -> None:
    scraper = Scraper(house)
    scraper.start()
    sent = 0
    for number in range(6):
        for _ in range(10):
            assert house.ask().status == 200
            sent += 1
        if number % 3 == 2:
            worker = house.daemon.workers[0]
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda gone=worker: gone not in house.daemon.workers)  # type: ignore[misc]
        else:
            assert house.hang_up()["event"] == "reloaded"
    wait_until(lambda: requests(house) == sent)
    scraper.end()
    assert scraper.failures == []
    assert scraper.seen == sorted(scraper.seen)
    assert len(scraper.seen) > 20
    assert (house.metric("kkdcpd_worker_deaths_total"), house.metric("kkdcpd_generation")) == (2, 5)


def test_dead_admin_process_is_replaced_and_no_client_notices(house: House) -> None:
    admin = max(house.daemon.workers)
    os.kill(admin, signal.SIGKILL)
    assert house.wait_for_event("worker_died")["process"] == "admin"
    assert house.get("/readyz")[0] == 200
    assert house.ask().status == 200


def test_healthcheck_finds_the_admin_process(tmp_path: Path) -> None:
    with run_house(tmp_path, sections=f'[admin]\naddress = "unix:{tmp_path}/a.sock"') as house:
        assert house.command("healthcheck").exit_code == 0
        house.write(house.text.replace("a.sock", "b.sock"))
        assert house.reload().exit_code == 0
        assert house.command("healthcheck").exit_code == 0
        assert not (tmp_path / "a.sock").exists()
    done = house.command("healthcheck")
    assert done.exit_code == 1
    assert done.output.startswith("error: no kkdcpd answers at unix:")


def test_without_an_address_there_is_no_admin_process(tmp_path: Path) -> None:
    with run_house(tmp_path, sections='[admin]\naddress = ""') as house:
        assert len(house.daemon.workers) == 2


def test_error_about_an_address_in_use_names_its_section(house: House, tmp_path: Path) -> None:
    taken = f"127.0.0.1:{house.daemon.ports[-1]}"
    path = tmp_path / "other.toml"
    path.write_text(house.text.replace('[admin]\naddress = "127.0.0.1:0"', f'[admin]\naddress = "{taken}"'))
    done = run(sys.executable, "-m", "kkdcpd", "--config", str(path), environment=os.environ)
    assert done.exit_code == 1
    assert f"error: can't listen on {taken} for [admin]: Address already in use" in done.output
