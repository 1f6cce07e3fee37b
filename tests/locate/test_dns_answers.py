"""The lifetime of results of look-ups."""

from kkdcpd.locate.dns_answers import FOREVER, Validity


def test_result_of_several_parts_expires_with_the_first_part() -> None:
    early, late = Validity(recheck=9, expires=10), Validity(recheck=5, expires=20)
    assert FOREVER.earliest([early, late]) == Validity(recheck=5, expires=10)
    assert FOREVER.earliest([]) == FOREVER
