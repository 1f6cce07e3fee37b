"""A client searches for users by requesting tickets to them, and gets tickets in the keys of users.

Its AS-REQs have no proof. MIT's KDC accepts krbtgt/REALM and kadmin/changepw as client names too. The client
also makes up tickets for the names, in TGS-REQs and in the armor of FAST: before a KDC decrypts a ticket, it
looks for the ticket's service.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.attack.guarded import REALM, WITHIN, GuardedSite, as_req, guarded_site, tries_of
from bench.attack.honest import Result
from lab.armor import armor_padata
from tests.support import messages

__all__ = ["ENFORCED", "Outcome", "figures", "run", "steal"]

TRIES = 200
CNAMES = (f"krbtgt/{REALM}", "kadmin/changepw", "armorer")
ENFORCED = '[policy]\ninitial_service = "enforce"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The names that reached the KDC with each client name, and the result of the honest client."""

    tries: Mapping[str, int]
    honest: Result


def run(site: GuardedSite, *, tries: int) -> Outcome:
    """Request tickets to unknown users with each client name, with armor and without."""
    reached = {}
    with site.honest_client() as honest:
        for number, cname in enumerate(CNAMES):
            requests = [as_req(cname, sname=f"unknown{index}") for index in range(tries)]
            reached[cname] = tries_of(site.send_all(requests, f"203.0.113.{2 * number}"))
            outer = messages.as_req(realm=REALM, cname=None)
            hidden = (site.armor.hide(request, outer) for request in requests)
            reached[f"{cname} with FAST"] = tries_of(site.send_all(hidden, f"203.0.113.{2 * number + 1}"))
        for number, (name, payloads) in enumerate(_with_made_up_tickets(tries).items()):
            reached[name] = tries_of(site.send_all(payloads, f"203.0.115.{number}"))
    return Outcome(tries=reached, honest=honest.result)


def _with_made_up_tickets(tries: int) -> Mapping[str, Iterator[bytes]]:
    tickets = [messages.ap_req(realm=REALM, sname=(1, (f"unknown{index}",))) for index in range(tries)]
    armors = [armor_padata(ticket) for ticket in tickets]
    return {
        "ticket in a TGS-REQ": (messages.tgs_req(realm=REALM, ticket=ticket) for ticket in tickets),
        "ticket in the armor": (as_req("armorer", padata=[armor]) for armor in armors),
        "ticket in the armor, another service": (
            as_req("armorer", sname="constant", padata=[armor]) for armor in armors
        ),
    }


def steal(site: GuardedSite, user: str) -> Mapping[str, int]:
    """Request a ticket in the key of a user, with armor and without. Return the HTTP statuses."""
    statuses = {}
    for number, cname in enumerate(CNAMES):
        request = as_req(cname, sname=user)
        statuses[cname] = site.send(request, f"203.0.114.{number}")
        hidden = site.armor.hide(request, messages.as_req(realm=REALM, cname=None))
        statuses[f"{cname} with FAST"] = site.send(hidden, f"203.0.114.{number}")
    return statuses


def figures() -> Iterator[str]:
    """Yield the figures of the long form."""
    with tempfile.TemporaryDirectory() as directory, guarded_site(Path(directory)) as site:
        outcome = run(site, tries=TRIES)
    for name, reached in outcome.tries.items():
        yield f"{name}: {reached} of {TRIES} names reached the KDC (at most {WITHIN})"
    yield f"honest client: {outcome.honest.refused_share:.2%} refused, p99 {outcome.honest.p99:.3f} s"
    with (
        tempfile.TemporaryDirectory() as directory,
        guarded_site(Path(directory), users=["alice"], sections=ENFORCED) as site,
    ):
        statuses = steal(site, "alice")
    yield f"tickets in a user's key with initial_service enforced: {tries_of(list(statuses.values()))}"
