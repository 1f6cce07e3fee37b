"""Reads hosts(5) and resolv.conf(5), before the event loop runs, because reading blocks."""

import ipaddress
from pathlib import Path
from typing import Self

from kkdcpd.config.resolv_conf import ResolvConf, read_resolv_conf
from kkdcpd.config.schema import Config
from kkdcpd.config.sections.realms import RealmConfig
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["SystemFiles"]

RESOLV_CONF = "/etc/resolv.conf"


@frozen
class SystemFiles:
    """The texts of hosts(5) and resolv.conf(5). A missing file is empty."""

    hosts: str = ""
    resolv_conf: str = ""

    @classmethod
    def read(cls, directory: Path = Path("/etc")) -> Self:
        """Read both files."""
        return cls(hosts=_text(directory / "hosts"), resolv_conf=_text(directory / "resolv.conf"))

    def resolver(self) -> ResolvConf:
        """Return the contents of resolv.conf."""
        return read_resolv_conf(self.resolv_conf, RESOLV_CONF)

    def warnings(self, config: Config) -> tuple[ConfigProblem, ...]:
        """Return the warnings about resolv.conf, if the configuration depends on it."""
        if config.locate.nameservers or not any(map(_needs_dns, config.realms)):
            return ()
        return self.resolver().warnings


def _needs_dns(realm: RealmConfig) -> bool:
    specs = (*realm.kdc, *realm.primary_kdc, *realm.kpasswd)
    return realm.discovery != "none" or not all(_is_address(spec.host) for spec in specs)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
