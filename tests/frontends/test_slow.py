"""Hundreds of slow connections beside an honest client: bench/slow.py, small and untimed."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from bench.slow import BIG_REALM, BIG_REPLY, Attack, attack_once, raise_descriptor_limit
from lab.authority import Authority
from tests.frontends.site import GOOD_BODY, GOOD_REPLY, GOOD_REQUEST, Site, run_site
from tests.support.fake_kdc import FakeKdcThread, reply
from tests.support.http_client import HttpClient, post
from tests.support.waiting import eventually

EACH = 30
"""Connections of each attack."""

PER_CLIENT = 150

TIMEOUT = 4.0
"""Of everything that a client may take its time with: several times what the handshakes of all take."""

PATIENCE_SECONDS = 60.0

LITTLE = 20
"""MiB of resident memory: ten times what the test takes, and a fraction of what is tried."""


@pytest.fixture(scope="module")
def big_kdc() -> Iterator[FakeKdcThread]:
    with FakeKdcThread(tcp=reply(BIG_REPLY)) as running:
        yield running


@pytest.fixture
def slow_site(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory, big_kdc: FakeKdcThread
) -> Iterator[Site]:
    settings = f"""
        [realms."{BIG_REALM}"]
        kdc = ["tcp://127.0.0.1:{big_kdc.port}"]
        [http]
        handshake_timeout = {TIMEOUT}
        head_timeout = {TIMEOUT}
        body_timeout = {TIMEOUT}
        keepalive_timeout = {TIMEOUT}
        [connections]
        write_timeout = {TIMEOUT}
        per_client = {PER_CLIENT}
        [process]
        workers = 1
        control = ""
    """
    raise_descriptor_limit()
    with run_site(tmp_path_factory.mktemp("slow"), authority, settings) as running:
        running.ask(GOOD_REQUEST)  # what is opened at the first request is open
        yield running


async def _is_held(attack: Attack, port: int, address: str) -> bool:
    """Whether the connection was let in, and cut off no sooner than it may be."""
    started = asyncio.get_running_loop().time()
    try:
        await attack_once(attack, port, address)
    except OSError:
        return False
    return asyncio.get_running_loop().time() - started > TIMEOUT / 2


async def _hold_all(attackers: Sequence[tuple[Attack, str]], port: int) -> Counter[Attack]:
    """Have all attack at once; wait until the last one is cut off, and return how many were held."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        held = await asyncio.gather(*(_is_held(attack, port, address) for attack, address in attackers))
    return Counter(attack for (attack, _), is_held in zip(attackers, held, strict=True) if is_held)


def besiege(site: Site, attackers: Sequence[tuple[Attack, str]]) -> Counter[Attack]:
    """Attack, with a good client beside it that must always be served; return how many were held."""
    places = site.daemon.descriptors + 1  # the last good client's may be closing
    with ThreadPoolExecutor(1) as thread:
        siege: Future[Counter[Attack]] = thread.submit(
            lambda: asyncio.run(_hold_all(attackers, site.daemon.ports[0]))
        )
        is_over = threading.Event()
        siege.add_done_callback(lambda _: is_over.set())
        while not is_over.wait(0.05):  # well below guard.rates.client_rate
            response = site.ask(GOOD_REQUEST)
            assert (response.status, response.body) == (200, GOOD_REPLY)

    async def are_given_back() -> bool:
        return site.daemon.descriptors <= places

    asyncio.run(eventually(are_given_back))
    return siege.result()


def test_slow_clients_are_disconnected_while_others_are_served(slow_site: Site) -> None:
    attackers = [
        (attack, f"127.1.{number // 250}.{number % 250 + 1}")
        for number, attack in enumerate([*Attack] * EACH)
    ]
    assert besiege(slow_site, attackers) == dict.fromkeys(Attack, EACH)


def test_slow_client_has_no_more_connections_than_its_limit(slow_site: Site) -> None:
    attackers = [(Attack.HEADS, "127.9.9.9")] * (PER_CLIENT + 50)
    assert besiege(slow_site, attackers) == {Attack.HEADS: PER_CLIENT}


def test_memory_goes_back_to_the_system_after_a_load(slow_site: Site) -> None:
    before = slow_site.daemon.megabytes
    attackers = [(Attack.BIG_BODIES, f"127.1.1.{number + 1}") for number in range(200)]
    with ThreadPoolExecutor(1) as thread:
        siege = thread.submit(lambda: asyncio.run(_hold_all(attackers, slow_site.daemon.ports[0])))
        most = before
        while not siege.done():
            most = max(most, slow_site.daemon.megabytes)
            time.sleep(0.05)
    assert siege.result() == {Attack.BIG_BODIES: len(attackers)}
    assert most > before + LITTLE

    async def is_given_back() -> bool:
        return slow_site.daemon.megabytes < before + LITTLE / 2

    asyncio.run(eventually(is_given_back))


def test_heads_that_are_too_long_take_no_memory(slow_site: Site) -> None:
    """Each head is 40 times as long as the limit, and gets a refusal."""
    raw = post(GOOD_BODY, *(f"X-{number}: {'a' * 4000}" for number in range(80)))
    before = slow_site.daemon.megabytes
    for _ in range(300):
        with slow_site.plain_client() as client:
            client.send_until_closed(raw)
    assert slow_site.ask(GOOD_REQUEST).status == 200
    assert slow_site.daemon.megabytes < before + LITTLE


def test_heads_without_end_take_little_memory(slow_site: Site) -> None:
    raw = post(GOOD_BODY, *(f"X-{number}: {'a' * 4000}" for number in range(2)))[:8000]
    before = slow_site.daemon.megabytes
    clients: list[HttpClient] = []
    try:
        for _ in range(PER_CLIENT - 10):
            clients.append(slow_site.plain_client())
            clients[-1].send(raw)
        assert slow_site.ask(GOOD_REQUEST).status == 200
        assert slow_site.daemon.megabytes < before + LITTLE
    finally:
        for client in clients:
            client.socket.close()
