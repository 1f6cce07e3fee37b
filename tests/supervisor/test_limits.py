import dataclasses
import os
import resource
from pathlib import Path

import pytest

from kkdcpd.config import Config, read_config
from kkdcpd.supervisor.limits import OTHER_DESCRIPTORS, count_cpus, fit_to_descriptors
from kkdcpd.upstream.ports import ports_within

CONFIG = read_config('[realms."EXAMPLE.COM"]\nkdc = ["kdc.example.com"]\n', source=Path("/nowhere.toml"))


def with_maximum(maximum: int) -> Config:
    return dataclasses.replace(CONFIG, connections=dataclasses.replace(CONFIG.connections, maximum=maximum))


def test_connections_that_fit_stay_as_they_are() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    config = with_maximum((hard - ports_within(hard) - OTHER_DESCRIPTORS) // 2)
    assert fit_to_descriptors(config) == (config, ())


def test_connections_that_do_not_fit_are_reduced_with_a_warning() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = (hard - ports_within(hard) - OTHER_DESCRIPTORS) // 2
    config, (problem,) = fit_to_descriptors(with_maximum(room + 1))
    assert config.connections.maximum == room
    assert problem.key == "connections.maximum"
    assert f"or write {room} or less" in problem.remedy


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("max 100000", 8),
        ("800000 100000", 8),
        ("", 8),
        ("some words of nonsense", 8),
    ],
)
def test_share_of_a_cgroup_bounds_the_cpus(tmp_path: Path, text: str, most: int) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert 1 <= count_cpus(path) <= min(most, len(os.sched_getaffinity(0)))


def test_without_a_cgroup_all_cpus_count(tmp_path: Path) -> None:
    assert count_cpus(tmp_path / "none") == min(len(os.sched_getaffinity(0)), 8)


def test_cpus_that_we_may_not_run_on_do_not_count(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert count_cpus(tmp_path / "none") == 1
    finally:
        os.sched_setaffinity(0, before)
