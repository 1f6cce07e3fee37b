"""Hundreds of slow connections beside a client that behaves well: bench/slow.py, small and untimed."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.slow import Attack, Target, besiege, raise_descriptor_limit
from lab.authority import Authority
from tests.frontends.site import GOOD_BODY, GOOD_REPLY, GOOD_REQUEST, Site, run_site
from tests.support.http_client import HttpClient, post
from tests.support.waiting import eventually

CONNECTIONS = 300
SECONDS = 2.5
"""Twice the timeouts, so that all are cut off and come back."""

MEGABYTES = 200
"""Of resident memory: far less than there would be without bounds, far more than there is."""


@pytest.fixture(scope="module")
def slow_site(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = """
        [http]
        handshake_timeout = 1
        head_timeout = 1
        body_timeout = 1
        keepalive_timeout = 1
        [connections]
        write_timeout = 1
        per_client = 200
    """
    raise_descriptor_limit()
    with run_site(tmp_path_factory.mktemp("slow"), authority, settings) as running:
        yield running


def megabytes(site: Site) -> float:
    status = Path(f"/proc/{site.daemon.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def descriptors(site: Site) -> int:
    return len(list(Path(f"/proc/{site.daemon.pid}/fd").iterdir()))


@pytest.mark.parametrize("attack", Attack, ids=lambda attack: attack.name)
@pytest.mark.parametrize("first", [0, None], ids=["many addresses", "one address"])
def test_good_client_is_served_beside_slow_ones(slow_site: Site, attack: Attack, first: int | None) -> None:
    before = descriptors(slow_site)
    target = Target(
        port=slow_site.daemon.ports[0], connections=CONNECTIONS, first=first, ramp_seconds=SECONDS / 5
    )
    attackers = threading.Thread(target=lambda: asyncio.run(besiege(attack, target, SECONDS)))
    attackers.start()
    served = 0
    while attackers.is_alive():
        response = slow_site.ask(GOOD_REQUEST)
        assert (response.status, response.body) == (200, GOOD_REPLY)
        served += 1
        assert megabytes(slow_site) < MEGABYTES
    attackers.join()
    assert served > 0

    async def are_gone() -> bool:
        return descriptors(slow_site) <= before

    asyncio.run(eventually(are_gone))


def test_many_heads_that_are_too_long_take_no_memory(slow_site: Site) -> None:
    """Each is told, and each is 40 times as long as a head may be."""
    octets = post(GOOD_BODY, *(f"X-{number}: {'a' * 4000}" for number in range(80)))
    slow_site.ask(GOOD_REQUEST)
    before = megabytes(slow_site)
    for _ in range(CONNECTIONS):
        with slow_site.plain_client() as client:
            client.send_what_is_taken(octets)
    assert slow_site.ask(GOOD_REQUEST).status == 200
    assert megabytes(slow_site) < before + 20


def test_many_heads_without_end_take_little_memory(slow_site: Site) -> None:
    octets = post(GOOD_BODY, *(f"X-{number}: {'a' * 4000}" for number in range(2)))[:8000]
    before = megabytes(slow_site)
    clients: list[HttpClient] = []
    try:
        for _ in range(150):
            clients.append(slow_site.plain_client())
            clients[-1].send(octets)
        assert slow_site.ask(GOOD_REQUEST).status == 200
        assert megabytes(slow_site) < before + 20
    finally:
        for client in clients:
            client.socket.close()
