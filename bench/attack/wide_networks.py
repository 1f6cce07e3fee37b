"""An attacker with many IPv6 /64s of one site guesses at one account, and floods.

At the same time other clients of the site log on, such as customers of the same mobile carrier.
"""

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.attack.guarded import GuardedSite, as_req, guarded_site, guess, tries_of
from bench.attack.honest import Result

__all__ = ["BURST", "FLOOD_LIMITS", "LIMITS", "Outcome", "figures", "run"]

NETWORKS = 40
GUESSES_EACH = 9
"""One less than `guesses`, so that no /64 is blocked by itself."""

LIMITS = {"one /56": 20, "one /48": 40, "one IPv4 /24": 40}
"""The most guesses at one account that may reach the KDC: 2 and 4 times `guesses`."""

BURST = 110
FLOODERS = 10
FLOOD_LIMITS = f"""
[guard.rates]
client_rate = 0.1
client_burst = {BURST}
"""
"""Lower limits than the defaults, so that a flood is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The guesses and the flood's requests that reached the KDC, and the results of the other clients."""

    guesses: Mapping[str, int]
    neighbours: Sequence[int]
    flood: int
    honest: Result


def run(site: GuardedSite) -> Outcome:
    """Guess at one account from each kind of site, then flood from many networks of a /48."""
    guesses, neighbours = {}, []
    with site.honest_client() as honest:
        for number, (name, clients) in enumerate(_sites().items()):
            message = guess(f"user{number}")
            rounds = itertools.chain.from_iterable([clients] * GUESSES_EACH)
            guesses[name] = tries_of([site.send(message, client) for client in rounds])
            neighbours += [site.send(as_req("neighbour"), client) for client in clients]
        flood = [
            status
            for number in range(FLOODERS)
            for status in site.send_all([as_req("neighbour")] * BURST, _address(9, number << 8))
        ]
    return Outcome(guesses=guesses, neighbours=neighbours, flood=tries_of(flood), honest=honest.result)


def figures() -> Iterator[str]:
    """Yield the figures of the long form."""
    users = ["user0", "user1", "user2", "neighbour"]
    with (
        tempfile.TemporaryDirectory() as directory,
        guarded_site(Path(directory), users=users, sections=FLOOD_LIMITS) as site,
    ):
        outcome = run(site)
    for name, reached in outcome.guesses.items():
        total = NETWORKS * GUESSES_EACH
        yield f"guesses from {NETWORKS} networks of {name}: {reached} of {total} reached the KDC"
    refused = sum(status != 200 for status in outcome.neighbours)
    yield f"neighbours in these networks: {refused} of {len(outcome.neighbours)} requests refused"
    yield f"flood from a /48: {outcome.flood} of {FLOODERS * BURST} passed (8 x {BURST} at once)"
    yield f"honest client: {outcome.honest.refused_share:.2%} refused, p99 {outcome.honest.p99:.3f} s"


def _sites() -> Mapping[str, Sequence[str]]:
    return {
        "one /56": [_address(1, number) for number in range(NETWORKS)],
        "one /48": [_address(2, number << 8) for number in range(NETWORKS)],
        "one IPv4 /24": [f"198.51.100.{number}" for number in range(NETWORKS)],
    }


def _address(site: int, network: int) -> str:
    return f"2001:db8:{site:x}:{network:x}::7"
