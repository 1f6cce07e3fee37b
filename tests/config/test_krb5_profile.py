"""MIT's profile format. The cases were compared with the parser of libkrb5."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.config.krb5_profile import MAX_PROFILE_BYTES, read_profile
from kkdcpd.errors import ConfigError, SettingError

MAIN = Path("/etc/krb5.conf")


@dataclass(frozen=True, kw_only=True)
class FakeFiles:
    """Files by their paths. A directory is the parent of a file."""

    texts: Mapping[str, str]

    def text(self, path: Path) -> str:
        if str(path) not in self.texts:
            raise SettingError(f"there is no {path}", "put it there")
        return self.texts[str(path)]

    def names(self, directory: Path) -> Sequence[str]:
        names = [Path(path).name for path in self.texts if Path(path).parent == directory]
        if not names:
            raise SettingError(f"there is no {directory}")
        return names


def _relations(text: str) -> list[tuple[str, str]]:
    found = read_profile(MAIN, FakeFiles(texts={str(MAIN): text}), key="krb5_conf")
    return [("/".join(relation.path), relation.value) for relation in found]


def _refusal(files: Mapping[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        read_profile(MAIN, FakeFiles(texts=files), key="krb5_conf")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "relations"),
    [
        ("", []),
        ("what = stands before the first section\n[a]\nb = c", [("a/b", "c")]),
        ("[a]\nb = c\n[d]\nb = e\n[a]\nb = f\n", [("a/b", "c"), ("d/b", "e"), ("a/b", "f")]),
        ("[a]\r\n\tb\t=\tc d \r\n", [("a/b", "c d")]),
        ("[a]\n# b = c\n  ; b = c\n\nb = #c\n", [("a/b", "#c")]),
        (
            "[a]\nR = {\n b = c\n S = {\n  d = e\n }\n}\nf = g",
            [("a/R/b", "c"), ("a/R/S/d", "e"), ("a/f", "g")],
        ),
        ("[a]\nR =\n { what follows is lost\nb = c\n}\n", [("a/R/b", "c")]),
        ("[a]\nR = {  \nb = c\n} what follows is lost\nd = e", [("a/R/b", "c"), ("a/d", "e")]),
        ("[a]*\nR* = {\nb* = c\n}*\nd*e = f", [("a/R/b", "c"), ("a/d", "f")]),
        ("[a]  \nb = {c\n", [("a/b", "{c")]),
        ('[a]\nb = " c\\td\\"\\\\ " lost', [("a/b", ' c\td"\\ ')]),
        ('[a]\nb = ""\nc = "d', [("a/b", ""), ("a/c", "d")]),
        ("[a]\nmodule /usr/lib/some.so:residual\nb = c", [("a/b", "c")]),
        ("[a]\nb = c\x85d\u2028e\n", [("a/b", "c\x85d\u2028e")]),
        ("[a]\nR = {\nb = c", [("a/R/b", "c")]),
    ],
)
def test_profile_is_read_as_mit_reads_it(text: str, relations: list[tuple[str, str]]) -> None:
    assert _relations(text) == relations


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("[a]\nb", "/etc/krb5.conf, line 2: is no relation; write name = value, or # before a comment"),
        ("[a]\nb c = d", "/etc/krb5.conf, line 2: is no relation; write name = value, or # before a comment"),
        ("[a]\n= d", "/etc/krb5.conf, line 2: is no relation; write name = value, or # before a comment"),
        ("[a", "/etc/krb5.conf, line 1: is no section; write [name] and nothing else"),
        ("\n[a] b", "/etc/krb5.conf, line 2: is no section; write [name] and nothing else"),
        ("[a]\n}", "/etc/krb5.conf, line 2: closes a brace that nothing has opened; remove the }"),
        (
            "[a]\nR = {\n[b]",
            "/etc/krb5.conf, line 3: begins a section within R; close its brace with } before",
        ),
        (
            "[a]\nR =\nb = c",
            (
                "/etc/krb5.conf, line 3: does not begin with {, but R has no value in the line above; "
                "give it a value, or put { on this line"
            ),
        ),
        (
            "[a]\n" + 17 * "R = {\n",
            "/etc/krb5.conf, line 18: opens more than 16 braces; close some before",
        ),
        (
            "include krb5.conf.d",
            "/etc/krb5.conf, line 1: includes what is no absolute path; write a path that begins with /",
        ),
        (
            "[a]\ninclude /etc/\0",
            "/etc/krb5.conf, line 2: includes what is no absolute path; write a path that begins with /",
        ),
        ("\ninclude /etc/none", "/etc/krb5.conf, line 2: there is no /etc/none; put it there"),
        ("includedir /etc/none/", "/etc/krb5.conf, line 1: there is no /etc/none; correct the path"),
        (
            "include /etc/krb5.conf",
            "/etc/krb5.conf, line 1: includes /etc/krb5.conf within itself; remove this line",
        ),
        (
            "#" * (MAX_PROFILE_BYTES + 1),
            (
                "/etc/krb5.conf: holds, with all it includes, more than 4194304 bytes; "
                "name a file that is a krb5.conf"
            ),
        ),
    ],
)
def test_bad_profile_is_refused_with_file_and_line(text: str, refusal: str) -> None:
    assert _refusal({str(MAIN): text}) == refusal


def test_missing_profile_is_refused_with_the_key_of_its_setting() -> None:
    assert _refusal({}) == "krb5_conf: there is no /etc/krb5.conf; put it there"


def test_included_file_neither_goes_on_in_a_section_nor_ends_it() -> None:
    files = FakeFiles(
        texts={
            str(MAIN): "[a]\nR = {\ninclude /etc/more\nb = c\n}\n",
            "/etc/more": "x = y\n[d]\nS = {\ne = f\n",
        }
    )
    found = read_profile(MAIN, files, key="krb5_conf")
    assert [(relation.path, relation.origin) for relation in found] == [
        (("d", "S", "e"), "/etc/more, line 4"),
        (("a", "R", "b"), "/etc/krb5.conf, line 4"),
    ]


def test_directory_is_included_in_order_and_without_backups() -> None:
    names = ["b", "a.conf", "9-x_Y", ".conf", ".a.conf", "a.conf~", "b.rpmsave", "a b", "a b.conf"]
    files = FakeFiles(
        texts={
            str(MAIN): "includedir /etc/krb5.conf.d/",
            **{f"/etc/krb5.conf.d/{name}": f"[a]\nfrom = {name}" for name in names},
        }
    )
    found = read_profile(MAIN, files, key="krb5_conf")
    assert [relation.value for relation in found] == ["9-x_Y", "a b.conf", "a.conf", "b"]


def test_files_that_include_each_other_are_refused() -> None:
    files = {
        str(MAIN): "include /etc/one",
        "/etc/one": "include /etc/two",
        "/etc/two": "[a]\ninclude /etc/one",
    }
    assert _refusal(files) == "/etc/two, line 2: includes /etc/one within itself; remove this line"


def test_includes_do_not_multiply_without_end() -> None:
    twice = {f"/etc/{number}": 2 * f"include /etc/{number + 1}\n" for number in range(10)}
    files = {str(MAIN): "include /etc/0", **twice, "/etc/10": ""}
    assert _refusal(files) == (
        "/etc/9, line 1: includes /etc/10 beyond 10 levels or 1000 files; include fewer files"
    )
    tenfold = {f"/etc/{number}": 10 * f"include /etc/{number + 1}\n" for number in range(3)}
    assert "or 1000 files" in _refusal({str(MAIN): "include /etc/0", **tenfold, "/etc/3": ""})


_LINES = st.sampled_from(
    [
        "[a]",
        "[a]*",
        "R = {",
        "R =",
        "{",
        "}",
        "}*",
        "b = c",
        'b = "c\\',
        "include /etc/krb5.conf",
        "includedir /",
    ]
)


@given(text=st.text() | st.lists(_LINES | st.text()).map("\n".join))
def test_no_text_is_a_crash(text: str) -> None:
    with suppress(ConfigError):
        read_profile(MAIN, FakeFiles(texts={str(MAIN): text}), key="krb5_conf")
