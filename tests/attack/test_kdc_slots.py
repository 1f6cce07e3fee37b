"""Messages that a KDC drops keep no honest request from this KDC, however early the flood begins."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.attack import kdc_slots
from kkdcpd.endpoints import KDC_TRANSPORTS
from lab.realm import MitRealm


@pytest.fixture(scope="module", params=KDC_TRANSPORTS)
def realm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    with kdc_slots.running_realm(tmp_path_factory.mktemp("realm"), request.param) as realm:
        yield realm


@pytest.mark.parametrize("attacker", kdc_slots.ATTACKERS)
def test_messages_that_the_kdc_drops_keep_no_honest_request_from_it(
    realm: MitRealm, attacker: str, tmp_path: Path
) -> None:
    client = kdc_slots.ATTACKERS[attacker]
    result = kdc_slots.attack(realm, tmp_path, client, seconds=2, slots=16, rate=60)
    assert result.statuses.total() > 5
    assert set(result.statuses) == {200}
