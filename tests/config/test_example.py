"""config.toml.example against the schema: nothing may stand in one only."""

import re
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config import Config, EndpointSpec, RealmConfig, read_config, settings_of
from kkdcpd.config.kinds import Kind, ListOf, Number
from kkdcpd.config.reader import NamedTables, Table
from kkdcpd.values import Transport

EXAMPLE = Path(__file__).parents[2] / "config.toml.example"
TEXT = EXAMPLE.read_text()

_COMMENTED = re.compile(r"^#(?=[a-z\[])", re.MULTILINE)
_BOTH = (Transport.TCP, Transport.UDP)
DEFAULTS = Config(
    realms=(
        RealmConfig(
            name="EXAMPLE.COM",
            kdc=tuple(
                EndpointSpec(host=f"kdc{number}.example.com", port=88, transports=_BOTH) for number in (1, 2)
            ),
            kpasswd=(EndpointSpec(host="kdc1.example.com", port=464, transports=_BOTH),),
            discovery="none",
        ),
    )
)


def _kinds(kind: Kind[object], key: str) -> list[tuple[str, Kind[object]]]:
    match kind:
        case Table() | NamedTables():
            settings = settings_of(kind.form).items()
            return [found for name, told in settings for found in _kinds(told.kind, name)]
        case ListOf(item=Table() as table):
            return _kinds(table, key)
    return [(key, kind)]


ALL_KINDS = _kinds(Table(form=Config), "")


def _paragraph_of(key: str) -> str:
    """The prose and the keys between two empty lines, as one line of text."""
    (found,) = (part for part in TEXT.split("\n\n") if re.search(rf"^#?{key} = ", part, re.MULTILINE))
    return re.sub(r"\n# *", " ", found)


def test_example_is_sound_as_it_stands() -> None:
    assert read_config(TEXT, source=EXAMPLE) == DEFAULTS


def test_uncommenting_every_key_gives_the_defaults() -> None:
    assert len(_COMMENTED.findall(TEXT)) > 20
    assert read_config(_COMMENTED.sub("", TEXT), source=EXAMPLE) == DEFAULTS


@pytest.mark.parametrize("key", sorted({key for key, _kind in ALL_KINDS}))
def test_every_key_is_in_the_example(key: str) -> None:
    assert re.search(rf"^(?:#|#   )?{key} = ", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("key", "kind"), [entry for entry in ALL_KINDS if isinstance(entry[1], Number)])
def test_every_number_is_told_with_unit_and_bounds(key: str, kind: Any) -> None:
    assert f"{kind.minimum} to {kind.maximum} {kind.unit}" in _paragraph_of(key)


def test_first_screen_holds_all_that_must_be_changed() -> None:
    first_screen = "\n".join(TEXT.splitlines()[:24])
    assert read_config(first_screen, source=EXAMPLE) == DEFAULTS
