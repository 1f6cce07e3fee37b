"""Messages that a KDC holds keep no honest request from this KDC, however early the flood begins."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.attack import kdc_slots
from bench.attack.honest import Result
from kkdcpd.endpoints import KDC_TRANSPORTS, Transport


@pytest.fixture(scope="module", params=KDC_TRANSPORTS)
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[kdc_slots.Target]:
    with kdc_slots.running_realm(tmp_path_factory.mktemp("realm"), request.param) as target:
        yield target


def all_are_answered(result: Result) -> bool:
    return result.statuses.total() > 5 and set(result.statuses) == {200}


@pytest.mark.parametrize("attacker", kdc_slots.ATTACKERS)
def test_messages_that_the_kdc_drops_keep_no_honest_request_from_it(
    target: kdc_slots.Target, attacker: str, tmp_path: Path
) -> None:
    client = kdc_slots.ATTACKERS[attacker]
    assert all_are_answered(kdc_slots.attack(target, tmp_path, client, seconds=4, slots=64, rate=60))


@pytest.mark.parametrize("fake", kdc_slots.FAKES)
def test_messages_that_a_server_holds_keep_no_honest_request_from_it(fake: str, tmp_path: Path) -> None:
    with kdc_slots.running_fake(kdc_slots.FAKES[fake]) as target:
        result = kdc_slots.attack(
            target, tmp_path, lambda _: kdc_slots.any_of_many(), seconds=4, slots=64, rate=60
        )
    assert all_are_answered(result)


def test_networks_behind_a_proxy_header_have_shares_of_their_own(tmp_path: Path) -> None:
    with kdc_slots.running_fake(kdc_slots.Fake(transport=Transport.UDP)) as target:
        result = kdc_slots.attack(
            target, tmp_path, kdc_slots.one_of_many, seconds=4, slots=64, rate=60, proxy_protocol=True
        )
    assert all_are_answered(result)


def test_networks_that_hold_many_local_ports_leave_some_to_other_networks(tmp_path: Path) -> None:
    """With 1,024 file descriptors there are 85 ports at the KDC. The attacker has 25 networks."""
    with kdc_slots.running_realm(tmp_path / "realm", Transport.UDP) as target:
        result = kdc_slots.attack(
            target,
            tmp_path / "kkdcpd",
            lambda number: kdc_slots.one_of_many(number, 25),
            seconds=8,
            descriptors=1024,
        )
    assert all_are_answered(result)
