"""The ways to install kkdcpd that README and docs/operations.md print, as far as they need no machine."""

import shutil
import stat
from pathlib import Path

import pytest

from tests.deploy.conftest import PIP_CONF, RootMaker, clone
from tests.deploy.debian import Root
from tests.deploy.printed import block

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def root(make_root: RootMaker, wheels: Path) -> Root:
    """A root with a clone, in which pip needs no network."""
    root = make_root()
    clone(root.path / "srv/clone")
    shutil.copytree(wheels, root.path / "srv/wheels")
    (root.path / "etc/pip.conf").write_text(PIP_CONF.format(wheels="/srv/wheels"))
    return root


def run_block(root: Root, document: str, words: str) -> None:
    root.run("sh", "-euxc", f"cd /srv/clone\n{block(document, 'sh', words).text}").expect_ok()


def test_commands_of_operations_install_it_from_a_clone(root: Root) -> None:
    run_block(root, "docs/operations.md", "python3 -m venv /opt/kkdcpd")
    assert root.run("kkdcpd", "check").exit_code == 78  # kkdcpd reports the missing certificate
    root.run("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/kkdcpd.service").expect_ok()
    tls = (root.path / "etc/kkdcpd/tls").stat()
    assert (stat.S_IMODE(tls.st_mode), tls.st_gid != 0) == (0o750, True)


def test_commands_of_readme_install_it_from_a_clone(root: Root) -> None:
    run_block(root, "README.md", "python3 -m venv /opt/kkdcpd")
    assert root.run("/opt/kkdcpd/bin/kkdcpd", "check").exit_code == 78


def test_commands_build_and_install_the_debian_package(root: Root) -> None:
    root.run("apt-get", "update", "-qq").expect_ok()
    # As apt does without a user: no answer to questions.
    (root.path / "etc/apt/apt.conf.d/test").write_text('APT::Get::Assume-Yes "true";\n')
    run_block(root, "docs/operations.md", "make deb")
    assert root.run("kkdcpd", "check").exit_code == 78
