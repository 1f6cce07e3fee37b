"""The Debian package without a running machine: the files that it installs and removes."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.authority import Authority
from lab.program import run
from tests.deploy.conftest import BUILDING_SECONDS, RootMaker
from tests.deploy.debian import Root

pytestmark = pytest.mark.timeout(900)

CONFIG = '[realms."KK.TEST"]\nkdc = ["192.0.2.1"]\nkpasswd = ["192.0.2.1"]\n'


@pytest.fixture
def root(make_root: RootMaker) -> Root:
    return make_root()


@pytest.fixture(scope="module")
def installed(make_root: RootMaker, deb: Path) -> tuple[Root, Mapping[str, int]]:
    """A root with the package, and the files before it."""
    root = make_root()
    before = root.files()
    root.install(deb)
    return root, before


def put_certificate(root: Root, authority: Authority) -> None:
    pair = authority.issue("kerberos.example.com", file_name="deb")
    tls = root.path / "etc/kkdcpd/tls"
    (tls / "certificate.pem").write_bytes(pair.certificate.read_bytes())
    key = tls / "key.pem"
    key.write_bytes(pair.key.read_bytes())
    root.run("chgrp", "kkdcpd-tls", "/etc/kkdcpd/tls/key.pem").expect_ok()
    key.chmod(0o640)


def test_package_has_all_files_and_enables_no_unit(
    installed: tuple[Root, Mapping[str, int]],
) -> None:
    root, before = installed
    brought = {name: mode for name, mode in root.files().items() if name not in before}
    for name in (
        "/etc/kkdcpd/config.toml",
        "/usr/bin/kkdcpd",
        "/usr/lib/systemd/system/kkdcpd-agent.service",
        "/usr/lib/systemd/system/kkdcpd-agent.socket",
        "/usr/lib/systemd/system/kkdcpd.service",
        "/usr/lib/systemd/system/kkdcpd.socket",
        "/usr/lib/systemd/user/kkdcpd-agent.service",
        "/usr/lib/sysusers.d/kkdcpd.conf",
        "/usr/share/doc/kkdcpd/README.md.gz",
        "/usr/share/man/man5/kkdcpd.toml.5.gz",
        "/usr/share/man/man8/kkdcpd.8.gz",
    ):
        assert name in brought
    assert not [name for name in brought if name.startswith("/etc/systemd")]
    assert stat.S_IMODE(brought["/etc/kkdcpd/tls"]) == 0o750
    assert (root.path / "etc/kkdcpd/tls").stat().st_gid == _gid(root, "kkdcpd-tls")


def test_check_asks_for_a_certificate_and_takes_one_that_the_group_may_read(
    installed: tuple[Root, Mapping[str, int]], authority: Authority
) -> None:
    root, _before = installed
    checked = root.run("kkdcpd", "check")
    assert (checked.exit_code, "/etc/kkdcpd/tls/certificate.pem" in checked.output) == (78, True)
    put_certificate(root, authority)
    (root.path / "etc/kkdcpd/config.toml").write_text(CONFIG)
    key = root.path / "etc/kkdcpd/tls/key.pem"
    key.chmod(0o600)
    checked = root.run("kkdcpd", "check")
    assert checked.exit_code == 78
    assert "chgrp kkdcpd-tls /etc/kkdcpd/tls/key.pem && chmod 0640 /etc/kkdcpd/tls/key.pem" in checked.output
    key.chmod(0o640)
    checked = root.run("kkdcpd", "check").expect_ok()
    assert checked.output == (
        "/etc/kkdcpd/config.toml: valid; realms: KK.TEST\nthe files were read as kkdcpd\n"
    )


def test_purge_removes_all_files(root: Root, deb: Path) -> None:
    before = root.files()
    root.install(deb)
    root.run("kkdcpd", "check")
    root.run("dpkg", "--purge", "kkdcpd").expect_ok()
    # systemd-sysusers and groupdel each leave the last version of the files that they write.
    backups = {f"/etc/{name}-" for name in ("group", "gshadow", "passwd", "shadow")}
    assert root.files().keys() - before.keys() - backups == set()
    assert "kkdcpd" not in (root.path / "etc/group").read_text()


def test_purge_keeps_an_administrators_key_and_its_group(root: Root, deb: Path, authority: Authority) -> None:
    root.install(deb)
    put_certificate(root, authority)
    root.run("dpkg", "--purge", "kkdcpd").expect_ok()
    key = root.path / "etc/kkdcpd/tls/key.pem"
    assert key.stat().st_gid == _gid(root, "kkdcpd-tls")


def test_lintian_finds_no_fault(deb: Path) -> None:
    command = ("lintian", "--allow-root", "--fail-on", "error,warning", str(deb))
    run(*command, environment=os.environ, timeout=BUILDING_SECONDS).expect_ok()


def _gid(root: Root, group: str) -> int:
    (line,) = (it for it in (root.path / "etc/group").read_text().splitlines() if it.startswith(f"{group}:"))
    return int(line.split(":")[2])
