import pytest

from kkdcpd.protocol.realms import fold_realm


@pytest.mark.parametrize("name", ["EXAMPLE.COM", "example.com", "Example.Com", "example.com."])
def test_case_and_root_dot_are_ignored(name: str) -> None:
    assert fold_realm(name) == "example.com"


def test_letters_outside_ascii_keep_their_case() -> None:
    assert fold_realm("BÜCHER.EXAMPLE") == "bÜcher.example"


def test_kelvin_sign_is_no_k() -> None:
    assert fold_realm("\u212aDC.EXAMPLE") != fold_realm("KDC.EXAMPLE")


def test_only_one_dot_is_dropped() -> None:
    assert fold_realm("example.com..") == "example.com."
