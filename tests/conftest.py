"""Sets up all tests: the event loop, blocking calls, the number of examples, and a certificate authority."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping

import hypothesis
import pytest
import uvloop
from blockbuster import blockbuster_ctx

from kkdcpd.log.areas import AREAS
from lab.authority import Authority

SERVICE_LOOP: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
LOOPS = {"asyncio": asyncio.new_event_loop, **SERVICE_LOOP}

pytest_plugins = ["tests.support.processes"]

# The same few examples in every run, or many random ones.
hypothesis.settings.register_profile("usual", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=2000)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make nightly`."""
    parser.addoption(
        "--nightly",
        action="store_true",
        help="run asynchronous tests on asyncio's event loop too, which the service never uses, and property "
        "tests with many random examples",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the number of examples before any property test is defined."""
    hypothesis.settings.load_profile("nightly" if config.getoption("--nightly") else "usual")


def pytest_asyncio_loop_factories(
    config: pytest.Config,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on the service's event loop, and at night on asyncio's too."""
    return LOOPS if config.getoption("--nightly") else SERVICE_LOOP


@pytest.fixture
def may_answer() -> asyncio.Event:
    """Set when the KDC may answer: from the start, unless a test clears it."""
    event = asyncio.Event()
    event.set()
    return event


@pytest.fixture
def is_nightly(request: pytest.FixtureRequest) -> bool:
    """Whether a test has the time to go through all cases."""
    return bool(request.config.getoption("--nightly"))


@pytest.fixture(autouse=True)
def blockbuster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let an asynchronous test fail if the test or the tested code blocks the event loop."""
    with blockbuster_ctx() if request.node.get_closest_marker("asyncio") else contextlib.nullcontext():
        yield


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Restore the state of logging after each test: some tests run commands in this process."""
    root = logging.getLogger()
    loggers = [logging.getLogger(name) for name in AREAS.values()]
    handlers, levels, hook = root.handlers[:], [each.level for each in loggers], sys.unraisablehook
    switches = {name: getattr(logging, name) for name in LOGGING_SWITCHES}
    source_file = logging._srcfile
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    sys.unraisablehook = hook
    root.handlers[:] = handlers
    logging._srcfile = source_file
    for name, value in switches.items():
        setattr(logging, name, value)
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)


LOGGING_SWITCHES = tuple(name for name in dir(logging) if name.startswith("log"))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certificate authority that the tests' clients trust."""
    return Authority(tmp_path_factory.mktemp("authority"))
