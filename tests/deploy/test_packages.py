"""Wheel and sdist: their files, and each way to install them ends in a kkdcpd that runs."""

import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from kkdcpd import __version__
from lab.program import run
from tests.deploy.conftest import BUILDING_SECONDS, REPOSITORY

pytestmark = pytest.mark.timeout(900)

PAGES = ("share/man/man8/kkdcpd.8", "share/man/man5/kkdcpd.toml.5")


@pytest.fixture(scope="module")
def dist(workshop: Path, offline: Mapping[str, str]) -> Path:
    """The sdist from the tree, and the wheel from the sdist, which so has all files of the wheel."""
    folder = workshop / "dist"
    uv = str(Path(sys.executable).with_name("uv"))
    options = ("--offline", "--no-build-isolation", f"--python={sys.executable}", f"--out-dir={folder}")
    run(uv, "build", *options, str(REPOSITORY), environment=offline, timeout=BUILDING_SECONDS).expect_ok()
    return folder


@pytest.fixture(scope="module")
def sdist(dist: Path) -> Path:
    (found,) = dist.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def expect_to_run(program: Path) -> None:
    result = run(str(program), "--version", environment={"PATH": "/usr/bin:/bin"}).expect_ok()
    assert result.output == f"kkdcpd {__version__}\n"
    checked = run(str(program), "check", "--config", "/nowhere", environment={"PATH": "/usr/bin:/bin"})
    assert checked.exit_code == 78


def test_sdist_has_what_a_packager_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "config.toml.example",
        "deploy/container/Containerfile",
        "deploy/debian/rules",
        "deploy/fail2ban/filter.d/kkdcpd.conf",
        "docs/man/kkdcpd.8",
        "docs/operations.md",
        "lab/install-packages",
        "requirements-build.lock",
        "requirements.lock",
        "systemd/examples/certbot-deploy-hook",
        "systemd/kkdcpd-agent.service",
        "systemd/kkdcpd-agent.socket",
        "systemd/kkdcpd.service",
        "systemd/kkdcpd.socket",
        "systemd/user/kkdcpd-agent.service",
        "tests/deploy/test_packages.py",
    ):
        assert name in names


def test_wheel_has_the_package_and_the_man_pages_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names}
    assert roots == {"kkdcpd", f"kkdcpd-{__version__}.data", f"kkdcpd-{__version__}.dist-info"}
    for page in PAGES:
        assert f"kkdcpd-{__version__}.data/data/{page}" in names


def test_wheel_runs_with_the_locked_libraries_alone(
    wheel: Path, offline: Mapping[str, str], tmp_path: Path
) -> None:
    venv.create(tmp_path, with_pip=False)
    pip = (sys.executable, "-m", "pip", "--python", str(tmp_path / "bin/python"), "install", "--quiet")
    lock = str(REPOSITORY / "requirements.lock")
    locked = ("--require-hashes", "--requirement", lock)
    run(*pip, *locked, environment=offline, timeout=BUILDING_SECONDS).expect_ok()
    run(*pip, "--no-deps", str(wheel), environment=offline).expect_ok()
    run(*pip[:-2], "check", environment=offline).expect_ok()
    expect_to_run(tmp_path / "bin/kkdcpd")
    for page in PAGES:
        assert (tmp_path / page).is_file()


def test_pipx_installs_it(wheel: Path, offline: Mapping[str, str], tmp_path: Path) -> None:
    folders = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    environment = {**offline, **folders, "PATH": "/usr/bin:/bin"}
    command = ("pipx", "install", "--python", "/usr/bin/python3", str(wheel))
    run(*command, environment=environment, timeout=BUILDING_SECONDS).expect_ok()
    expect_to_run(tmp_path / "bin/kkdcpd")
