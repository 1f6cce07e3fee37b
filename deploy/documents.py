"""Writes config.toml.example and docs/settings.md from the declarations of the settings.

    python -m deploy.documents FOLDER

`make docs` writes them into the clone. A test fails if the committed files differ.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from kkdcpd.config.documentation import Group, Prose, Section, is_code, sections
from kkdcpd.config.example import example
from kkdcpd.config.kinds import ListOf
from kkdcpd.config.reader import Setting, Table

__all__ = ["documents", "main", "settings_page"]

_INTRODUCTION = """# Settings

All settings of `/etc/kkdcpd/config.toml`, each with the first words of its description.
[config.toml.example](../config.toml.example) has the whole descriptions, with the meaning of each value and
the reasons for the defaults. `make docs` writes this page from `config/sections`.
"""
# A table, a list or a text in TOML, with the name of its setting if that precedes it.
_TOML = re.compile(r'\{[^}]*"[^}]*\}|(?:\b[a-z_]+ = )?(?:\[[^]]*"[^]]*\]|\[\d[^]]*\]|"[^"]*")')
_HEAD = "| setting | value | default | meaning |\n|---|---|---|---|\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the documents below a folder."""
    parser = argparse.ArgumentParser(prog="python -m deploy.documents")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    for name, text in documents():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return 0


def documents() -> Iterator[tuple[str, str]]:
    """Return each document: its path below the clone, and its text."""
    yield "config.toml.example", example()
    yield "docs/settings.md", settings_page()


def settings_page() -> str:
    """Return the reference of all settings."""
    return "\n".join([_INTRODUCTION, *map(_section, sections())])


def _section(section: Section) -> str:
    rows = (row for group in section.groups for row in _rows(group))
    notes = (f"\n{_prose(note)}" for note in section.notes)
    return f"## `{section.header}`\n\n{_prose(section.prose)}\n{_HEAD}{''.join(rows)}{''.join(notes)}"


def _rows(group: Group) -> Iterator[str]:
    """Return a row for each setting. The first row of a group has its meaning."""
    meaning = _marked(group.prose.summary)
    for name, setting in group.settings.items():
        yield f"| `{name}` | {_marked(_value(setting))} | {_default(setting)} | {meaning} |\n"
        meaning = f"see `{next(iter(group.settings))}`"


def _value(setting: Setting) -> str:
    match setting.kind:
        case Table():
            return "a table"
        case ListOf(item=Table()):
            return "a list of tables"
    return setting.kind.remedy.removeprefix("write ")


def _default(setting: Setting) -> str:
    return "" if setting.is_required else f"`{setting.kind.write(setting.default)}`"


def _prose(prose: Prose) -> str:
    return "\n".join(_code(each) if is_code(each) else f"{_marked(each)}\n" for each in prose.blocks)


def _code(lines: str) -> str:
    return f"```text\n{textwrap.dedent(lines)}\n```\n"


def _marked(text: str) -> str:
    """Return the text with TOML values as code; each `*` and `|` of Markdown is in such a value."""
    parts = re.split("(`[^`]*`)", text)
    return "".join(each if each.startswith("`") else _TOML.sub(r"`\g<0>`", each) for each in parts)


if __name__ == "__main__":
    sys.exit(main())
