import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from kkdcpd.locate.cldap_ping import GRACE_SECONDS, MAX_ADDRESSES, MAX_DATAGRAMS, CldapPinger

DOMAIN = "corp.ad.test"
MESSAGE_ID = 2**31 - 1
# The answer of Samba 4.17.12, and its answer without facts.
ANSWER = bytes.fromhex(
    "307902047fffffff64710400306d306b04086e65746c6f676f6e315f045d17000000fd1300006c755178af2eff44a7cbe4de"
    "f8bdf5b504636f7270026164047465737400c01803646331c01804434f5250000344433100001744656661756c742d466972"
    "73742d536974652d4e616d6500c03a05000000ffffffff300f02047fffffff65070a010004000400"
)
NOTHING = bytes.fromhex("300f02047fffffff65070a010004000400")
WRONG_ID = ANSWER.replace(b"\x7f\xff\xff\xff", b"\x7f\xff\xff\xfe")
WRONG_DOMAIN = ANSWER.replace(b"\x04corp", b"\x04evil")
HUGE = b"\x30\x84\x00\x01\x00\x00" + bytes(60000)

SECONDS = 2.0
"""The deadline of pings without answer. Tests on loopback need no more."""


@dataclass
class FakeController(asyncio.DatagramProtocol):
    """A domain controller on a loopback address that answers each ping with `datagrams`."""

    datagrams: Sequence[bytes]
    delay: float = 0.0
    pings: list[bytes] = field(default_factory=list)
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)  # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.pings.append(data)
        asyncio.get_running_loop().call_later(self.delay, self._answer, addr)

    def _answer(self, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        for datagram in self.datagrams:
            self.transport.sendto(datagram, addr)


class Controllers:
    """Controllers on 127.0.0.1, 127.0.0.2 and so on, with the same port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.running: dict[str, FakeController] = {}

    async def start(self, address: str, *datagrams: bytes, delay: float = 0.0) -> FakeController:
        controller = FakeController(datagrams, delay)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: controller, local_addr=(address, self.port))
        self.running[address] = controller
        return controller

    async def ping(self, *addresses: str, seconds: float = SECONDS) -> list[str]:
        """Ping the controllers; return the addresses that answered, in order."""
        pinger = CldapPinger(port=self.port, choose_id=lambda: MESSAGE_ID)
        deadline = asyncio.get_running_loop().time() + seconds
        answers = await pinger.ping(addresses, DOMAIN, deadline)
        assert all(facts.host == "dc1.corp.ad.test" for facts in answers.values())
        return list(answers)

    def close(self) -> None:
        for controller in self.running.values():
            if controller.transport is not None:
                controller.transport.close()


@pytest.fixture
async def controllers() -> AsyncIterator[Controllers]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with contextlib.closing(Controllers(port)) as running:
        yield running
    await asyncio.sleep(0)  # uvloop closes sockets in the next round of its loop


async def timed(ping: Callable[[], Awaitable[list[str]]]) -> tuple[list[str], float]:
    started = asyncio.get_running_loop().time()
    return await ping(), asyncio.get_running_loop().time() - started


async def test_facts_are_returned_by_address(controllers: Controllers) -> None:
    controller = await controllers.start("127.0.0.1", ANSWER)
    assert await controllers.ping("127.0.0.1") == ["127.0.0.1"]
    assert len(controller.pings) == 1


async def test_ipv6_is_pinged_too(controllers: Controllers) -> None:
    await controllers.start("::1", ANSWER)
    assert await controllers.ping("::1") == ["::1"]


async def test_answers_are_returned_in_their_order_of_arrival(controllers: Controllers) -> None:
    await controllers.start("127.0.0.1", ANSWER, delay=0.1)
    await controllers.start("127.0.0.2", ANSWER)
    assert await controllers.ping("127.0.0.1", "127.0.0.2") == ["127.0.0.2", "127.0.0.1"]


async def test_address_named_twice_is_pinged_once(controllers: Controllers) -> None:
    controller = await controllers.start("127.0.0.1", ANSWER)
    assert await controllers.ping("127.0.0.1", "127.0.0.1") == ["127.0.0.1"]
    assert len(controller.pings) == 1


async def test_no_address_has_no_answer(controllers: Controllers) -> None:
    answers, seconds = await timed(controllers.ping)
    assert (answers, seconds < SECONDS) == ([], True)


async def test_silent_controller_costs_the_grace_period_at_most(controllers: Controllers) -> None:
    await controllers.start("127.0.0.1")
    await controllers.start("127.0.0.2", ANSWER)
    answers, seconds = await timed(lambda: controllers.ping("127.0.0.1", "127.0.0.2", seconds=5))
    assert answers == ["127.0.0.2"]
    assert GRACE_SECONDS <= seconds < 2


async def test_pings_without_answer_end_at_the_deadline(controllers: Controllers) -> None:
    await controllers.start("127.0.0.1")
    answers, seconds = await timed(lambda: controllers.ping("127.0.0.1"))
    assert answers == []
    assert SECONDS * 0.9 <= seconds < SECONDS + 1


async def test_past_deadline_has_no_answer(controllers: Controllers) -> None:
    await controllers.start("127.0.0.1", ANSWER)
    assert await controllers.ping("127.0.0.1", seconds=-1) == []


async def test_closed_port_ends_the_ping_at_once(controllers: Controllers) -> None:
    answers, seconds = await timed(lambda: controllers.ping("127.0.0.1", "127.0.0.2", seconds=5))
    assert answers == []
    assert seconds < 2


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1.1", "256.0.0.1"])
async def test_invalid_address_has_no_answer(controllers: Controllers, address: str) -> None:
    await controllers.start("127.0.0.1", ANSWER)
    assert await controllers.ping(address, "127.0.0.1") == ["127.0.0.1"]


@pytest.mark.parametrize(
    "datagrams",
    [
        pytest.param((b"garbage",), id="garbage"),
        pytest.param((b"",), id="empty"),
        pytest.param((ANSWER[:60],), id="truncated"),
        pytest.param((HUGE,), id="huge"),
        pytest.param((WRONG_ID,), id="wrong message id"),
        pytest.param((WRONG_DOMAIN,), id="another domain"),
        pytest.param((NOTHING,), id="not of the domain"),
        pytest.param((WRONG_ID,) * (MAX_DATAGRAMS + 1) + (ANSWER,), id="a stream of datagrams"),
    ],
)
async def test_faulty_controller_does_not_affect_the_others(
    controllers: Controllers, datagrams: tuple[bytes, ...]
) -> None:
    await controllers.start("127.0.0.1", *datagrams)
    await controllers.start("127.0.0.2", ANSWER, delay=0.05)
    assert await controllers.ping("127.0.0.1", "127.0.0.2") == ["127.0.0.2"]


async def test_invalid_datagrams_before_the_answer_are_ignored(controllers: Controllers) -> None:
    await controllers.start("127.0.0.1", WRONG_ID, b"garbage", ANSWER)
    assert await controllers.ping("127.0.0.1") == ["127.0.0.1"]


async def test_controller_of_another_domain_ends_the_ping_at_once(controllers: Controllers) -> None:
    await controllers.start("127.0.0.1", NOTHING)
    answers, seconds = await timed(lambda: controllers.ping("127.0.0.1", seconds=5))
    assert (answers, seconds < 2) == ([], True)


async def test_number_of_pings_is_limited(controllers: Controllers) -> None:
    addresses = [f"127.0.1.{number}" for number in range(1, MAX_ADDRESSES + 3)]
    for address in addresses:
        await controllers.start(address, ANSWER, delay=0.01)
    answers = await controllers.ping(*addresses, seconds=5)
    assert set(answers) <= set(addresses[:MAX_ADDRESSES])
    assert answers
    assert not any(controllers.running[address].pings for address in addresses[MAX_ADDRESSES:])


async def test_message_ids_differ(controllers: Controllers) -> None:
    controller = await controllers.start("127.0.0.1", WRONG_ID)
    for _ in range(2):
        deadline = asyncio.get_running_loop().time() + 0.1
        assert not await CldapPinger(port=controllers.port).ping(["127.0.0.1"], DOMAIN, deadline)
    assert len(set(controller.pings)) == 2


async def test_cancelled_ping_leaves_no_task(controllers: Controllers) -> None:
    await controllers.start("127.0.0.1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await controllers.ping("127.0.0.1", seconds=5)
    assert {task for task in asyncio.all_tasks() if "LDAP" in task.get_name()} == set()
