"""Finding served paths and tokens, and describing other targets without quoting them."""

import hashlib

import pytest

from kkdcpd.frontends.http.paths import Paths, ServedPath

TOKEN = "correct-horse-battery-staple"
OPEN = Paths(["/KdcProxy", "/deep/er"], takes_tokens=False)
SECRET = Paths(["/KdcProxy", "/deep/er"], takes_tokens=True)


def path_with(token: str) -> ServedPath:
    return ServedPath(hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest())


@pytest.mark.parametrize("paths", [OPEN, SECRET], ids=["open", "secret"])
@pytest.mark.parametrize("path", ["/KdcProxy", "/kdcproxy", "/KDCPROXY/", "/deep/er", "/Deep/ER/"])
def test_configured_path_is_found_in_any_case_with_a_slash_or_without(paths: Paths, path: str) -> None:
    assert paths.find(path) == ServedPath()


@pytest.mark.parametrize("paths", [OPEN, SECRET], ids=["open", "secret"])
@pytest.mark.parametrize(
    "path",
    ["", "/", "/KdcProx", "/KdcProxyy", "KdcProxy", "//KdcProxy", "/KdcProxy//", "/deep", "/x/KdcProxy"],
)
def test_other_paths_are_not_served(paths: Paths, path: str) -> None:
    assert paths.find(path) is None


@pytest.mark.parametrize("folder", ["/KdcProxy", "/KDCPROXY", "/deep/er"])
@pytest.mark.parametrize("end", ["", "/"])
def test_token_is_the_segment_after_a_path_and_keeps_its_case(folder: str, end: str) -> None:
    assert SECRET.find(f"{folder}/{TOKEN}{end}") == path_with(TOKEN)
    assert SECRET.find(f"{folder}/{TOKEN.upper()}{end}") == path_with(TOKEN.upper())


def test_token_is_one_segment() -> None:
    assert SECRET.find(f"/KdcProxy/{TOKEN}/more") is None
    assert SECRET.find(f"/KdcProxy/{TOKEN}//") is None


@pytest.mark.parametrize("token", ["ä", "\udcff", "\0", "x" * 4096])
def test_any_text_can_be_a_token(token: str) -> None:
    assert SECRET.find(f"/KdcProxy/{token}") == path_with(token)


def test_path_has_no_further_segment_if_no_realm_has_tokens() -> None:
    assert OPEN.find(f"/KdcProxy/{TOKEN}") is None


def test_repr_of_a_served_path_does_not_show_its_token() -> None:
    assert repr(SECRET.find(f"/KdcProxy/{TOKEN}")) == "ServedPath()"


@pytest.mark.parametrize("paths", [OPEN, SECRET], ids=["open", "secret"])
@pytest.mark.parametrize(
    "target",
    [
        "/KdcProxy?a=b",
        "/KdcProxy#a",
        "/kdcproxy/?token=x#y",
        "http://kdc.example.com/KdcProxy",
        "https://kdc.example.com:443/kdcproxy/?x",
        "https://user:password@[::1]:99999/KdcProxy",
        "HTTP://xn--0a/KdcProxy",
    ],
)
def test_path_is_found_in_every_form_of_a_target(paths: Paths, target: str) -> None:
    assert paths.find(target) == ServedPath()


@pytest.mark.parametrize("target", ["https://kdc.example.com", "https://kdc.example.com?x/y", "https://a#b"])
def test_url_without_a_path_has_the_root(target: str) -> None:
    assert Paths(["/"], takes_tokens=False).find(target) == ServedPath()
    assert OPEN.find(target) is None


@pytest.mark.parametrize("paths", [OPEN, SECRET, Paths(["/"], takes_tokens=True)])
@pytest.mark.parametrize(
    "target", ["*", "kdc.example.com:443", "KdcProxy", "://x/KdcProxy", "mailto:/KdcProxy"]
)
def test_other_targets_have_no_path(paths: Paths, target: str) -> None:
    assert paths.find(target) is None


@pytest.mark.parametrize("path", ["/KdcProxy%2f", "/%4bdcProxy", "/KdcProxy%00", "/deep%2fer"])
def test_nothing_is_decoded(path: str) -> None:
    assert OPEN.find(path) is None
    assert SECRET.find(path) is None


def test_encoded_token_is_another_token() -> None:
    assert SECRET.find(f"/KdcProxy/%63{TOKEN[1:]}") == path_with(f"%63{TOKEN[1:]}")


@pytest.mark.parametrize("paths", [OPEN, SECRET], ids=["open", "secret"])
@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/favicon.ico", "another path (12 characters)"),
        ("/KdcProxyy", "another path (10 characters)"),
        (f"/kdcproxy/{TOKEN}/more", "/KdcProxy/... (43 characters)"),
        (f"https://h/deep/er/{TOKEN}/", "/deep/er/... (38 characters)"),
        (f"/{TOKEN}", "another path (29 characters)"),
        ("*", "no path"),
        (f"h:{TOKEN}", "no path"),
    ],
)
def test_description_names_the_served_paths_and_quotes_nothing_of_the_target(
    paths: Paths, target: str, shown: str
) -> None:
    assert paths.describe(target) == f"{shown}; served: /KdcProxy, /deep/er"
