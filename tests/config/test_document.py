"""Files that are no text, and texts that are no TOML."""

from pathlib import Path

import pytest

from kkdcpd.config import (
    load_config,
)
from tests.config.broken import (
    NOW,
    PLAIN,
    REALM,
    SOUND,
    problems_of,
    refusal_of,
)

SYNTAX_REMEDY = 'write key = value, with texts in double quotes; sections look like [http] or [realms."NAME"]'
NUMBER_REMEDY = "no setting takes such a number: compare with config.toml.example"
NESTING_REMEDY = "close the brackets, and write no more dots than config.toml.example has"

BROKEN = {
    "text without quotes": (
        REALM + "[log]\nlevel = info",
        (
            "/etc/kkdcpd/config.toml, line 4: is not TOML: "
            "Expected newline or end of document after a statement; "
            'write texts in double quotes, as in level = "info"'
        ),
    ),
    "a path without quotes": (
        REALM + "[tls]\nkey = /etc/key.pem\n",
        (
            "/etc/kkdcpd/config.toml, line 4: is not TOML: Invalid value; "
            'write texts in double quotes, as in level = "info"'
        ),
    ),
    "a setting twice": (
        REALM + 'kdc = ["kdc2.example.com"]',
        "/etc/kkdcpd/config.toml, line 3: is not TOML: Cannot overwrite a value; write each key only once",
    ),
    "a list as a value and as sections": (
        "[tls]\nadditional = []\n[[tls.additional]]\n" + REALM,
        (
            "/etc/kkdcpd/config.toml, line 3: is not TOML: "
            "Cannot mutate immutable namespace ('tls', 'additional'); "
            "write it either as one value or as [[sections]], not as both"
        ),
    ),
    "a section twice": (
        REALM + REALM,
        (
            "/etc/kkdcpd/config.toml, line 3: is not TOML: Cannot declare ('realms', 'EXAMPLE.COM') twice; "
            "write each [section] only once: put its settings below the header that is there"
        ),
    ),
    "another format": (
        "[realms]\nEXAMPLE.COM {\n",
        "/etc/kkdcpd/config.toml, line 2: is not TOML: Expected '=' after a key in a key/value pair; "
        + SYNTAX_REMEDY,
    ),
    "a list that doesn't end": (
        '[realms.TEST]\nkdc = ["kdc1"',
        "/etc/kkdcpd/config.toml, line 2: is not TOML: Unclosed array; " + SYNTAX_REMEDY,
    ),
    "brackets without end": (
        REALM + "[log]\nlevel = " + "[" * 5000,
        "/etc/kkdcpd/config.toml: nests lists or tables too deeply; " + NESTING_REMEDY,
    ),
    "a number without end": (
        REALM + "[guard]\ntable_entries = " + "1" * 5000,
        "/etc/kkdcpd/config.toml: has a number of thousands of digits; " + NUMBER_REMEDY,
    ),
    "dots without end": (
        "[realms" + ".x" * 5000 + "]",
        "/etc/kkdcpd/config.toml: nests lists or tables too deeply; " + NESTING_REMEDY,
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_text_that_is_no_toml_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "config.toml") == (
        f"{tmp_path}/config.toml: there is no such file; "
        "copy config.toml.example there and fill it in, or name another file with --config"
    )


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    assert refusal_of(tmp_path) == (f"{tmp_path}: can't be read: Is a directory; name a file in it")


def test_file_that_is_not_utf_8_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# one\n# B\xfccher\n")
    assert refusal_of(path) == f"{path}, line 2: is not UTF-8; save the file in UTF-8"


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (PLAIN + SOUND).encode())
    assert load_config(path, now=NOW).config.realms[0].name == "EXAMPLE.COM"
