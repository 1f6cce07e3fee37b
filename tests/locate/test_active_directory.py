"""Discovery of the domain controllers of a domain."""

from kkdcpd.locate.records import SrvRecord
from kkdcpd.values import DcLocatorFlags, KdcService
from tests.locate.directory import DC_NAME, KPASSWD_NAME, Directory, site_name, srv


async def test_endpoints_are_of_tcp_and_say_where_they_were_found(main_and_branch: Directory) -> None:
    found = await main_and_branch.discover()
    first, last = found.candidates[0], found.candidates[-1]
    assert str(first.endpoint) == "tcp://dc1.ad.test:88"
    assert first.endpoint.address == "10.0.0.1"
    assert (first.weight, first.ttl, first.is_fallback) == (100, 600, False)
    assert first.source == f"SRV {site_name('Main')}"
    assert last.source == f"SRV {DC_NAME}"
    assert found.refused == ()


async def test_without_any_answer_dns_alone_decides(main_and_branch: Directory) -> None:
    main_and_branch.world.alive.clear()
    assert {priority for _, priority in await main_and_branch.order()} == {0}


async def test_ip_and_kdc_required_have_no_effect(main_and_branch: Directory) -> None:
    flags = DcLocatorFlags.IP_REQUIRED | DcLocatorFlags.KDC_REQUIRED | DcLocatorFlags(0x80000000)
    assert await main_and_branch.order(flags) == await main_and_branch.order()


async def test_refused_addresses_and_ports_get_no_ping(main_and_branch: Directory) -> None:
    zone = main_and_branch.world.zone
    zone[DC_NAME] = [srv(1), srv(2, port=8080), SrvRecord(priority=0, weight=0, port=88, target="127.0.0.1")]
    zone[site_name("Main")] = []
    found = await main_and_branch.discover()
    assert [each.endpoint.name for each in found.candidates] == ["dc1.ad.test"]
    assert {each.target for each in found.refused} == {"tcp://dc2.ad.test:8080", "tcp://127.0.0.1:88"}
    assert main_and_branch.world.pinged[0] == ("10.0.0.1",)
    assert all("127.0.0.1" not in tried for tried in main_and_branch.world.pinged)


async def test_declined_service_is_reported(directory: Directory) -> None:
    directory.world.zone[KPASSWD_NAME] = [SrvRecord(priority=0, weight=0, port=0, target=".")]
    found = await directory.discover(service=KdcService.KPASSWD)
    assert (found.candidates, [each.target for each in found.refused]) == ((), ["."])
