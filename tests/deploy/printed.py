"""Reads the fenced blocks of README and docs, each with its language."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.conftest import REPOSITORY

__all__ = ["Block", "block", "blocks", "commands", "documents"]

_BLOCK = re.compile(r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block; `place` is FILE:LINE."""

    place: str
    language: str
    text: str


def documents() -> Sequence[Path]:
    """Return the pages that people read."""
    return sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])


def blocks(*languages: str) -> Sequence[Block]:
    """Yield all blocks, or the blocks in these languages."""
    found = [
        Block(
            place=f"{path.relative_to(REPOSITORY)}:{page.count(chr(10), 0, match.start()) + 1}",
            language=match["language"],
            text=match["text"],
        )
        for path in documents()
        for page in (path.read_text(),)
        for match in _BLOCK.finditer(page)
    ]
    return [each for each in found if not languages or each.language in languages]


def block(document: str, language: str, words: str) -> Block:
    """Return the first block of this language in a document that contains these words."""
    return next(it for it in blocks(language) if it.place.startswith(f"{document}:") and words in it.text)


def commands(text: str) -> Sequence[str]:
    """Return the commands of a block, each in one line."""
    return [line for line in re.split(r"(?<!\\)\n", text) if line.strip()]
