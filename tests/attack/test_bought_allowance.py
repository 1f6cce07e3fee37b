"""No tickets that a client gets without a secret make room for more tries."""

from pathlib import Path

from bench.attack import bought_allowance
from bench.attack.guarded import WITHIN


def test_every_spray_is_blocked_within_20_tries(tmp_path: Path) -> None:
    with bought_allowance.bought_site(tmp_path) as site:
        outcome = bought_allowance.run(site, sprayed=WITHIN + 1)
    assert {name: tries for name, tries in outcome.tries.items() if tries > WITHIN} == {}
    assert outcome.tries["nothing"] > 0
    assert outcome.honest.refused_share == 0
    assert outcome.honest.statuses.total() > 0
