"""FAST hides no guesses, and an office with FAST is not affected."""

from pathlib import Path

from bench.attack import fast_guessing
from bench.attack.guarded import WITHIN, guarded_site

TRIES = 21
OFFICE_SIZE = 150
"""30 users mistype: twice the limit of an office where no user logs on. The long form has 500 users."""


def test_every_variant_is_blocked_within_20_tries_and_no_other_is(tmp_path: Path) -> None:
    users = [f"user{number}" for number in range(OFFICE_SIZE)]
    with guarded_site(tmp_path, users=users) as site:
        outcome = fast_guessing.run(site, tries=TRIES, office_size=OFFICE_SIZE)
    assert {name: tries for name, tries in outcome.tries.items() if not 0 < tries <= WITHIN} == {}
    assert set(outcome.office_statuses) == {200}
    assert outcome.honest.refused_share == 0
    assert outcome.honest.statuses.total() > 0
