"""One DNS server: EDNS if supported, TCP for long answers, and retransmissions."""

import asyncio

import dns.name
import pytest

from kkdcpd.config import Nameserver
from kkdcpd.locate.dns_wire import RecordType, Response
from kkdcpd.locate.nameserver import RETRY_SECONDS, NameserverClient
from tests.support.fake_dns import FakeDns, Habits, serving

PATIENCE = 2.0
ZONE = "kdc1.kk.test 60 A 192.0.2.1\nkdc2.kk.test 60 A 192.0.2.2\n" + "\n".join(
    f"many.kk.test 60 A 192.0.2.{number}" for number in range(1, 100)
)


def _client(server: FakeDns) -> NameserverClient:
    return NameserverClient(Nameserver(host=server.address, port=server.port))


async def _ask(client: NameserverClient, host: str = "kdc1") -> Response:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    return await client.ask(dns.name.from_text(f"{host}.kk.test"), RecordType.A, deadline)


def _edns(server: FakeDns) -> tuple[int, int]:
    """Return the number of queries with EDNS, and of queries without."""
    with_edns = sum(count for (_, _, has_edns), count in server.asked.items() if has_edns)
    return with_edns, server.asked.total() - with_edns


async def test_server_with_edns_gets_one_query() -> None:
    async with serving(ZONE) as server:
        client = _client(server)
        for _ in range(3):
            response = await _ask(client)
            assert response.found
            assert response.found.records == ("192.0.2.1",)
        assert _edns(server) == (3, 0)


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP", "BADVERS", "SERVFAIL"])
async def test_server_that_refuses_edns_gets_plain_queries_from_then_on(rcode: str) -> None:
    async with serving(ZONE, Habits(edns=rcode)) as server:
        client = _client(server)
        for _ in range(3):
            response = await _ask(client)
            assert response.found
            assert response.found.records == ("192.0.2.1",)
        assert _edns(server) == (1, 3)


async def test_server_that_drops_edns_gets_plain_queries_from_then_on() -> None:
    async with serving(ZONE, Habits(edns="drop")) as server:
        client = _client(server)
        for _ in range(6):
            assert (await _ask(client)).found
        assert _edns(server) == (2, 6)


async def test_server_that_supports_edns_again_gets_edns_queries_and_no_client_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kkdcpd.locate.nameserver.PLAIN_SECONDS", 0.0)
    async with serving(ZONE, Habits(edns="FORMERR")) as server:
        client = _client(server)
        await _ask(client)
        server.habits = Habits(edns="drop")
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert (await _ask(client)).found
        assert loop.time() - started < RETRY_SECONDS
        server.habits = Habits()
        before = _edns(server)
        for _ in range(4):
            await _ask(client)
        with_edns, plain = _edns(server)
        # The first question is sent in both forms; the server may count the second form late.
        assert (with_edns - before[0], plain - before[1] <= 2) == (4, True)


async def test_one_lost_packet_does_not_turn_edns_off() -> None:
    async with serving(ZONE, Habits(edns="drop")) as server:
        client = _client(server)
        await _ask(client)
        server.habits = Habits()
        server.asked.clear()
        await _ask(client)
        assert _edns(server) == (1, 0)


@pytest.mark.parametrize("edns", ["", "FORMERR"])
async def test_long_answers_come_over_tcp(edns: str) -> None:
    async with serving(ZONE, Habits(edns=edns)) as server:
        response = await _ask(_client(server), "many")
        assert response.found
        assert len(response.found.records) == 99


async def test_refusal_for_another_reason_than_edns_is_returned() -> None:
    async with serving(ZONE, Habits(failing={"A": "REFUSED"})) as server:
        response = await _ask(_client(server))
        assert (response.rcode, response.found) == ("REFUSED", None)
        assert _edns(server) == (1, 0)


async def test_late_answer_to_the_first_query_is_used() -> None:
    async with serving(ZONE, Habits(slow={"A": 1.0})) as server:
        assert (await _ask(_client(server))).found


async def test_server_that_starts_late_answers_a_retransmission() -> None:
    async with serving(ZONE) as gone:
        unreachable = Nameserver(host=gone.address, port=gone.port)
    with pytest.raises(TimeoutError):
        await NameserverClient(unreachable).ask(
            dns.name.from_text("kdc1.kk.test"), RecordType.A, asyncio.get_running_loop().time() + 0.3
        )


async def test_missing_network_interface_is_an_error() -> None:
    client = NameserverClient(Nameserver(host="fe80::1%no-such-if"))
    with pytest.raises(OSError, match=r"."):
        await _ask(client)
