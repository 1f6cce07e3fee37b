"""Fixtures that start daemons with plain HTTP listeners and one scripted KDC."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.daemon import Daemon
from lab.program import Completed, run
from tests.frontends.site import REPLY_PAYLOAD
from tests.supervisor.daemons import Start, config
from tests.support.fake_kdc import FakeKdcThread, reply


@pytest.fixture
def kdc(may_answer: asyncio.Event) -> Iterator[FakeKdcThread]:
    with FakeKdcThread(tcp=reply(REPLY_PAYLOAD, when=may_answer)) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, kdc: FakeKdcThread) -> Iterator[Start]:
    """Start daemons, each in a folder of its own."""
    with contextlib.ExitStack() as stack:

        def start(*addresses: str, **settings: str) -> Daemon:
            folder = tmp_path / f"daemon-{len(list(tmp_path.glob('daemon-*')))}"
            return stack.enter_context(Daemon(folder, config(kdc, *addresses, **settings)))

        yield start


@pytest.fixture
def fail_to_start(tmp_path: Path, kdc: FakeKdcThread) -> Callable[..., Completed]:
    """Run a daemon that ends by itself."""

    def fail(*addresses: str) -> Completed:
        path = tmp_path / "failing.toml"
        path.write_text(config(kdc, *addresses))
        return run(sys.executable, "-m", "kkdcpd", "--config", str(path), environment=os.environ)

    return fail
