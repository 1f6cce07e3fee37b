"""Writes the figures of docs/performance.md. Each benchmark replaces its own section."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["replace_section", "table"]

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Write a table, line by line."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def replace_section(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Put `text` between the section's marks: `<!-- bench: NAME -->` and `<!-- end -->`."""
    mark = f"<!-- bench: {name} -->"
    section = re.compile(re.escape(mark) + r"\n.*?<!-- end -->", re.DOTALL)
    before = document.read_text()
    if not section.search(before):
        raise ValueError(f"{document} has no section {mark}")
    document.write_text(section.sub(lambda _: f"{mark}\n{text}\n<!-- end -->", before))
