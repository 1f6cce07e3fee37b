"""Guesses and requests from many networks of one site add up, and its other users are not affected."""

from pathlib import Path

from bench.attack import wide_networks
from bench.attack.guarded import guarded_site
from bench.attack.wide_networks import BURST, FLOOD_LIMITS, LIMITS


def test_guesses_from_one_site_are_blocked_and_neighbours_are_not(tmp_path: Path) -> None:
    users = ["user0", "user1", "user2", "neighbour"]
    with guarded_site(tmp_path, users=users, sections=FLOOD_LIMITS) as site:
        outcome = wide_networks.run(site)
    assert outcome.guesses == LIMITS
    assert set(outcome.neighbours) == {200}
    # A few tokens come back during the flood.
    assert 8 * BURST <= outcome.flood <= 9 * BURST
    assert outcome.honest.statuses.total() > 0
