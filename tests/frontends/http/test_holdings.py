"""Which connection is cut off when all together hold too much. The daemon's is in test_connection."""

from kkdcpd.frontends.http.holdings import FREE_BYTES, Holdings


class Held:
    """A connection of which only matters whether it is cut off."""

    def __init__(self, name: str, cut: list[str]) -> None:
        self._name = name
        self._cut = cut

    def cut_off(self, reason: str) -> None:
        assert reason == "too much is held"
        self._cut.append(self._name)


def test_oldest_of_the_largest_holders_is_aborted() -> None:
    cut: list[str] = []
    first, second, third = (Held(name, cut) for name in ("first", "second", "third"))
    holdings = Holdings(100_000)
    holdings.hold(first, 40_000)
    holdings.hold(second, 40_000)
    holdings.hold(first, 60_000)
    assert not cut
    holdings.hold(third, 20_000)
    assert cut == ["first"]
    holdings.hold(second, 80_000)
    assert cut == ["first"]
    holdings.release(third)
    holdings.hold(first, 20_000)
    assert cut == ["first"]
    holdings.hold(first, 20_001)
    assert cut == ["first", "second"]


def test_little_is_never_held_against_anybody() -> None:
    cut: list[str] = []
    holdings = Holdings(100_000)
    for number in range(100):
        holdings.hold(Held(str(number), cut), FREE_BYTES)
    assert not cut
