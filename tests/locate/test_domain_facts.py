"""The site of this host and the facts of domain controllers, learnt by pings."""

import asyncio
import logging

import pytest

from kkdcpd.locate.domain_facts import FIRST_WAIT_SECONDS, MAX_DOMAINS, REFRESH_SECONDS, RETRY_SECONDS
from kkdcpd.values import DcLocatorFlags
from tests.locate.directory import (
    DC_NAME,
    PLAIN_NAME,
    Directory,
    site_name,
    srv,
)
from tests.support.waiting import eventually


async def test_configured_site_is_used(main_and_branch: Directory) -> None:
    assert await main_and_branch.order(site="Branch") == [("dc3", 0), ("dc4", 0), ("dc2", 1), ("dc1", 1)]
    assert site_name("Main").lower() not in main_and_branch.world.queries


async def test_controllers_of_a_configured_site_are_pinged_first(main_and_branch: Directory) -> None:
    await main_and_branch.discover(site="Branch")
    [addresses] = main_and_branch.world.pinged
    assert addresses[:2] == ("10.0.0.3", "10.0.0.4")


async def test_controllers_of_a_new_site_are_pinged_once_the_site_is_known(
    main_and_branch: Directory,
) -> None:
    main_and_branch.world.zone[site_name("Main")].append(srv(5))
    main_and_branch.world.controllers(5)
    await main_and_branch.discover()
    assert main_and_branch.world.pinged[1] == ("10.0.0.5",)


@pytest.mark.parametrize("site", ["", "a.b", "Ma in", "x" * 64, "Zürich", "*", "a\0b"])
async def test_invalid_site_name_is_not_looked_up(main_and_branch: Directory, site: str) -> None:
    main_and_branch.world.controllers(1, 2, 3, 4, client_site=site)
    assert len(await main_and_branch.order()) == 4
    assert set(main_and_branch.world.queries) == {DC_NAME, PLAIN_NAME}


async def test_known_facts_cost_no_query_and_no_ping(main_and_branch: Directory) -> None:
    before = await main_and_branch.order()
    count = len(main_and_branch.world.pinged)
    assert await main_and_branch.order(DcLocatorFlags.PDC_REQUIRED)
    assert await main_and_branch.order() == before
    assert len(main_and_branch.world.pinged) == count


async def test_concurrent_first_requests_share_their_pings(main_and_branch: Directory) -> None:
    main_and_branch.world.ping_delay = 0.01
    await asyncio.gather(*(main_and_branch.order() for _ in range(20)))
    assert (
        len(main_and_branch.world.pinged) == 2
    )  # all controllers, and later the further controllers of the site


async def test_cancelled_first_request_does_not_affect_the_others(main_and_branch: Directory) -> None:
    main_and_branch.world.ping_delay = 0.05
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(main_and_branch.order(), name="first")
        second = tasks.create_task(main_and_branch.order(), name="second")
        await asyncio.sleep(0.01)
        first.cancel()
    assert len(second.result()) == 4


async def test_domain_is_pinged_again_after_the_interval(main_and_branch: Directory) -> None:
    found = await main_and_branch.discover()
    assert found.validity.recheck == main_and_branch.world.now + REFRESH_SECONDS
    main_and_branch.world.now += REFRESH_SECONDS
    del main_and_branch.world.alive["10.0.0.1"]
    assert (await main_and_branch.order())[0] == ("dc1", 0)

    async def is_known() -> bool:
        return (await main_and_branch.order())[0] == ("dc2", 0)

    await eventually(is_known)


async def test_no_request_waits_for_a_refresh(main_and_branch: Directory) -> None:
    before = await main_and_branch.order()
    main_and_branch.world.now += REFRESH_SECONDS
    main_and_branch.world.ping_delay = 5
    started = asyncio.get_running_loop().time()
    assert await main_and_branch.order() == before
    assert asyncio.get_running_loop().time() - started < FIRST_WAIT_SECONDS


async def test_first_request_uses_dns_if_no_ping_is_answered(main_and_branch: Directory) -> None:
    main_and_branch.world.ping_delay = 5
    async with asyncio.timeout(2):
        assert {host for host, _ in await main_and_branch.order()} == {"dc1", "dc2", "dc3", "dc4"}


async def test_silent_controllers_keep_their_facts(main_and_branch: Directory) -> None:
    before = await main_and_branch.order()
    main_and_branch.world.now += REFRESH_SECONDS
    main_and_branch.world.alive.clear()
    assert await main_and_branch.order() == before


async def test_forced_rediscovery_pings_again(main_and_branch: Directory) -> None:
    await main_and_branch.order()
    main_and_branch.world.zone[site_name("Main")] = [srv(2)]
    order = await main_and_branch.order(DcLocatorFlags.FORCE_REDISCOVERY)
    assert order[0] == ("dc2", 0)
    assert len(main_and_branch.world.pinged) == 4


async def test_without_records_no_controller_is_found_or_pinged(directory: Directory) -> None:
    found = await directory.discover()
    assert (found.candidates, found.refused) == ((), ())
    assert directory.world.pinged == []
    assert found.validity.recheck <= directory.world.now + RETRY_SECONDS


async def test_site_is_logged_once(main_and_branch: Directory, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "kkdcpd.locate"):
        await main_and_branch.order()
        main_and_branch.world.now += REFRESH_SECONDS
        await main_and_branch.order()
    assert [record.getMessage() for record in caplog.records] == ["site_found"]
    assert caplog.records[0].__dict__["fields"] == {"domain": "ad.test", "site": "Main"}


async def test_number_of_kept_domains_is_limited(main_and_branch: Directory) -> None:
    # Each configured site is remembered by itself, as each domain is.
    for number in range(MAX_DOMAINS + 1):
        await main_and_branch.order(site=f"Site-{number}")
    pings = len(main_and_branch.world.pinged)
    await main_and_branch.order(site=f"Site-{MAX_DOMAINS}")
    assert len(main_and_branch.world.pinged) == pings
    await main_and_branch.order(site="Site-0")
    assert len(main_and_branch.world.pinged) == pings + 1
