"""Tests the writer of the man pages."""

import os
from pathlib import Path

import pytest

from deploy import roff
from lab.program import run


def shown(tmp_path: Path, *parts: str) -> str:
    """Return the text that a reader sees below the section's heading."""
    page = tmp_path / "page.1"
    page.write_text(roff.page("page", 1, "test", [roff.section("name"), *parts]))
    lines = run("mandoc", "-Tascii", str(page), environment=os.environ).expect_ok().output.splitlines()
    # Bold is overstruck on a terminal.
    plain = [_without_overstrikes(line) for line in lines]
    return "\n".join(plain[plain.index("NAME") + 1 : -1]).strip("\n")


def _without_overstrikes(line: str) -> str:
    while (at := line.find("\b")) > 0:
        line = line[: at - 1] + line[at + 1 :]
    return line.rstrip()


@pytest.mark.parametrize(
    "text", [".so /etc/passwd", "'quoted'", r"back\slash", "--an-option", "a - b", "~user"]
)
def test_no_text_is_read_as_a_roff_command(tmp_path: Path, text: str) -> None:
    assert shown(tmp_path, roff.paragraph(text)).split() == text.split()
    assert shown(tmp_path, roff.example([text])).split() == text.split()
    assert shown(tmp_path, roff.items([text], "x")).split() == [*text.split(), "x"]


def test_line_that_is_wrapped_before_a_dot_begins_with_none(tmp_path: Path) -> None:
    text = f"{'x' * 70} .hidden"
    assert ".hidden" in shown(tmp_path, roff.paragraph(text))


def test_marks_become_bold_and_links_their_text() -> None:
    source = roff.paragraph("Say `this or that`, **now**, as in [the guide](guide.md).")
    assert source == ".PP\nSay \\fBthis or that\\fR, \\fBnow\\fR, as in the guide."


def test_mark_may_go_over_a_lines_end(tmp_path: Path) -> None:
    source = roff.paragraph(f"{'x' * 65} `one two three`.")
    assert source.count("\\fB") == source.count("\\fR") == 1
    assert "`" not in shown(tmp_path, source)


def test_sentences_begin_lines() -> None:
    assert roff.paragraph("One. Two: three! Four") == ".PP\nOne.\nTwo: three!\nFour"


def test_items_share_one_text(tmp_path: Path) -> None:
    lines = shown(tmp_path, roff.items(["a = 1", "b = 2"], "Both.")).splitlines()
    assert [line.split() for line in lines] == [["a", "=", "1"], ["b", "=", "2", "Both."]]


def test_pages_name_each_other() -> None:
    assert roff.reference("kkdcpd.toml", 5) == "\\fBkkdcpd.toml\\fR(5)"


def test_what_is_below_an_item_is_indented() -> None:
    assert list(roff.indented(["x"])) == [".RS", "x", ".RE"]


def test_heads_need_no_paragraph() -> None:
    source = roff.page("page", 1, "test", [roff.section("a"), roff.subsection("b"), roff.paragraph("c")])
    assert source == '.TH PAGE 1 "" "test"\n.SH A\n.SS b\nc\n'
