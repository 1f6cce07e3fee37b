"""The service that a log-on asks for neither reveals users nor brings tickets in their keys."""

from pathlib import Path

from bench.attack import sname_enumeration
from bench.attack.guarded import WITHIN, as_req, guarded_site
from bench.attack.sname_enumeration import ENFORCED

TRIES = 30


def test_every_variant_is_blocked_within_20_tries(tmp_path: Path) -> None:
    with guarded_site(tmp_path) as site:
        outcome = sname_enumeration.run(site, tries=TRIES)
        assert {name: tries for name, tries in outcome.tries.items() if not 0 < tries <= WITHIN} == {}
        assert outcome.honest.refused_share == 0
        assert outcome.honest.statuses.total() > 0
        site.daemon.wait_for_line(lambda line: "monitored=" in line and "initial_service" in line)


def test_tickets_in_users_keys_are_refused_where_the_rule_is_enforced(tmp_path: Path) -> None:
    with guarded_site(tmp_path, users=["alice"], sections=ENFORCED) as site:
        statuses = sname_enumeration.steal(site, "alice")
        assert site.send(as_req("alice"), "198.51.100.1") == 200
    assert set(statuses.values()) == {403}
