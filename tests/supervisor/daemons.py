"""Helpers for tests that start daemons with plain HTTP listeners."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from lab.daemon import Daemon
from tests.support.fake_kdc import FakeKdcThread
from tests.support.http_client import HttpClient

__all__ = ["SECONDS_TO_STOP", "Start", "config", "wait_until_refused"]

SECONDS_TO_STOP = 5.0
"""Less than each timeout that could end a process by itself."""

Start = Callable[..., Daemon]


def config(kdc: FakeKdcThread, *addresses: str, extra: str = "", process: str = "drain_timeout = 2\n") -> str:
    listeners = "".join(
        f'[[listen]]\naddress = "{address}"\ntls = false\nplain_http_anywhere = true\n{extra}\n'
        for address in addresses
    )
    realm = f'[realms."EXAMPLE.COM"]\nkdc = ["tcp://127.0.0.1:{kdc.port}"]\n'
    return f'{listeners}{realm}[admin]\naddress = ""\n[process]\ncontrol = ""\n{process}'


def wait_until_refused(address: int | Path) -> None:
    """Wait until a daemon that stops accepts no more connections."""
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            with contextlib.suppress(ConnectionResetError):
                HttpClient(address).socket.close()
