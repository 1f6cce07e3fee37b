"""What single settings hold by default; what is wrong with bad ones is in test_load."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config.addresses import ListenAddress, parse_endpoint
from kkdcpd.config.kinds import Kind, ListOf, Number
from kkdcpd.config.reader import NamedTables, Setting, Table, settings_of
from kkdcpd.config.schema import Config, HttpConfig, RealmConfig, TlsConfig, UpstreamConfig
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


def test_one_realm_is_all_that_must_be_configured() -> None:
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


@pytest.mark.parametrize(("form", "name", "declared"), ALL_SETTINGS)
def test_every_setting_is_described_by_a_sentence(form: type, name: str, declared: Setting) -> None:
    assert declared.description.endswith("."), f"{form.__name__}.{name}"


@pytest.mark.parametrize(
    ("form", "name", "kind"),
    [(form, name, told.kind) for form, name, told in ALL_SETTINGS if isinstance(told.kind, Number)],
)
def test_default_numbers_pass_their_own_bounds(form: Any, name: str, kind: Number) -> None:
    (default,) = (field.default for field in dataclasses.fields(form) if field.name == name)
    assert kind.read(default, name) == default


def test_configuration_can_be_compared_and_hashed() -> None:
    assert {Config(realms=(REALM,)), Config(realms=(REALM,))} == {Config(realms=(REALM,))}
