"""What every test may use: the service's event loop, no blocking in it, and a certificate authority."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop
from blockbuster import blockbuster_ctx

from kkdcpd.log.areas import AREAS
from lab.authority import Authority

SERVICE_LOOP: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
LOOPS = {"asyncio": asyncio.new_event_loop, **SERVICE_LOOP}

pytest_plugins = ["tests.support.processes"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make nightly` run what `make test` leaves out."""
    parser.addoption(
        "--both-loops",
        action="store_true",
        help="run asynchronous tests on asyncio's own event loop too, which the service never runs",
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each asynchronous test on the service's event loop, and on request on both."""
    return LOOPS if config.getoption("--both-loops") else SERVICE_LOOP


@pytest.fixture(autouse=True)
def blockbuster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let whatever blocks the event loop of an asynchronous test fail, in the test's own code too."""
    with blockbuster_ctx() if request.node.get_closest_marker("asyncio") else contextlib.nullcontext():
        yield


@pytest.fixture(autouse=True)
def logging_stays() -> Iterator[None]:
    """Have logging as it was before once the test is over: some of them run commands in this process."""
    root = logging.getLogger()
    loggers = [logging.getLogger(name) for name in AREAS.values()]
    handlers, levels, hook = root.handlers[:], [each.level for each in loggers], sys.unraisablehook
    switches = {name: getattr(logging, name) for name in dir(logging) if name.startswith("log")}
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


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the tests' clients trust."""
    return Authority(tmp_path_factory.mktemp("authority"))
