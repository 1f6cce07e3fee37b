"""A client raises its limit of failures without a password, and then sprays.

It gets tickets of principals without preauthentication: with padata that the KDC ignores, with FAST, with
demands for another principal, and from a hostile realm. Each variant has its own client address.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.attack.guarded import (
    REALM,
    WITHIN,
    GuardedSite,
    as_req,
    guarded_site,
    guess,
    tries_of,
)
from bench.attack.honest import Result
from tests.support import messages
from tests.support.fake_kdc import FakeKdcThread, reply

__all__ = ["Outcome", "bought_site", "figures", "run"]

LAX = 20
SPRAYED = 30
JUNK = (12, 13, 14, 15, 16, 30, 31, 138, 151)
HOSTILE = "HOSTILE.TEST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The tries that reached the KDC after each way, and the result of the honest client."""

    tries: Mapping[str, int]
    honest: Result


@contextmanager
def bought_site(directory: Path) -> Iterator[GuardedSite]:
    """Start a site with principals without preauthentication, and a second realm with a hostile KDC."""
    users = [f"user{number}" for number in range(SPRAYED)]
    lax = [f"lax{number}" for number in range(LAX)]
    tickets = [messages.as_rep(realm=HOSTILE, cname=(1, [f"made-up{number}"])) for number in range(LAX)]
    with ExitStack() as stack:
        kdc = stack.enter_context(FakeKdcThread(tcp=reply(*tickets)))
        section = f'[realms."{HOSTILE}"]\nkdc = ["tcp://127.0.0.1:{kdc.port}"]\ndiscovery = "none"\n'
        yield stack.enter_context(guarded_site(directory, users=users, lax=lax, sections=section))


def run(site: GuardedSite, *, sprayed: int) -> Outcome:
    """Raise the limit in each way, then spray."""
    reached = {}
    guesses = [guess(f"user{index}") for index in range(sprayed)]
    with site.honest_client() as honest:
        for number, (name, purchases) in enumerate(_purchases(site).items()):
            client = f"203.0.{number}.7"
            for realm, request in purchases:
                site.send(request, client, realm)
            reached[name] = tries_of(site.send_all(guesses, client))
    return Outcome(tries=reached, honest=honest.result)


def figures() -> Iterator[str]:
    """Yield the figures of the long form."""
    with tempfile.TemporaryDirectory() as directory, bought_site(Path(directory)) as site:
        outcome = run(site, sprayed=SPRAYED)
    for name, reached in outcome.tries.items():
        yield f"{name}: {reached} of {SPRAYED} tries reached the KDC (at most {WITHIN})"
    yield f"honest client: {outcome.honest.refused_share:.2%} refused, p99 {outcome.honest.p99:.3f} s"


def _purchases(site: GuardedSite) -> Mapping[str, Iterator[tuple[str, bytes]]]:
    by_junk = {f"junk padata {kind}": _by_junk(kind) for kind in JUNK}
    return {
        "nothing": iter(()),
        **by_junk,
        "FAST": _by_armor(site),
        "a false demand": _by_demand(site),
        "a hidden demand": _by_demand(site, hides=True),
        "a hostile realm": _by_hostile_realm(),
    }


def _by_junk(kind: int) -> Iterator[tuple[str, bytes]]:
    for number in range(LAX):
        yield REALM, as_req(f"lax{number}", padata=[(kind, b"junk")])


def _by_armor(site: GuardedSite) -> Iterator[tuple[str, bytes]]:
    for number in range(LAX):
        request = as_req(f"lax{number}")
        yield REALM, site.armor.hide(request, request)


def _by_demand(site: GuardedSite, *, hides: bool = False) -> Iterator[tuple[str, bytes]]:
    """Make the KDC demand a proof of another user, in the name of a user that needs none."""
    for number in range(LAX):
        request = as_req(f"lax{number}")
        yield REALM, site.armor.hide(as_req("user0"), request, hides_names=hides)
        yield REALM, site.armor.hide(request, request)


def _by_hostile_realm() -> Iterator[tuple[str, bytes]]:
    for number in range(LAX):
        cname = 1, [f"made-up{number}"]
        padata = [(messages.PA_ENC_TIMESTAMP, b"any")]
        yield HOSTILE, messages.as_req(realm=HOSTILE, cname=cname, padata=padata)
