"""The client of a connection, and a connection that ends before a way in serves it."""

import socket

import pytest

from kkdcpd.config import ConnectionsConfig
from kkdcpd.frontends.http.arrival import UNIX_PEER, Arrival, RefusedError, client_of
from kkdcpd.frontends.http.connection_limits import ConnectionLimits
from kkdcpd.metrics.counters import Counters
from kkdcpd.values import ConnectionActivity, ConnectionRefusal
from tests.support.shared import own_counts

PEER = ("192.0.2.1", 4711)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (PEER, ("192.0.2.1", 4711)),
        (("::ffff:192.0.2.1", 4711, 0, 0), ("192.0.2.1", 4711)),
        (("2001:db8::1", 4711, 0, 0), ("2001:db8::1", 4711)),
        ("", (UNIX_PEER, 0)),
    ],
)
def test_client_has_one_spelling_of_its_address(peer: object, expected: tuple[str, int]) -> None:
    client = client_of(peer)
    assert (client.address, client.port) == expected


def arrive(limits: ConnectionLimits, *, is_trusted_proxy: bool = False) -> Arrival:
    return Arrival(socket.socket(), client_of(PEER), limits, 1.0, is_trusted_proxy=is_trusted_proxy)


async def test_connection_counts_until_it_leaves() -> None:
    limits = ConnectionLimits(own_counts(), ConnectionsConfig(), Counters.discarding())
    arrival = arrive(limits)
    arrival.enter()
    assert (limits.open, arrival.activity) == (1, ConnectionActivity.RECEIVING)
    arrival.turn_away()
    arrival.leave()
    assert (limits.open, arrival.socket.fileno()) == (0, -1)


async def test_client_that_is_no_trusted_proxy_is_refused() -> None:
    limits = ConnectionLimits(own_counts(), ConnectionsConfig(), Counters.discarding())
    stranger, proxy = arrive(limits), arrive(limits, is_trusted_proxy=True)
    with pytest.raises(RefusedError) as refused:
        stranger.must_be_trusted_proxy()
    assert refused.value.reason is ConnectionRefusal.NO_TRUSTED_PROXY
    proxy.must_be_trusted_proxy()
    stranger.turn_away()
    proxy.turn_away()
