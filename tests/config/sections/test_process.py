from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config import read_config
from kkdcpd.config.sections.process import MAX_WORKERS, ProcessConfig
from kkdcpd.errors import ConfigError

REALM = '[realms."EXAMPLE.COM"]\nkdc = ["kdc.example.com"]\n'


def read(settings: str) -> ProcessConfig:
    return read_config(f"{REALM}[process]\n{settings}\n", source=Path("/etc/kkdcpd/config.toml")).process


def test_defaults() -> None:
    process = read("")
    assert process.workers is None
    assert process.drain_timeout == 25.0
    assert process.control == Path("/run/kkdcpd/control.sock")


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        ('workers = "auto"', "workers", None),
        ("workers = 1", "workers", 1),
        (f"workers = {MAX_WORKERS}", "workers", MAX_WORKERS),
        ("drain_timeout = 0", "drain_timeout", 0.0),
        ("drain_timeout = 2.5", "drain_timeout", 2.5),
        ('control = "/tmp/k.sock"', "control", Path("/tmp/k.sock")),
        ('control = ""', "control", None),
    ],
)
def test_settings_are_read(settings: str, key: str, value: Any) -> None:
    assert getattr(read(settings), key) == value


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("workers = 0", "process.workers: 0"),
        ("workers = 33", "process.workers: 33"),
        ("workers = 1.5", "process.workers"),
        ('workers = "many"', 'write "auto", or'),
        ("workers = true", "process.workers"),
        ("drain_timeout = -1", "process.drain_timeout"),
        ("drain_timeout = 3601", "process.drain_timeout"),
        ("control = 5", "process.control"),
        ("speed = 5", "process.speed: there is no such setting"),
    ],
)
def test_bad_value_is_refused(settings: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(settings)
    assert words in str(caught.value)
