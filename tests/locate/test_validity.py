"""For how long something may be used."""

from kkdcpd.locate.validity import FOREVER, Validity


def test_what_is_made_of_many_parts_holds_as_long_as_the_first_to_expire() -> None:
    early, late = Validity(recheck=9, expires=10), Validity(recheck=5, expires=20)
    assert FOREVER.earliest([early, late]) == Validity(recheck=5, expires=10)
    assert FOREVER.earliest([]) == FOREVER
