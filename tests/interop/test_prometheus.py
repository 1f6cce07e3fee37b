"""Debian's Prometheus scrapes kkdcpd, and its promtool reports no problem."""

import contextlib
import json
import os
import re
import signal
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import Metrics, make_metrics
from kkdcpd.values import AttemptFailure, FailureReason, KdcState, MessageKind, Outcome, RequestResult
from lab.ports import free_port
from lab.program import PATIENCE_SECONDS, Program, run
from tests.supervisor.house import run_house
from tests.supervisor.load import Load
from tests.support.admin import PLAIN, forked_admin
from tests.support.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
SETTINGS = f'{PLAIN}[realms."EXAMPLE.COM"]\nkdc = ["192.0.2.1"]\n'
PROCESSES = 3  # two workers, forked first, and the admin process
KDC = KdcEndpoint(name="dc1.example.com", address="2001:db8::1", port=88, transport=Transport.TCP)
ANSWERED = RequestResult(outcome=Outcome.ANSWERED, realm='ODD "\\ REALM', upstream_seconds=0.001)


@pytest.fixture
def metrics() -> Metrics:
    return make_metrics(4)


@pytest.fixture
def target(metrics: Metrics) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as sock, forked_admin(SETTINGS, metrics, sock):
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def prometheus(target: str, tmp_path: Path) -> Iterator[str]:
    with running_prometheus(target, tmp_path) as address:
        yield address


@contextlib.contextmanager
def running_prometheus(target: str, tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes kkdcpd with the example configuration, but more often."""
    config = (DEPLOY / "prometheus.yml").read_text().replace("127.0.0.1:9088", target)
    (tmp_path / "prometheus.yml").write_text(f"global:\n  scrape_interval: 200ms\n{config}")
    (tmp_path / "kkdcpd.rules.yml").write_text((DEPLOY / "kkdcpd.rules.yml").read_text())
    address = f"127.0.0.1:{free_port(('127.0.0.1',))}"
    with Program(
        "prometheus",
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
        environment=os.environ,
    ) as program:
        program.wait_for_line(lambda line: "ready to receive web requests" in line)
        yield address


def api(prometheus: str, path: str, **parameters: str) -> Any:
    url = f"http://{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as response:
        return json.load(response)["data"]


def value(prometheus: str, query: str) -> float | None:
    result = api(prometheus, "query", query=query)["result"]
    return float(result[0]["value"][1]) if result else None


def wait_for(prometheus: str, query: str, expected: float) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := value(prometheus, query)) != expected:
        assert time.monotonic() < deadline, f"{query} is {found}, not {expected}"
        time.sleep(0.1)


def test_prometheus_scrapes_what_all_workers_counted(metrics: Metrics, prometheus: str) -> None:
    wait_for(prometheus, 'up{job="kkdcpd"}', 1)
    for row in range(3):
        counters = Counters(metrics.take_row(row))
        for _ in range(10):
            counters.request_ended(ANSWERED, MessageKind.AS_REQ, 0.004)
        counters.kdc_changed(KDC, KdcState.DOWN)
        wait_for(prometheus, 'kkdcpd_kdc_state{kdc="dc1.example.com:88",address="2001:db8::1"}', 2)
        metrics.clear_gauges(row)
    wait_for(prometheus, 'sum(kkdcpd_requests_total{realm="ODD \\"\\\\ REALM",outcome="answered"})', 30)
    wait_for(prometheus, "sum(kkdcpd_request_duration_seconds_count)", 30)
    wait_for(prometheus, 'kkdcpd_request_duration_seconds_bucket{kind="AS_REQ",le="0.005"}', 30)
    wait_for(prometheus, "kkdcpd_kdc_state", 0)
    assert value(prometheus, "resets(kkdcpd_request_duration_seconds_count[1m]) > 0") is None
    assert value(prometheus, "scrape_duration_seconds") is not None
    groups = api(prometheus, "rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}


def test_prometheus_sees_no_counter_go_back_while_we_reload_and_die(tmp_path: Path) -> None:
    settings = '[admin]\naddress = "127.0.0.1:0"'
    with (
        run_house(tmp_path, sections=settings) as house,
        running_prometheus(f"127.0.0.1:{house.daemon.ports[-1]}", tmp_path) as prometheus,
        Load(house.daemon.ports[0], house.trust, keeping=4, single=2, retries=True) as load,
    ):
        wait_for(prometheus, 'up{job="kkdcpd"}', 1)
        for number in range(8):
            if number % 4 == 3:
                # Workers of the last generation may still drain. Their end is not an event.
                wait_until(lambda: len(house.daemon.workers) == PROCESSES)
                after = len(house.daemon.lines)
                os.kill(house.daemon.workers[0], signal.SIGKILL)
                house.wait_for_event("worker_died", after=after)
            else:
                house.reload().expect_ok()
            wait_for(prometheus, "kkdcpd_generation", 2 + number - (number + 1) // 4)
        tally = load.end()
        answered = 'sum(kkdcpd_requests_total{outcome="answered"})'
        # A killed worker may have counted a reply before its client repeated the request.
        wait_for(prometheus, f"{answered} >= bool {tally.answered}", 1)
        names = api(prometheus, "label/__name__/values")
        counters = [name for name in names if re.fullmatch(r"kkdcpd_.*_(total|count|sum|bucket)", name)]
        assert len(counters) > 10
        assert [name for name in counters if value(prometheus, f"resets({name}[5m]) > 0")] == []
        assert value(prometheus, 'min_over_time(up{job="kkdcpd"}[5m])') == 1


def test_promtool_accepts_the_metrics(metrics: Metrics, target: str) -> None:
    counters = Counters(metrics.take_row(0))
    counters.request_ended(ANSWERED, MessageKind.AS_REQ, 0.004)
    counters.kdc_tried(KDC)
    counters.kdc_failed(AttemptFailure(endpoint=KDC, reason=FailureReason.CLOSED, may_be_delivered=True))
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=PATIENCE_SECONDS) as response:
        text = response.read().decode()
    assert text.count("kkdcpd_kdc_failures_total{") == 1
    done = run("promtool", "check", "metrics", environment=os.environ, stdin=text)
    assert (done.exit_code, done.output) == (0, "")


def test_rules_are_sound_and_about_metrics_that_there_are(target: str) -> None:
    run("promtool", "check", "rules", str(DEPLOY / "kkdcpd.rules.yml"), environment=os.environ).expect_ok()
    run("promtool", "check", "config", str(DEPLOY / "prometheus.yml"), environment=os.environ).expect_ok()
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=PATIENCE_SECONDS) as response:
        known = set(re.findall(r"^# TYPE (\w+)", response.read().decode(), re.MULTILINE))
    named = set(re.findall(r"\bkkdcpd_\w+", (DEPLOY / "kkdcpd.rules.yml").read_text()))
    assert {name.removesuffix("_bucket") for name in named} <= known
    outcomes = set(re.findall(r'outcome=~?"([^"]+)"', (DEPLOY / "kkdcpd.rules.yml").read_text()))
    assert {word for words in outcomes for word in words.split("|")} <= {each.value for each in Outcome}
