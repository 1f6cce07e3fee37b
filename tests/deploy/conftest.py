import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.program import Program, run
from tests.deploy.debian import Root, make_base

REPOSITORY = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-build.lock")
# A limit for hanging programs: on a busy machine with a slow disk, making a Debian takes minutes.
BUILDING_SECONDS = 400.0

RootMaker = Callable[[], Root]


@pytest.fixture(scope="session")
def workshop() -> Iterator[Path]:
    """A folder for big files, which is removed at the end of the session."""
    folder = Path(tempfile.mkdtemp(prefix="kkdcpd-deploy-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def base_in_the_making(workshop: Path) -> Iterator[Program]:
    """The program that makes a Debian in the background."""
    with make_base(workshop / "base") as making:
        yield making


@pytest.fixture(scope="session")
def base(workshop: Path, base_in_the_making: Program, request: pytest.FixtureRequest) -> Path:
    """A Debian that no test writes to."""
    # Most tests that need a base need this package too, so it is built at the same time.
    request.getfixturevalue("deb")
    assert base_in_the_making.wait(timeout=BUILDING_SECONDS) == 0, base_in_the_making.lines
    return workshop / "base"


@pytest.fixture(scope="session")
def furnished(workshop: Path, base: Path) -> str:
    """The base with the programs of administrators and clients, as the base of further roots."""
    with Root(base, workshop / "furnished") as root:
        root.furnish()
    return root.layers


@pytest.fixture(scope="session")
def make_root(workshop: Path, furnished: str) -> Iterator[RootMaker]:
    """Make roots over the furnished base, which exist until the end of the session."""
    with ExitStack() as roots:

        def make() -> Root:
            directory = Path(tempfile.mkdtemp(prefix="root-", dir=workshop))
            return roots.enter_context(Root(furnished, directory))

        yield make


@pytest.fixture(scope="session")
def wheels(workshop: Path) -> Path:
    """The pinned libraries, and pipx's own; with these, no other installation needs a network."""
    folder = workshop / "wheels"
    pip = (
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
    )
    pinned = [word for lock in LOCKS for word in ("--requirement", str(REPOSITORY / lock))]
    run(*pip, "--require-hashes", *pinned, environment=os.environ, timeout=BUILDING_SECONDS).expect_ok()
    run(*pip, "pip", "setuptools", "wheel", environment=os.environ, timeout=BUILDING_SECONDS).expect_ok()
    return folder


@pytest.fixture(scope="session")
def offline(wheels: Path) -> Mapping[str, str]:
    """An environment in which pip finds only these wheels."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {
        **others,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_NO_COMPILE": "1",
        "PIP_NO_INDEX": "1",
    }


PIP_CONF = "[global]\nno-index = true\nfind-links = {wheels}\nno-compile = true\n"
CLONE = (
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "config.toml.example",
    "deploy",
    "docs",
    "pyproject.toml",
    "requirements-build.lock",
    "requirements.lock",
    "src",
    "systemd",
)


def clone(folder: Path) -> None:
    """Copy the files of a clone that an installation needs."""
    for name in CLONE:
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


@pytest.fixture(scope="session")
def deb(workshop: Path, offline: Mapping[str, str]) -> Path:
    """The Debian package, built as by `make deb`."""
    built = workshop / "deb"
    run(
        str(REPOSITORY / "deploy/debian/build"), str(built), environment=offline, timeout=BUILDING_SECONDS
    ).expect_ok()
    (package,) = built.glob("*.deb")
    return package
