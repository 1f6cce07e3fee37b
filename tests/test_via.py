"""The header Via of forwarded requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd import via
from kkdcpd.errors import LoopDetectedError

OWN = f"1.1 {via.NAME}"


def test_first_proxy_names_itself_only() -> None:
    assert via.extend() == OWN


@pytest.mark.parametrize(
    ("received", "passed_on"),
    [
        (["1.1 kkdcpd-0123456789ab"], "1.1 kkdcpd-0123456789ab"),
        (["1.1 a, 1.0 b:8443"], "1.1 a, 1.0 b:8443"),
        (["1.1 a", "HTTP/2.0 b"], "1.1 a, HTTP/2.0 b"),
        (["1.1 front.example.com (CloudFront)"], "1.1 front.example.com"),
        (["", "nonsense", "1.1 a\r\nX: y", "1.1 b\x00", "1.1 ä"], ""),
    ],
)
def test_names_of_earlier_proxies_are_passed_on(received: list[str], passed_on: str) -> None:
    assert via.extend(received) == (f"{passed_on}, {OWN}" if passed_on else OWN)


@pytest.mark.parametrize("received", [[OWN], [f"1.1 a, {OWN}, 1.1 b"], ["1.1 a", f" {OWN} (comment) "]])
def test_own_name_is_a_loop(received: list[str]) -> None:
    with pytest.raises(LoopDetectedError):
        via.extend(received)


def test_way_of_too_many_proxies_is_a_loop() -> None:
    names = [f"1.1 proxy{number}" for number in range(via.MAX_HOPS)]
    via.extend(names[1:])
    with pytest.raises(LoopDetectedError):
        via.extend(names)


@given(st.lists(st.text(max_size=60), max_size=5))
def test_header_is_printable_ascii_whatever_was_received(received: list[str]) -> None:
    assert all(" " <= character <= "~" for character in via.extend(received))
