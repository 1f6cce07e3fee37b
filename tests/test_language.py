"""Checks that sources, tests and docs use plain words for machines and bytes, as CONTRIBUTING.md says."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FOLDERS = ("src", "tests", "lab", "bench", "deploy", "systemd", "docs")
SUFFIXES = {"", ".conf", ".example", ".md", ".py", ".service", ".socket", ".toml", ".yaml", ".yml"}
ELSEWHERE = {
    "CONTRIBUTING.md": "shows the words that it forbids",
    "LICENSE": "is the text of the licence",
    "deploy/debian/copyright": "has the text of the licence",
    "docs/man": "is generated from files that this test checks",
    "tests/test_language.py": "has the words that it searches for",
}
"""Files and folders that the test does not read, and why."""

WORDS = (
    # Words for people. A machine has a name: "the client", "the endpoint".
    *("who", "whom", "nobody", "somebody", "everybody", "whoever", "anyone", "someone"),
    # Pictures and old names. "Load", "load peak", "failure", "bytes" and "reap" are the standard words.
    *("octets?", "crowds?", "troubles?", "troubled", "bury", "buried"),
    # Old-fashioned words.
    *("whence", "thence", "thereby", "hereby", "whereby", "wherein", "hence", "lest", "alike", "whilst"),
    *("had best", "as it were"),
)
FORBIDDEN = re.compile(
    # A whole word, also within a name_with_underscores ...
    rf"(?<![a-z])(?:{'|'.join(WORDS).replace(' ', '[ _]')})(?![a-z])"
    # ... and a word of a CamelCaseName.
    rf"|(?-i:(?<![A-Z])(?:{'|'.join(word.capitalize() for word in WORDS)})(?![a-z]))",
    re.IGNORECASE,
)

ARTICLE = re.compile(r"^(?:async )?def test_(?:an?|the)_", re.MULTILINE)
"""The name of a test says the behaviour: `test_reply_of_another_request_is_dropped`."""

ALLOWED: Mapping[str, str] = {
    r"OCTET[ _]STRING": "the type of ASN.1 (X.680)",
    r"OctetString|asOctets": "pyasn1's class for that type, and its method",
    r"--kill-whom": "the option of systemctl(1)",
    r'USER, GROUP = "nobody"': "the user of Debian (base-passwd)",
}
"""Names of standards and other programs, and where each comes from."""

# A quotation of a standard stands in double quotes, in Markdown or a comment. A name stands in backquotes.
QUOTED = re.compile(r"\"[^\"\n]*\"|`[^`\n]*`")
COMMENT = re.compile(r"#.*")


def files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith("."))
    for folder in FOLDERS:
        yield from (path for path in (ROOT / folder).rglob("*") if path.is_file())


def is_checked(path: Path) -> bool:
    name = path.relative_to(ROOT).as_posix()
    is_elsewhere = any(name == other or name.startswith(f"{other}/") for other in ELSEWHERE)
    is_generated = "__pycache__" in path.parts or ".egg-info" in name
    return path.suffix in SUFFIXES and not is_elsewhere and not is_generated


CHECKED = sorted(path for path in files() if is_checked(path))


def forbidden_words(line: str, *, is_markdown: bool) -> list[str]:
    if is_markdown:
        line = QUOTED.sub("", line)
    else:
        line = COMMENT.sub(lambda comment: QUOTED.sub("", comment[0]), line)
    for name in ALLOWED:
        line = re.sub(name, "", line)
    return FORBIDDEN.findall(line)


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_has_none_of_the_forbidden_words(path: Path) -> None:
    lines = enumerate(path.read_text(errors="replace").splitlines(), start=1)
    found = {
        number: words
        for number, line in lines
        if (words := forbidden_words(line, is_markdown=path.suffix == ".md"))
    }
    assert not found, "see CONTRIBUTING.md, Plain English"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("# Whom DNS may send us to", ["Whom"]),
        ("def test_who_asks() -> None:", ["who"]),
        ("MAX_OCTETS = 4", ["OCTETS"]),
        ("class KnownOctets:", ["Octets"]),
        ('raise ValueError("nobody answers")', ["nobody"]),
        ("class CrowdGone(Exception):", ["Crowd"]),
        ("a KDC had_best be asked", ["had_best"]),
        ("the whole body, however long", []),
        ("henceforth, whosoever", []),
        ("univ.OctetString()  # an OCTET STRING", []),
        ('# RFC 2782: "whoever gets a very small chance"', []),
    ],
)
def test_words_are_found_within_names_and_not_in_quotations(line: str, words: list[str]) -> None:
    assert forbidden_words(line, is_markdown=False) == words


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.name)
def test_names_of_tests_do_not_begin_with_an_article(path: Path) -> None:
    assert not ARTICLE.findall(path.read_text())


def test_every_exception_is_needed() -> None:
    assert all((ROOT / name).exists() for name in ELSEWHERE)
    text = "\n".join(path.read_text(errors="replace") for path in CHECKED)
    assert not [name for name in ALLOWED if not re.search(name, text)]
