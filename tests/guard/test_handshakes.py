"""How often clients may begin TLS handshakes."""

import pytest

from kkdcpd.config import ConnectionsConfig
from kkdcpd.guard.handshakes import NETWORK_FACTOR, HandshakeRate
from kkdcpd.protocol.ip_addresses import networks_of
from tests.support.shared import own_table

BURST = 5


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rate(clock: Clock) -> HandshakeRate:
    config = ConnectionsConfig(handshake_rate=2, handshake_burst=BURST)
    return HandshakeRate(config, own_table(1024), clock)


def admitted(rate: HandshakeRate, *addresses: str) -> int:
    """How many of these clients' handshakes may begin."""
    return sum(rate.admits(networks_of(address)) for address in addresses)


@pytest.mark.parametrize("addresses", [["192.0.2.1"], ["2001:db8::1", "2001:db8::2"]])
def test_client_has_a_burst_and_then_its_rate(
    rate: HandshakeRate, clock: Clock, addresses: list[str]
) -> None:
    assert admitted(rate, *addresses * 3 * BURST) == BURST
    clock.now += 1
    assert admitted(rate, *addresses * BURST) == 2
    assert admitted(rate, "198.51.100.1") == 1


@pytest.mark.parametrize(
    ("inside", "outside"), [("192.0.2.{}", "192.0.3.1"), ("2001:db8:0:{}::1", "2001:db8:1::1")]
)
def test_clients_of_one_network_have_several_clients_bursts(
    rate: HandshakeRate, inside: str, outside: str
) -> None:
    addresses = [inside.format(number) for number in range(1, 100)]
    assert admitted(rate, *addresses) == NETWORK_FACTOR * BURST
    assert admitted(rate, outside) == 1


def test_refused_handshake_costs_the_others_of_its_network_nothing(rate: HandshakeRate) -> None:
    admitted(rate, *["192.0.2.1"] * 100)
    assert admitted(rate, *["192.0.2.2"] * BURST) == BURST


def test_default_lets_an_office_log_on() -> None:
    """A hundred people in the same second, at ten requests for each log-on and a connection for each."""
    config = ConnectionsConfig()
    rate = HandshakeRate(config, own_table(1024), lambda: 1000.0)
    assert admitted(rate, *["192.0.2.1"] * 1000) == 1000
