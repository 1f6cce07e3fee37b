"""docs/operations.md: its commands, where no machine is needed for them."""

import re
import shutil
import stat
from pathlib import Path

import pytest

from tests.deploy.conftest import REPOSITORY, RootMaker

pytestmark = pytest.mark.timeout(240)

CLONE = (
    "LICENSE",
    "README.md",
    "config.toml.example",
    "pyproject.toml",
    "requirements.lock",
    "docs/man",
    "src",
    "systemd",
)


def commands_after(words: str) -> str:
    """Return the first shell commands after these words."""
    _before, _words, rest = (REPOSITORY / "docs/operations.md").read_text().partition(words)
    found = re.search(r"^```sh\n(.*?)^```", rest, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_commands_install_it_from_a_clone(make_root: RootMaker, wheels: Path) -> None:
    root = make_root()
    clone = root.path / "srv/clone"
    for name in CLONE:
        source, target = REPOSITORY / name, clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    shutil.copytree(wheels, root.path / "srv/wheels")
    (root.path / "etc/pip.conf").write_text(
        "[global]\nno-index = true\nfind-links = /srv/wheels\nno-compile = true\n"
    )
    root.run("sh", "-euxc", f"cd /srv/clone\n{commands_after('**Any Linux with Python')}").expect_ok()
    assert root.run("kkdcpd", "check").exit_code == 78  # it asks for a certificate
    root.run("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/kkdcpd.service").expect_ok()
    tls = (root.path / "etc/kkdcpd/tls").stat()
    assert (stat.S_IMODE(tls.st_mode), tls.st_gid != 0) == (0o750, True)
