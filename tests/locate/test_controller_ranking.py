"""The order of domain controllers, and the refusal of unfit controllers."""

import pytest

from kkdcpd.protocol.cldap import DomainControllerFlags
from kkdcpd.values import DcLocatorFlags, KdcService
from tests.locate.directory import DC_NAME, FULL, NONE, READ_ONLY, Directory, srv


async def test_controllers_of_our_site_come_first(main_and_branch: Directory) -> None:
    assert await main_and_branch.order() == [("dc1", 0), ("dc2", 0), ("dc4", 1), ("dc3", 1)]


async def test_controllers_that_answer_come_before_silent_controllers(main_and_branch: Directory) -> None:
    del main_and_branch.world.alive["10.0.0.1"]
    assert await main_and_branch.order() == [("dc2", 0), ("dc1", 1), ("dc4", 2), ("dc3", 2)]


async def test_priority_orders_the_controllers_that_answer(directory: Directory) -> None:
    directory.world.zone[DC_NAME] = [srv(1, priority=20), srv(2, priority=10), srv(3, priority=0)]
    directory.world.controllers(1, 2)
    assert await directory.order() == [("dc2", 0), ("dc1", 1), ("dc3", 2)]


async def test_weight_is_kept(directory: Directory) -> None:
    directory.world.zone[DC_NAME] = [srv(1, weight=10), srv(2, weight=90)]
    found = await directory.discover()
    assert {each.endpoint.name: each.weight for each in found.candidates} == {
        "dc1.ad.test": 10,
        "dc2.ad.test": 90,
    }


@pytest.mark.parametrize(
    ("flags", "service"),
    [(DcLocatorFlags.WRITABLE_REQUIRED, KdcService.KDC), (NONE, KdcService.KPASSWD)],
)
async def test_read_only_controllers_are_refused_if_writing_is_required(
    main_and_branch: Directory, flags: DcLocatorFlags, service: KdcService
) -> None:
    main_and_branch.world.controllers(1, 3, flags=READ_ONLY)
    del main_and_branch.world.alive["10.0.0.4"]
    found = await main_and_branch.discover(flags, service=service)
    assert [each.endpoint.name for each in found.candidates] == ["dc2.ad.test", "dc4.ad.test"]
    assert {
        (each.target.partition(":88")[0].partition(":464")[0], each.reason) for each in found.refused
    } == {
        ("tcp://dc1.ad.test", "reports that it is read-only"),
        ("tcp://dc3.ad.test", "reports that it is read-only"),
    }


async def test_read_only_controllers_serve_other_requests(main_and_branch: Directory) -> None:
    main_and_branch.world.controllers(1, flags=READ_ONLY)
    assert ("dc1", 0) in await main_and_branch.order()


async def test_no_controller_is_found_if_all_are_read_only_and_writing_is_required(
    main_and_branch: Directory,
) -> None:
    main_and_branch.world.controllers(1, 2, 3, 4, flags=READ_ONLY)
    found = await main_and_branch.discover(DcLocatorFlags.WRITABLE_REQUIRED)
    assert (found.candidates, len(found.refused)) == ((), 4)


async def test_controllers_without_kdc_are_refused(main_and_branch: Directory) -> None:
    main_and_branch.world.controllers(1, flags=FULL & ~DomainControllerFlags.KDC)
    found = await main_and_branch.discover()
    assert "dc1.ad.test" not in [each.endpoint.name for each in found.candidates]
    assert [each.reason for each in found.refused] == ["reports that it runs no KDC"]


@pytest.mark.parametrize("flag", ["DS_8", "DS_9", "DS_10"])
async def test_old_controllers_are_refused_if_fast_is_required(main_and_branch: Directory, flag: str) -> None:
    main_and_branch.world.controllers(1, flags=FULL | DomainControllerFlags[flag])
    del main_and_branch.world.alive["10.0.0.4"]
    order = await main_and_branch.order(DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED)
    assert [host for host, _ in order] == ["dc1", "dc4"]
    assert len(await main_and_branch.order()) == 4


async def test_old_controllers_serve_fast_if_all_are_old(main_and_branch: Directory) -> None:
    assert len(await main_and_branch.order(DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED)) == 4
