"""Makes the man pages of what says the same elsewhere, so that there is no second truth.

    python -m deploy.manpages FOLDER

kkdcpd(8) comes from the command line's help and docs/operations.md; kkdcpd.toml(5) from config.toml.example,
which a test holds against the schema. `make man` writes them to docs/man; a test fails if they are stale.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

from deploy import roff
from kkdcpd import __version__, cli
from kkdcpd.config import Config, settings_of
from kkdcpd.config.kinds import ListOf
from kkdcpd.config.named_tables import NamedTables
from kkdcpd.config.reader import Table

__all__ = ["kkdcpd_8", "kkdcpd_toml_5", "main"]

ROOT = Path(__file__).parent.parent
_SOURCE = f"kkdcpd {__version__}"

_SECTION = re.compile(r"#?\[+([^\]]+)\]+$")
_KEY = re.compile(r"#?([a-z_0-9]+) = (.*)$")
_CODE = re.compile(r"#(?: {3}(.*))?$")
_RULE = re.compile(r"# -{20,}$")


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
    for command, told in _subcommands(parser).items():
        own = [action for action in command._actions if action.dest not in inherited]
        operands = (str(action.metavar) for action in own if not action.option_strings)
        yield roff.items([" ".join([command.prog.removeprefix("kkdcpd "), *operands])], _sentence(told))
        if own:
            yield from roff.indented(_options(own))


def _subcommands(parser: argparse.ArgumentParser) -> Mapping[argparse.ArgumentParser, str]:
    """Return the commands, each with its line of help."""
    (commands,) = (it for it in parser._actions if isinstance(it, argparse._SubParsersAction))
    told = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    return {command: told[name] for name, command in commands.choices.items()}


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
            tag, told = (cell.strip() for cell in row.strip("|").split("|"))
            yield roff.items([tag.replace("`", "")], _sentence(told))


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def kkdcpd_toml_5() -> str:
    """Return the page of the configuration."""
    parts = [
        roff.section("name"),
        roff.paragraph("kkdcpd.toml - configuration of kkdcpd"),
        roff.section("description"),
        *_settings((ROOT / "config.toml.example").read_text()),
        roff.section("files"),
        roff.items(
            [cli.DEFAULT_CONFIG], "The configuration, unless `--config` or `$KKDCPD_CONFIG` name another."
        ),
        roff.section("see also"),
        ", ".join(starmap(roff.reference, [("kkdcpd", 8), ("krb5.conf", 5)])),
        roff.paragraph("TOML: https://toml.io/en/v1.0.0"),
    ]
    return roff.page("kkdcpd.toml", 5, _SOURCE, parts)


def _settings(text: str) -> Iterator[str]:
    """Turn the example into paragraphs: one for all keys that stand together, with the prose above them."""
    for block in re.split(r"\n\n+", text.strip()):
        lines = [line for line in block.splitlines() if not _RULE.match(line)]
        if lines and (head := _SECTION.match(lines[0])):
            yield roff.subsection(lines.pop(0).removeprefix("#"))
            yield roff.paragraph(
                _sentence(str(inspect.getdoc(_table(head[1]))).splitlines()[0].partition(": ")[2])
            )
        yield from _paragraphs(lines)


def _paragraphs(lines: Sequence[str]) -> Iterator[str]:
    """Turn lines into paragraphs; prose with keys right below it becomes what is told of these keys."""
    prose: list[str] = []
    code: list[str] = []
    keys: dict[str, str] = {}
    for line in [*lines, ""]:
        key, as_it_stands = _KEY.match(line), _CODE.match(line)
        if keys and not key:
            yield roff.items([f"{name} = {value}" for name, value in keys.items()], " ".join(prose))
            prose, keys = [], {}
        if code and not as_it_stands:
            yield roff.example(_trimmed(code))
            code = []
        if key:
            keys[key[1]] = key[2]
        elif as_it_stands:
            if prose:
                yield roff.paragraph(" ".join(prose))
                prose = []
            code.append(as_it_stands[1] or "")
        elif line:
            prose.append(line.removeprefix("# "))
    if prose:
        yield roff.paragraph(" ".join(prose))


def _trimmed(lines: Sequence[str]) -> Sequence[str]:
    return "\n".join(lines).strip("\n").splitlines()


def _table(path: str) -> object:
    """Return what the table at a dotted path becomes; quoted names are an administrator's own."""
    form: Any = Config
    for name in re.sub(r'\."[^"]*"', "", path).split("."):
        kind = settings_of(form)[name].kind
        form = kind.item.form if isinstance(kind, ListOf) and isinstance(kind.item, Table) else None
        if isinstance(kind, Table | NamedTables):
            form = kind.form
    return form


if __name__ == "__main__":
    sys.exit(main())
