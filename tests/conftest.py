"""What every test may use: both event loops, no blocking in either, and a certificate authority."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop
from blockbuster import blockbuster_ctx

from lab.authority import Authority

LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each asynchronous test on both event loops."""
    return LOOPS


@pytest.fixture(autouse=True)
def blockbuster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let whatever blocks the event loop of an asynchronous test fail, in the test's own code too."""
    with blockbuster_ctx() if request.node.get_closest_marker("asyncio") else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the tests' clients trust."""
    return Authority(tmp_path_factory.mktemp("authority"))
