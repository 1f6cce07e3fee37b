import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.config import LogConfig, LogLevels, settings_of
from kkdcpd.log.areas import AREAS, set_levels

PACKAGE = Path(__file__).parents[2] / "src" / "kkdcpd"


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in AREAS.values()]
    before = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


def test_every_area_has_its_setting() -> None:
    assert set(AREAS) == set(settings_of(LogLevels))


@pytest.mark.parametrize("name", [name for name in AREAS.values() if name])
def test_every_area_is_a_part_of_the_house(name: str) -> None:
    path = PACKAGE.parent / name.replace(".", "/")
    assert path.is_dir() or path.with_suffix(".py").is_file()


def test_areas_have_the_common_level_by_default() -> None:
    set_levels(LogConfig(level="warning"))
    assert {logging.getLogger(name).level for name in AREAS.values()} == {logging.WARNING}


@pytest.mark.parametrize(
    ("area", "name"),
    [
        ("exchange", "kkdcpd.pipeline.access_log"),
        ("guard", "kkdcpd.guard.guard"),
        ("connections", "kkdcpd.frontends.http.acceptor"),
        ("kdc", "kkdcpd.upstream.health"),
        ("locate", "kkdcpd.locate.dns_cache"),
        ("process", "kkdcpd.supervisor"),
        ("process", "kkdcpd.log.configure"),
        ("libraries", "asyncio"),
    ],
)
def test_area_may_have_a_level_of_its_own(area: str, name: str) -> None:
    set_levels(LogConfig(level="error", levels=LogLevels(**{area: "debug"})))  # type: ignore[arg-type]
    assert logging.getLogger(name).isEnabledFor(logging.DEBUG)
    others = {name for other, name in AREAS.items() if other != area}
    assert not any(logging.getLogger(name).isEnabledFor(logging.DEBUG) for name in others)
