"""Many connections from a few networks keep no honest client out: bench/attack/connections.py, small."""

from pathlib import Path

import pytest

from bench.attack.connections import NETWORKS, Field, handshakes, hold, is_limit_reached

LIMITS = """
    maximum = 256
    per_client = 32
    per_network = 128
"""
MOST = 320
"""More connections than there may be in all."""

SECONDS = 1.5


@pytest.mark.parametrize(
    ("kind", "networks"),
    [
        *(("bare TCP", networks) for networks in NETWORKS),
        ("half a ClientHello", "nine /64s of one /48"),
        ("half a body", "ten /48s"),
        ("idle after a request", "nine /56s of one /48"),
    ],
)
def test_connections_of_a_few_networks_keep_no_honest_client_out(
    tmp_path: Path, kind: str, networks: str
) -> None:
    with Field.made(tmp_path, LIMITS) as field:
        attack, honest = hold(field, kind, networks, most=MOST, seconds=SECONDS)
        reported = [line for line in field.daemon.lines if is_limit_reached(line)]
    assert attack.opened + attack.refused >= MOST
    assert honest.statuses.keys() == {200}
    assert honest.p99 < 1
    # It was the attack that had to go.
    assert not [line for line in reported if "2001:db8:e000:" in line]


def test_handshakes_of_one_client_are_limited(tmp_path: Path) -> None:
    with Field.made(tmp_path, "handshake_rate = 10\nhandshake_burst = 50") as field:
        # The honest client opens a connection every 20 ms.
        done, honest = handshakes(field, seconds=0.8)
    assert 50 <= done <= 100
    assert honest.statuses.keys() == {200}
