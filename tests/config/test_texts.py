import pytest

from kkdcpd.config.texts import parse_http_path, parse_mode, parse_realm_name
from kkdcpd.errors import SettingError


@pytest.mark.parametrize("name", ["EXAMPLE.COM", "example", "BÜCHER.EXAMPLE", "X" * 255, "other realm"])
def test_realm_name_stays_as_written(name: str) -> None:
    assert parse_realm_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is no name"),
        (".", "is no name"),
        ("X" * 256, "has more than 255 octets"),
        ("Ü" * 128, "has more than 255 octets"),
        ("EXAMPLE\n.COM", "has a control character in it"),
        ("EXAMPLE\x7f", "has a control character in it"),
        ("EXAMPLE\x85", "has a control character in it"),
    ],
)
def test_bad_realm_name_is_refused_with_the_reason(name: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_realm_name(name)
    assert caught.value.problem == problem


@pytest.mark.parametrize("path", ["/", "/KdcProxy", "/some/where/KdcProxy", "/~kdc;v=1"])
def test_http_path_stays_as_written(path: str) -> None:
    assert parse_http_path(path) == path


@pytest.mark.parametrize("path", ["", "KdcProxy", "/a?b", "/a#b", "/a b", "/a\tb", "/a%20b", "/ä", "/a\n"])
def test_bad_http_path_is_refused(path: str) -> None:
    with pytest.raises(SettingError):
        parse_http_path(path)


@pytest.mark.parametrize(
    ("text", "mode"), [("0660", 0o660), ("660", 0o660), ("0600", 0o600), ("0777", 0o777)]
)
def test_mode_is_octal(text: str, mode: int) -> None:
    assert parse_mode(text) == mode


@pytest.mark.parametrize("text", ["", "0o660", "66", "0888", "1660", "00660", "rw-rw----", "0660\n"])
def test_bad_mode_is_refused(text: str) -> None:
    with pytest.raises(SettingError):
        parse_mode(text)
