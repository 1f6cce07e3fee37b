import pytest

from kkdcpd.config.texts import (
    parse_http_path,
    parse_mode,
    parse_principal,
    parse_realm_name,
    parse_realm_pattern,
    parse_site,
)
from kkdcpd.errors import SettingError


@pytest.mark.parametrize("name", ["EXAMPLE.COM", "example", "BÜCHER.EXAMPLE", "X" * 255, "other realm"])
def test_realm_name_stays_as_written(name: str) -> None:
    assert parse_realm_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is no name"),
        (".", "is no name"),
        ("X" * 256, "has more than 255 bytes"),
        ("Ü" * 128, "has more than 255 bytes"),
        ("EXAMPLE\n.COM", "has a control character in it"),
        ("EXAMPLE\x7f", "has a control character in it"),
        ("EXAMPLE\x85", "has a control character in it"),
        ("*.EXAMPLE.COM", "has a * in it"),
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


@pytest.mark.parametrize("name", ["EXAMPLE.COM", "*.EXAMPLE.COM", "*.ad.example.com.", "other realm"])
def test_realm_pattern_stays_as_written(name: str) -> None:
    assert parse_realm_pattern(name) == name


@pytest.mark.parametrize(
    "name", ["", "*", "*.", "*..", "*.COM", "*.COM.", "*EXAMPLE.COM", "A.*.COM", "*.*.COM", "*.A\n.COM"]
)
def test_bad_realm_pattern_is_refused(name: str) -> None:
    with pytest.raises(SettingError):
        parse_realm_pattern(name)


@pytest.mark.parametrize("site", ["", "Default-First-Site-Name", "HQ_1", "x" * 63])
def test_site_stays_as_written(site: str) -> None:
    assert parse_site(site) == site


@pytest.mark.parametrize("site", ["A.B", "A B", "-A", "A-", "x" * 64, "Köln", "A\n"])
def test_bad_site_is_refused(site: str) -> None:
    with pytest.raises(SettingError):
        parse_site(site)


@pytest.mark.parametrize("principal", ["krbtgt", "probe", "host/kdc1.example.com", "some one"])
def test_principal_stays_as_written(principal: str) -> None:
    assert parse_principal(principal) == principal


@pytest.mark.parametrize("principal", ["", "/", "host/", "/kdc1", "a@B", "a\\b", "a\nb"])
def test_bad_principal_is_refused(principal: str) -> None:
    with pytest.raises(SettingError):
        parse_principal(principal)
