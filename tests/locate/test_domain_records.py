"""The names of domain controllers in DNS."""

import pytest

from kkdcpd.errors import DnsFailedError
from kkdcpd.values import DcLocatorFlags, KdcService
from tests.locate.directory import PDC_NAME, PLAIN_NAME, Directory, site_name, srv


async def test_site_without_controllers_uses_the_controllers_of_the_domain(
    main_and_branch: Directory,
) -> None:
    main_and_branch.world.zone[site_name("Main")] = []
    assert [host for host, _ in await main_and_branch.order()] == ["dc2", "dc1", "dc4", "dc3"]


async def test_plain_name_is_used_if_the_others_have_no_controllers(directory: Directory) -> None:
    directory.world.zone[PLAIN_NAME] = [srv(9)]
    assert await directory.order() == [("dc9", 0)]


async def test_pdc_is_asked_at_the_kerberos_port(main_and_branch: Directory) -> None:
    found = await main_and_branch.discover(DcLocatorFlags.PDC_REQUIRED)
    assert [str(each.endpoint) for each in found.candidates] == ["tcp://dc3.ad.test:88"]


async def test_no_other_controller_replaces_a_missing_pdc(main_and_branch: Directory) -> None:
    del main_and_branch.world.zone[PDC_NAME]
    assert (await main_and_branch.discover(DcLocatorFlags.PDC_REQUIRED)).candidates == ()


async def test_password_changes_go_to_our_site_first(main_and_branch: Directory) -> None:
    found = await main_and_branch.discover(service=KdcService.KPASSWD)
    assert [str(each.endpoint) for each in found.candidates] == [
        f"tcp://dc{number}.ad.test:464" for number in (2, 1, 4, 3)
    ]


async def test_password_changes_of_the_pdc_go_to_its_kpasswd_port(main_and_branch: Directory) -> None:
    found = await main_and_branch.discover(DcLocatorFlags.PDC_REQUIRED, service=KdcService.KPASSWD)
    assert [str(each.endpoint) for each in found.candidates] == ["tcp://dc3.ad.test:464"]


async def test_dns_failure_is_no_empty_answer(directory: Directory) -> None:
    directory.world.is_dns_down = True
    with pytest.raises(DnsFailedError):
        await directory.discover()


async def test_known_controllers_stay_while_dns_is_down(main_and_branch: Directory) -> None:
    before = [host for host, _ in await main_and_branch.order()]
    main_and_branch.world.is_dns_down = True
    main_and_branch.world.now += 2000
    found = await main_and_branch.discover()
    assert [each.endpoint.name.partition(".")[0] for each in found.candidates] == before
    assert all("expired" in each.source for each in found.candidates)
