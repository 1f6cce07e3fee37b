import pytest

from kkdcpd.protocol import networks
from kkdcpd.protocol.networks import surrounding_networks, wider_networks


@pytest.mark.parametrize(
    ("network", "wider", "surrounding"),
    [
        (
            "2001:db8:1:2345::/64",
            ("2001:db8:1:2300::/56", "2001:db8:1::/48"),
            ("2001:db8:1:2300::/56", "2001:db8:1::/48"),
        ),
        ("2001:db8::/64", ("2001:db8::/56", "2001:db8::/48"), ("2001:db8::/56", "2001:db8::/48")),
        ("192.0.2.77", (), ("192.0.2.0/24",)),
        ("unix", (), ()),
        ("", (), ()),
    ],
)
def test_networks_around_a_client(network: str, wider: tuple[str, ...], surrounding: tuple[str, ...]) -> None:
    assert wider_networks(network) == wider
    assert surrounding_networks(network) == surrounding


def test_neighbours_share_their_wider_networks_and_strangers_do_not() -> None:
    here, next_door, elsewhere = (
        set(wider_networks(network))
        for network in ("2001:db8:1:2300::/64", "2001:db8:1:23ff::/64", "2001:db8:2:2300::/64")
    )
    assert here == next_door
    assert here.isdisjoint(elsewhere)


def test_a_million_networks_leave_a_bounded_cache() -> None:
    for number in range(10 * networks.MOST_KNOWN):
        wider_networks(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::/64")
    assert wider_networks.cache_info().currsize <= networks.MOST_KNOWN
