"""Which paths are ours, and what may be told of those that aren't."""

import hashlib

import pytest

from kkdcpd.frontends.paths import Paths, Place

TOKEN = "correct-horse-battery-staple"
OPEN = Paths(["/KdcProxy", "/deep/er"], takes_tokens=False)
SECRET = Paths(["/KdcProxy", "/deep/er"], takes_tokens=True)


def place_of(token: str) -> Place:
    return Place(hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest())


@pytest.mark.parametrize("paths", [OPEN, SECRET], ids=["open", "secret"])
@pytest.mark.parametrize("path", ["/KdcProxy", "/kdcproxy", "/KDCPROXY/", "/deep/er", "/Deep/ER/"])
def test_configured_path_is_found_in_any_case_with_a_slash_or_without(paths: Paths, path: str) -> None:
    assert paths.find(path) == Place()


@pytest.mark.parametrize("paths", [OPEN, SECRET], ids=["open", "secret"])
@pytest.mark.parametrize(
    "path",
    ["", "/", "/KdcProx", "/KdcProxyy", "KdcProxy", "//KdcProxy", "/KdcProxy//", "/deep", "/x/KdcProxy"],
)
def test_other_paths_are_not_ours(paths: Paths, path: str) -> None:
    assert paths.find(path) is None


@pytest.mark.parametrize("folder", ["/KdcProxy", "/KDCPROXY", "/deep/er"])
@pytest.mark.parametrize("end", ["", "/"])
def test_token_is_what_stands_behind_a_path_as_it_is_written(folder: str, end: str) -> None:
    assert SECRET.find(f"{folder}/{TOKEN}{end}") == place_of(TOKEN)
    assert SECRET.find(f"{folder}/{TOKEN.upper()}{end}") == place_of(TOKEN.upper())


def test_token_is_one_segment() -> None:
    assert SECRET.find(f"/KdcProxy/{TOKEN}/more") is None
    assert SECRET.find(f"/KdcProxy/{TOKEN}//") is None


@pytest.mark.parametrize("token", ["ä", "\udcff", "\0", "x" * 4096])
def test_any_text_may_pose_as_a_token(token: str) -> None:
    assert SECRET.find(f"/KdcProxy/{token}") == place_of(token)


def test_nothing_stands_behind_a_path_where_there_are_no_tokens() -> None:
    assert OPEN.find(f"/KdcProxy/{TOKEN}") is None


def test_place_doesnt_show_its_token() -> None:
    assert repr(SECRET.find(f"/KdcProxy/{TOKEN}")) == "Place()"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", "/"),
        ("/favicon.ico", "/favicon.ico"),
        ("/kdc", "/kdc"),
        ("/kdc/", "/kdc/"),
        (f"/kdc/{TOKEN}", "/kdc/..."),
        (f"/kdc/x/{TOKEN}/y", "/kdc/..."),
        (f"/{TOKEN}", "/..."),
        (f"/{TOKEN}/KdcProxy", "/.../..."),
        (f"//KdcProxy/{TOKEN}", "//..."),
        (f"/{'x' * 15}", f"/{'x' * 15}"),
        (f"/{'x' * 16}", "/..."),
        ("", "/"),
        (TOKEN, "/..."),
    ],
)
def test_what_might_be_a_token_is_left_out(path: str, shown: str) -> None:
    assert SECRET.describe(path) == shown


@pytest.mark.parametrize("path", ["/", "/kdc/proxy", f"/{TOKEN}"])
def test_path_is_told_as_it_is_where_there_are_no_tokens(path: str) -> None:
    assert OPEN.describe(path) == path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Invalid HTTP version: b'POST /KdcProxy/{TOKEN} HTTP/9.9' ^", "Invalid HTTP version"),
        (f'Bad status line "POST /KdcProxy/{TOKEN}"', "Bad status line"),
        (f"Got more than 4096 bytes when reading: b'/{TOKEN}'.", "Got more than 4096 bytes when reading"),
        ("head of more than 8192 octets", "head of more than 8192 octets"),
        ("", ""),
    ],
)
def test_what_a_parser_quotes_is_left_out_too(text: str, shown: str) -> None:
    assert SECRET.describe_error(text) == shown
    assert OPEN.describe_error(text) == text
