"""[admin]: its settings, and its listener apart from the listeners of clients."""

from pathlib import Path

import pytest

from kkdcpd.config import AdminConfig, Config, read_config
from kkdcpd.errors import ConfigError

REALMS = (
    '[realms."EXAMPLE.COM"]\nkdc = ["kdc1.example.com"]\naliases = ["EXAMPLE"]\n[realms."*.EXAMPLE.COM"]\n'
)
LISTEN = '[[listen]]\naddress = "127.0.0.1:80"\ntls = false\n'


def read(admin: str) -> Config:
    return read_config(f"{LISTEN}[admin]\n{admin}\n{REALMS}", source=Path("/etc/kkdcpd/config.toml"))


def test_default_address_is_on_loopback() -> None:
    assert str(AdminConfig().address) == "127.0.0.1:9088"


def test_empty_address_is_no_listener() -> None:
    assert read('address = ""').admin.address is None


@pytest.mark.parametrize("address", ["127.0.0.1:9088", "[::1]:9088", "unix:/run/kkdcpd/admin.sock"])
def test_address_on_this_host_needs_no_more(address: str) -> None:
    assert str(read(f'address = "{address}"').admin.address) == address


def test_any_address_is_valid_with_anywhere() -> None:
    assert str(read('address = "*:9088"\nanywhere = true').admin.address) == "*:9088"


BROKEN = {
    'address = "*:9088"': (
        "admin.address: at *:9088, every host that can connect could read the names of realms and KDCs; "
        "listen on 127.0.0.1, [::1] or a unix socket, or accept it with anywhere = true"
    ),
    'address = "localhost:9088"': (
        'admin.address: "localhost:9088" does not begin with an IP address; write an address of this host '
        'such as "127.0.0.1:9088", or "unix:/run/kkdcpd/admin.sock", or "" for none'
    ),
    'address = "127.0.0.1:80"': (
        "admin.address: 127.0.0.1:80 is taken by listen[0] already (127.0.0.1:80); "
        "give it another port: clients and administrators don't share a listener"
    ),
    'ready_realms = ["EXAMPLE"]': (
        'admin.ready_realms[0]: "EXAMPLE" is no realm of this configuration; '
        'write it as in [realms."EXAMPLE"], neither an alias nor a wildcard, or remove it'
    ),
    'ready_realms = ["EXAMPLE.COM", "EXAMPLE.COM"]': (
        "admin.ready_realms[1]: is the same as admin.ready_realms[0]; remove one of them"
    ),
    'ready_realms = ["*.EXAMPLE.COM"]': (
        'admin.ready_realms[0]: "*.EXAMPLE.COM" has a * in it; '
        'write the name of a realm, such as "EXAMPLE.COM"'
    ),
}


@pytest.mark.parametrize("admin", BROKEN)
def test_bad_value_is_refused_with_its_remedy(admin: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(admin)
    assert str(caught.value) == BROKEN[admin]
