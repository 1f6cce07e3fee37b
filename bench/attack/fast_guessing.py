"""One client guesses, sprays and enumerates with FAST, which hides the names, beside an office with FAST.

The attacker has one ticket for armor. Each variant has its own client address. Two variants need no ticket:
it encrypts a ticket by the key that a password makes, and the KDC says whether this is the key of the user.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.attack.guarded import PASSWORD, REALM, WITHIN, GuardedSite, as_req, guarded_site, tries_of
from bench.attack.honest import Result
from lab.armor import armor_padata
from tests.support import messages

__all__ = ["Outcome", "figures", "run"]

OFFICE = "192.0.2.77"
OFFICE_SIZE = 500
MISTYPES_EACH = 5
"""One user in this number of users mistypes once."""

TRIES = 300

_WRONG_PROOF = "user0", "a wrong password"
"""A proof that no key of a user decrypts. All tries use one wrong key, which is derived once."""
_ANONYMOUS = (11, ("WELLKNOWN", "ANONYMOUS"))
_INNER = {"guess": "user0", "spray": "user{}", "enumerate": "unknown{}"}
_OUTER: Mapping[str, messages.Name | None] = {
    "no name": None,
    "a constant name": (1, ("constant",)),
    "a new name each time": (1, ("made-up-{}",)),
    "an anonymous name": _ANONYMOUS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The tries of each variant that reached the KDC, and the results of the office and the honest client."""

    tries: Mapping[str, int]
    office_statuses: Sequence[int]
    honest: Result


def run(site: GuardedSite, *, tries: int, office_size: int) -> Outcome:
    """Run every variant, then let the office log on."""
    reached = {}
    with site.honest_client() as honest:
        for number, (name, payloads) in enumerate(_variants(site, tries)):
            reached[name] = tries_of(site.send_all(payloads, f"203.0.{number}.7"))
        office = site.send_all(_log_ons(site, office_size), OFFICE)
    return Outcome(tries=reached, office_statuses=office, honest=honest.result)


def figures() -> Iterator[str]:
    """Yield the figures of the long form."""
    users = [f"user{number}" for number in range(OFFICE_SIZE)]
    with tempfile.TemporaryDirectory() as directory, guarded_site(Path(directory), users=users) as site:
        outcome = run(site, tries=TRIES, office_size=OFFICE_SIZE)
    for name, reached in outcome.tries.items():
        yield f"{name}: {reached} of {TRIES} tries reached the KDC (at most {WITHIN})"
    refused = sum(status != 200 for status in outcome.office_statuses)
    yield f"office of {OFFICE_SIZE}: {refused} of {len(outcome.office_statuses)} requests refused"
    yield f"honest client: {outcome.honest.refused_share:.2%} refused, p99 {outcome.honest.p99:.3f} s"


def _variants(site: GuardedSite, tries: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    for aim, inner in _INNER.items():
        for shown, outer in _OUTER.items():
            yield f"{aim}, {shown}", _guesses(site, tries, inner, outer)
        yield f"{aim}, names hidden in replies", _guesses(site, tries, inner, None, hides=True)
    yield (
        "guess, ticket in a TGS-REQ",
        (
            messages.tgs_req(realm=REALM, ticket=site.armor.made_up_ticket(*_WRONG_PROOF))
            for _ in range(tries)
        ),
    )
    yield (
        "guess, ticket in the armor",
        (
            as_req(f"user{number % 5}", padata=[armor_padata(site.armor.made_up_ticket(*_WRONG_PROOF))])
            for number in range(tries)
        ),
    )


def _guesses(
    site: GuardedSite, tries: int, inner: str, outer: messages.Name | None, *, hides: bool = False
) -> Iterator[bytes]:
    for number in range(tries):
        user = inner.format(number)
        shown = outer and (outer[0], [part.format(number) for part in outer[1]])
        yield site.armor.hide(
            as_req(user),
            messages.as_req(realm=REALM, cname=shown),
            proof=_WRONG_PROOF,
            hides_names=hides,
        )


def _log_ons(site: GuardedSite, size: int) -> Iterator[bytes]:
    """Log on as MIT's clients do: first without a proof, then with a proof, which some users mistype."""
    for number in range(size):
        user = f"user{number}"
        request = as_req(user)
        yield site.armor.hide(request, request)
        if number % MISTYPES_EACH == 0:
            yield site.armor.hide(request, request, proof=(user, "mistyped"))
        yield site.armor.hide(request, request, proof=(user, PASSWORD))
