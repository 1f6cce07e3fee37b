"""Writes config.toml.example, the commented configuration with all settings."""

import re
import textwrap
from collections.abc import Iterable

from kkdcpd.config.documentation import Group, Section, introduction, is_code, sections
from kkdcpd.config.kinds import Choice, File, Flag, Member, Number, OrNone
from kkdcpd.config.reader import Setting

__all__ = ["example", "setting_line"]

_WRAPPER = textwrap.TextWrapper(
    width=118, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
)
_RULE = f"# {'-' * 106}\n"


def example() -> str:
    """Return the text of config.toml.example."""
    shown = (section for section in sections() if not section.is_inline)
    return "\n".join([_comment(introduction().paragraphs), *map(_section, shown)]).rstrip() + "\n"


def setting_line(name: str, setting: Setting) -> str:
    """Return the line of a setting: its value in the example, and the valid values if they are few words."""
    value = setting.shown or setting.kind.write(setting.default)
    values = "" if setting.shown else _values(setting)
    return f"{name} = {value}" + (f"  # {values}" if values else "")


def _values(setting: Setting) -> str:
    match setting.kind:
        case Number(bounds=bounds):
            return str(bounds)
        case OrNone(kind=Number(bounds=bounds), word=word):
            return f'"{word}", or {bounds}'
        case OrNone(kind=File(example=path)) if setting.default is None:
            return f'such as "{path}"'
        case Flag() | Choice() | Member() as kind:
            return kind.remedy.removeprefix("write ")
    return ""


def _section(section: Section) -> str:
    rule = "" if section.is_subsection else f"\n{_RULE}"
    notes = (f"\n{_RULE}{_comment(note.blocks)}" for note in section.notes)
    return "\n".join(
        [
            f"{rule}{_comment(section.prose.blocks)}",
            f"{section.header}\n",
            *map(_group, section.groups),
            *notes,
        ]
    )


def _group(group: Group) -> str:
    lines = (setting_line(name, each) for name, each in group.settings.items())
    marks = ("" if each.shown else "#" for each in group.settings.values())
    return _comment(group.prose.blocks) + "".join(
        f"{mark}{line}\n" for mark, line in zip(marks, lines, strict=True)
    )


def _comment(blocks: Iterable[str]) -> str:
    return "#\n".join(_code(each) if is_code(each) else _filled(each) for each in blocks)


def _code(lines: str) -> str:
    return "".join(f"#{line[1:]}\n" for line in lines.splitlines())


def _filled(text: str) -> str:
    # A command stays on one line.
    text = re.sub(r"`[^`]*`", lambda command: command[0].replace(" ", "\xa0"), text)
    return "\n".join(_WRAPPER.wrap(text)).replace("\xa0", " ") + "\n"
