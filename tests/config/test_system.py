"""The system's hosts and resolv.conf."""

from pathlib import Path

import pytest

from kkdcpd.config import SystemFiles, read_config


def test_files_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_bytes(b"192.0.2.1 kdc1 \xff\n")
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    system = SystemFiles.read(tmp_path)
    assert system.hosts.startswith("192.0.2.1 kdc1")
    assert system.resolv_conf == "nameserver 192.0.2.53\n"


def test_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert SystemFiles.read(tmp_path) == SystemFiles(hosts="", resolv_conf="")


@pytest.mark.parametrize(
    ("config", "has_warning"),
    [
        ('[realms."A.TEST"]\nkdc = ["192.0.2.1"]', False),
        ('[realms."A.TEST"]\nkdc = ["192.0.2.1"]\nkpasswd = ["[2001:db8::1]"]', False),
        ('[realms."A.TEST"]\nkdc = ["kdc1.a.test"]', True),
        ('[realms."A.TEST"]\nkdc = ["192.0.2.1"]\nkpasswd = ["kdc1.a.test"]', True),
        ('[realms."A.TEST"]\n', True),
        ('[realms."A.TEST"]\n[locate]\nnameservers = ["192.0.2.53"]', False),
    ],
)
def test_resolv_conf_has_warnings_only_if_it_is_used(config: str, *, has_warning: bool) -> None:
    system = SystemFiles(resolv_conf="nameserver dns.example.com\n")
    head = '[[listen]]\naddress = "127.0.0.1:88"\ntls = false\n'
    warnings = system.warnings(read_config(head + config, source=Path("/etc/kkdcpd/config.toml")))
    assert [warning.key for warning in warnings] == ["/etc/resolv.conf line 1"] * has_warning
