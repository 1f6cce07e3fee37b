"""The defaults of the settings. Bad values are in the tests of the sections."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config import (
    AdditionalCertificate,
    Config,
    HttpConfig,
    RealmConfig,
    TlsConfig,
    UpstreamConfig,
    sections,
)
from kkdcpd.config.addresses import ListenAddress, parse_endpoint
from kkdcpd.config.kinds import Kind, ListOf
from kkdcpd.config.named_tables import NamedTables
from kkdcpd.config.problems import Location
from kkdcpd.config.reader import Setting, Table, settings_of
from kkdcpd.values import KdcService

REALM = RealmConfig(name="EXAMPLE.COM", kdc=(parse_endpoint("kdc1.example.com", service=KdcService.KDC),))


def _form(kind: Kind[object]) -> Any:
    match kind:
        case Table() | NamedTables():
            return kind.form
        case ListOf(item=Table() as table):
            return table.form
    return None


def _all_settings(form: Any) -> list[tuple[Any, str, Setting]]:
    found = [(form, name, declared) for name, declared in settings_of(form).items()]
    inner = (_form(declared.kind) for _form_, _name, declared in found)
    return found + [entry for table in inner if table for entry in _all_settings(table)]


ALL_SETTINGS = _all_settings(Config)


def test_configuration_needs_only_one_realm() -> None:
    config = Config(realms=(REALM,))
    assert [listener.address for listener in config.listen] == [ListenAddress(host="*", port=443)]
    assert config.listen[0].tls
    assert config.tls == TlsConfig(
        certificate=Path("/etc/kkdcpd/tls/certificate.pem"), key=Path("/etc/kkdcpd/tls/key.pem")
    )


def test_timeouts_suit_the_clients() -> None:
    upstream = UpstreamConfig()
    assert (upstream.connect_timeout, upstream.reach_timeout, upstream.reply_timeout) == (1.5, 5.0, 20.0)
    assert upstream.max_reply_bytes == 1024 * 1024
    assert HttpConfig().max_body_bytes == 256 * 1024


@pytest.mark.parametrize(
    ("form", "name", "declared"), [each for each in ALL_SETTINGS if not _form(each[2].kind)]
)
def test_written_default_is_read_as_the_default(form: type, name: str, declared: Setting) -> None:
    """An empty list of KDCs is the default, but no valid value."""
    if declared.is_required or (form, name) == (RealmConfig, "kdc"):
        return
    text = declared.kind.write(declared.default)
    assert declared.kind.read(tomllib.loads(f"key = {text}")["key"], Location(key=name)) == declared.default


@pytest.mark.parametrize("form", sorted({form for form, _, _ in ALL_SETTINGS}, key=str))
def test_default_section_has_no_problems(form: Any) -> None:
    if form not in {Config, RealmConfig, AdditionalCertificate}:
        assert Table(form=form).read({}, Location()) == form()


def test_configuration_can_be_compared_and_hashed() -> None:
    assert {Config(realms=(REALM,)), Config(realms=(REALM,))} == {Config(realms=(REALM,))}


def test_each_module_of_the_sections_is_in_the_table() -> None:
    modules = {path.stem for path in Path(sections.__path__[0]).glob("*.py")} - {"__init__"}
    assert modules == {form.__module__.rpartition(".")[2] for form, _, _ in ALL_SETTINGS} - {"schema"}
