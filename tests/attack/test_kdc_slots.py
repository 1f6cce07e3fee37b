"""Messages that a KDC drops keep no honest request from this KDC, however early the flood begins."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.attack import kdc_slots
from kkdcpd.values import Transport
from lab.realm import MitRealm


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    with kdc_slots.running_realm(tmp_path_factory.mktemp("realm")) as realm:
        yield realm


@pytest.mark.parametrize("attacker", kdc_slots.ATTACKERS)
@pytest.mark.parametrize("transport", Transport)
def test_messages_that_the_kdc_drops_keep_no_honest_request_from_it(
    realm: MitRealm, transport: Transport, attacker: str, tmp_path: Path
) -> None:
    client = kdc_slots.ATTACKERS[attacker]
    result = kdc_slots.attack(realm, tmp_path, transport, client, seconds=2, slots=16, rate=60)
    assert result.statuses.total() > 5
    assert set(result.statuses) == {200}
