"""The servers in the lists of the configuration."""

from kkdcpd.endpoints import Transport
from kkdcpd.locate.server_finder import listed_targets
from kkdcpd.values import DcLocatorFlags, KdcService
from tests.locate.support import NO_FLAGS, realm

REALM = realm(
    "EXAMPLE.COM",
    kdc=["a", "udp://b:1088"],
    primary=["tcp://p"],
    kpasswd=["k"],
    source="krb5.conf",
)
PDC = DcLocatorFlags.PDC_REQUIRED


def test_order_is_priority_and_udp_of_a_host_without_transport_is_a_fallback() -> None:
    targets = listed_targets(REALM, KdcService.KDC, NO_FLAGS)
    assert [(t.host, t.port, t.transport, t.priority, t.is_fallback) for t in targets] == [
        ("a", 88, Transport.TCP, 0, False),
        ("a", 88, Transport.UDP, 0, True),
        ("b", 1088, Transport.UDP, 1, False),
    ]
    assert {target.source for target in targets} == {"krb5.conf"}


def test_primary_is_used_if_it_is_required_and_known() -> None:
    assert [target.host for target in listed_targets(REALM, KdcService.KDC, PDC)] == ["p"]
    without = realm("EXAMPLE.COM", kdc=["tcp://a"])
    assert [target.host for target in listed_targets(without, KdcService.KDC, PDC)] == ["a"]


def test_kpasswd_has_its_own_list() -> None:
    targets = listed_targets(REALM, KdcService.KPASSWD, PDC)
    assert [(target.host, target.port) for target in targets] == [("k", 464), ("k", 464)]
    assert listed_targets(realm("X", kdc=["a"]), KdcService.KPASSWD, NO_FLAGS) == ()
