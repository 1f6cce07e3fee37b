"""The budget of hedges."""

from kkdcpd.upstream.hedging import HedgeTokens


def nobody() -> None:
    """Nobody is told."""


def test_hedges_are_at_most_a_tenth_of_all_requests_beyond_what_was_saved_up() -> None:
    tokens = HedgeTokens(0.1, nobody)
    hedges = 0
    for _ in range(1000):
        tokens.request_begins()
        hedges += tokens.take()
    assert 100 <= hedges <= 110


def test_first_request_may_be_hedged() -> None:
    tokens = HedgeTokens(0.1, nobody)
    tokens.request_begins()
    assert tokens.take()


def test_ratio_of_zero_means_never() -> None:
    tokens = HedgeTokens(0.0, nobody)
    tokens.request_begins()
    assert not tokens.take()


def test_quiet_times_save_up_no_more_than_ten() -> None:
    told: list[str] = []
    tokens = HedgeTokens(1.0, lambda: told.append("hedge"))
    for _ in range(1000):
        tokens.request_begins()
    assert [tokens.take() for _ in range(11)] == [True] * 10 + [False]
    assert told == ["hedge"] * 10
