"""Socket addresses, with the zones of link-local addresses."""

import socket

import pytest

from kkdcpd.socket_address import host_with_zone, is_interface, socket_address

LOOPBACK = socket.if_nametoindex("lo")


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "::1"])
def test_address_without_a_zone_is_host_and_port(host: str) -> None:
    assert socket_address(host, 88) == (host, 88)


@pytest.mark.parametrize("zone", ["lo", str(LOOPBACK)])
def test_zone_is_the_number_of_its_interface(zone: str) -> None:
    assert is_interface(zone)
    assert socket_address(f"fe80::1%{zone}", 88) == ("fe80::1", 88, 0, LOOPBACK)


@pytest.mark.parametrize("zone", ["no-such-if", "4294967", ""])
def test_missing_interface_is_an_error(zone: str) -> None:
    assert not is_interface(zone)
    with pytest.raises(OSError, match="No such device"):
        socket_address(f"fe80::1%{zone}", 88)


def test_link_local_host_has_its_zone() -> None:
    assert host_with_zone(("192.0.2.1", 88)) == "192.0.2.1"
    assert host_with_zone(("2001:db8::1", 88, 0, 0)) == "2001:db8::1"
    assert host_with_zone(("fe80::1", 88, 0, LOOPBACK)) == "fe80::1%lo"
