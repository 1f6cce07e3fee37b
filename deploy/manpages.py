"""Writes the man pages from texts that stand elsewhere.

    python -m deploy.manpages FOLDER

kkdcpd(8) comes from the help of the command line and docs/operations.md, kkdcpd.toml(5) from the declarations
of the settings. `make man` writes both pages to docs/man. A test fails if the committed pages differ.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from pathlib import Path

from deploy import roff
from kkdcpd import __version__, cli
from kkdcpd.config.documentation import Section, introduction, is_code, sections
from kkdcpd.config.example import setting_line

__all__ = ["kkdcpd_8", "kkdcpd_toml_5", "main"]

ROOT = Path(__file__).parent.parent
_SOURCE = f"kkdcpd {__version__}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both pages into a folder."""
    parser = argparse.ArgumentParser(prog="python -m deploy.manpages")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kkdcpd.8").write_text(kkdcpd_8())
    (folder / "kkdcpd.toml.5").write_text(kkdcpd_toml_5())
    return 0


def kkdcpd_8() -> str:
    """Return the page of the command."""
    parser = cli._parser()
    parts = [
        roff.section("name"),
        roff.paragraph("kkdcpd - Kerberos KDC proxy (MS-KKDCP)"),
        roff.section("synopsis"),
        *_synopsis(parser),
        roff.section("description"),
        roff.paragraph(str(parser.description)),
        roff.section("options"),
        *_options(parser._actions),
        roff.section("commands"),
        *_commands(parser),
        *(part for head in ("Signals", "Files", "Environment") for part in _from_operations(head)),
        roff.section("exit status"),
        *_exit_codes(str(parser.epilog)),
        roff.section("see also"),
        ", ".join(starmap(roff.reference, [("kkdcpd.toml", 5), ("krb5.conf", 5), ("systemd.socket", 5)])),
    ]
    return roff.page("kkdcpd", 8, _SOURCE, parts)


def _synopsis(parser: argparse.ArgumentParser) -> Iterator[str]:
    for command in (parser, *_subcommands(parser)):
        words = command.format_usage().removeprefix("usage: ").replace("[-h] ", "").split()
        yield roff.paragraph(" ".join(words))


def _options(actions: Iterable[argparse.Action]) -> Iterator[str]:
    for action in actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        words = ", ".join(action.option_strings) or str(action.metavar)
        value = f" {action.metavar}" if action.option_strings and action.metavar else ""
        yield roff.items([f"{words}{value}"], _sentence(action.help or ""))


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    inherited = {action.dest for action in parser._actions}
    for command, meaning in _subcommands(parser).items():
        own = [action for action in command._actions if action.dest not in inherited]
        operands = (str(action.metavar) for action in own if not action.option_strings)
        yield roff.items([" ".join([command.prog.removeprefix("kkdcpd "), *operands])], _sentence(meaning))
        if own:
            yield from roff.indented(_options(own))


def _subcommands(parser: argparse.ArgumentParser) -> Mapping[argparse.ArgumentParser, str]:
    """Return the commands, each with its line of help."""
    (commands,) = (it for it in parser._actions if isinstance(it, argparse._SubParsersAction))
    help_of = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    return {command: help_of[name] for name, command in commands.choices.items()}


def _exit_codes(epilog: str) -> Iterator[str]:
    for line in epilog.splitlines()[1:]:
        code, meaning = line.split(maxsplit=1)
        yield roff.items([code], _sentence(meaning))


def _from_operations(head: str) -> Iterator[str]:
    """Turn one section of docs/operations.md, prose and tables of two columns, into a section."""
    text = (ROOT / "docs" / "operations.md").read_text()
    (body,) = re.findall(rf"^## {head}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    yield roff.section(head)
    for block in body.strip().split("\n\n"):
        if not block.startswith("|"):
            yield roff.paragraph(" ".join(block.split()))
            continue
        for row in block.splitlines()[2:]:
            tag, meaning = (cell.strip() for cell in row.strip("|").split("|"))
            yield roff.items([tag.replace("`", "")], _sentence(meaning))


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def kkdcpd_toml_5() -> str:
    """Return the page of the configuration."""
    parts = [
        roff.section("name"),
        roff.paragraph("kkdcpd.toml - configuration of kkdcpd"),
        roff.section("description"),
        roff.paragraph(introduction().summary),
        *(part for section in sections() for part in _section(section)),
        roff.section("files"),
        roff.items(
            [cli.DEFAULT_CONFIG], "The configuration, unless `--config` or `$KKDCPD_CONFIG` name another."
        ),
        roff.section("see also"),
        ", ".join(starmap(roff.reference, [("kkdcpd", 8), ("krb5.conf", 5)])),
        roff.paragraph("TOML: https://toml.io/en/v1.0.0"),
    ]
    return roff.page("kkdcpd.toml", 5, _SOURCE, parts)


def _section(section: Section) -> Iterator[str]:
    yield roff.subsection(section.header)
    yield from _prose(section.prose.blocks)
    for group in section.groups:
        first, *rest = group.prose.blocks
        yield roff.items([setting_line(name, each) for name, each in group.settings.items()], first)
        if rest:
            yield from roff.indented(_prose(rest))
    for note in section.notes:
        yield from _prose(note.blocks)


def _prose(blocks: Iterable[str]) -> Iterator[str]:
    for block in blocks:
        yield roff.example(textwrap.dedent(block).splitlines()) if is_code(block) else roff.paragraph(block)


if __name__ == "__main__":
    sys.exit(main())
