"""DNS records of the owner of a domain under a wildcard, and made-up names there, harm no other realm."""

from bench.attack.wildcard_dns import Figures, bulk_answers, made_up_names

SECONDS = 5.0


def _assert_unharmed(figures: Figures) -> None:
    assert figures.sent > 0
    assert figures.known.statuses.total() > 20, figures
    assert figures.known.refused_share < 0.01, figures
    assert figures.known.p99 < 1, figures
    assert figures.new.statuses.total() > 2, figures
    assert figures.new.refused_share == 0, figures
    assert figures.growth < 60, figures


def test_answers_in_bulk_for_a_domain_under_a_wildcard_harm_no_other_realm() -> None:
    _assert_unharmed(bulk_answers(SECONDS))


def test_names_that_one_client_makes_up_keep_no_new_realm_out() -> None:
    _assert_unharmed(made_up_names(SECONDS))
