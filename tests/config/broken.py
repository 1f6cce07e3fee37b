"""Texts that broken configurations share, and the problems of a configuration."""

from pathlib import Path

import pytest

from kkdcpd.config import read_config
from kkdcpd.errors import ConfigError

SOURCE = Path("/etc/kkdcpd/config.toml")

REALM = '[realms."EXAMPLE.COM"]\nkdc = ["kdc1.example.com"]\n'
PLAIN = '[[listen]]\naddress = "127.0.0.1:80"\ntls = false\n'
UNIX = '[[listen]]\naddress = "unix:/run/http.sock"\ntls = false\n'
TRUSTED = '[connections]\ntrusted_proxies = ["192.0.2.1"]\n'

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
