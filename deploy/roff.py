"""Writes man pages with the few macros of man(7) that kkdcpd's pages need.

The input has Markdown's inline marks: `code` and **strong** become bold, [text](target) becomes its text.
"""

import re
import textwrap
from collections.abc import Iterable

__all__ = ["example", "indented", "items", "page", "paragraph", "reference", "section", "subsection"]

_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
_WRAPPER = textwrap.TextWrapper(width=72, break_long_words=False, break_on_hyphens=False)
_BOLD = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


def page(name: str, number: int, source: str, parts: Iterable[str]) -> str:
    """Return a whole page. It has no date, so that it changes only when its text does."""
    text = "\n".join([f'.TH {name.upper()} {number} "" "{source}"', *parts])
    # A heading begins a paragraph itself.
    return re.sub(r"(?m)^(\.S[HS] .*)\n\.PP$", r"\1", text) + "\n"


def reference(name: str, number: int) -> str:
    """Return the name of another page."""
    return f"\\fB{_plain(name)}\\fR({number})"


def section(name: str) -> str:
    """Return the heading of a section."""
    return f".SH {_plain(name.upper())}"


def subsection(name: str) -> str:
    """Return the heading of a subsection."""
    return f".SS {_plain(name)}"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f".PP\n{_marked(text)}"


def items(tags: Iterable[str], text: str) -> str:
    """Return a paragraph under all the `tags`, each on its own line."""
    heads = [f"\\fB{_plain(tag)}\\fR" for tag in tags]
    return ".TP\n" + "\n.TQ\n".join(heads) + f"\n{_marked(text)}"


def indented(parts: Iterable[str]) -> Iterable[str]:
    """Indent parts below an item."""
    return [".RS", *parts, ".RE"]


def example(lines: Iterable[str]) -> str:
    """Return lines without filling them."""
    return "\n".join([".PP", ".RS 4", ".EX", *(_plain(line) for line in lines), ".EE", ".RE"])


def _marked(text: str) -> str:
    """Escape a text and replace its inline marks; each sentence begins a line, as roff needs."""
    sentences = re.split(r"(?<=[.:;!?]) +(?=[A-Z`])", _LINK.sub(r"\1", text))
    lines = (line for sentence in sentences for line in _WRAPPER.wrap(sentence))
    # A mark may extend over the end of a line.
    return _BOLD.sub(r"\\fB\1\2\\fR", "\n".join(map(_plain, lines)))


def _plain(text: str) -> str:
    """Escape characters with a meaning in roff, and keep minus signs, so that readers can copy commands."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
