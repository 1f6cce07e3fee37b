"""Texts that tests of configurations share, and helpers that return problems."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kkdcpd.config import Config, load_config, read_config
from kkdcpd.errors import ConfigError

SOURCE = Path("/etc/kkdcpd/config.toml")
NOW = datetime(2026, 2, 1, tzinfo=UTC)

REALM = '[realms."EXAMPLE.COM"]\nkdc = ["kdc1.example.com"]\n'
PLAIN = '[[listen]]\naddress = "127.0.0.1:80"\ntls = false\n'
UNIX = '[[listen]]\naddress = "unix:/run/http.sock"\ntls = false\n'
TRUSTED = '[connections]\ntrusted_proxies = ["192.0.2.1"]\n'

SOUND = REALM + 'kpasswd = ["kdc1.example.com"]\n'
IMPORTING = PLAIN + "[locate]\nkrb5_conf = 'krb5.conf'\n"

KRB5_CONF = """
includedir {directory}/krb5.conf.d
[realms]
 EXAMPLE.COM = {{
  kdc = kdc1.example.com
  kdc = kdc2.example.com:1088
  admin_server = kdc1.example.com:749
 }}
"""

LISTEN_REMEDY = (
    'write an IP address and a port such as "192.0.2.1:443" or "[2001:db8::1]:443", '
    'or "*:443" for all addresses, or "unix:/run/kkdcpd/http.sock"'
)
KDC_REMEDY = (
    'write a host such as "kdc1.example.com", "kdc1.example.com:88", '
    '"tcp://kdc1.example.com" or "[2001:db8::1]"'
)


def problems_of(text: str) -> str:
    """Return the problems of a configuration that is refused, one in each line."""
    with pytest.raises(ConfigError) as caught:
        read_config(text, source=SOURCE)
    return str(caught.value)


def load(tmp_path: Path, text: str, *, now: datetime = NOW) -> tuple[Config, str]:
    path = tmp_path / "config.toml"
    path.write_text(text)
    loaded = load_config(path, now=now)
    return loaded.config, "\n".join(map(str, loaded.warnings))


def refusal_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, now=NOW)
    return str(caught.value)


def write_krb5_conf(directory: Path, *, included: str = "") -> None:
    (directory / "krb5.conf.d").mkdir()
    (directory / "krb5.conf.d" / "site").write_text(included)
    (directory / "krb5.conf").write_text(KRB5_CONF.format(directory=directory))
