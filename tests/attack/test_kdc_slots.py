"""A few networks can't take a KDC from all others."""

from pathlib import Path

import pytest

from bench.attack import kdc_slots
from kkdcpd.values import Transport


@pytest.mark.parametrize("transport", Transport)
def test_messages_that_the_kdc_drops_keep_no_honest_request_from_it(
    transport: Transport, tmp_path: Path
) -> None:
    result = kdc_slots.attack(tmp_path, transport, seconds=6, slots=32)
    assert result.statuses.total() > 5
    assert set(result.statuses) == {200}
