"""Reads the documentation of the settings, which stands as strings in the source of their dataclasses.

- The docstring of a class describes its section.
- A string below a field describes this setting. Fields without a string of their own share the next string.
- A string below another string is a note for the end of the section.

The first paragraph of each text is its summary. Indented paragraphs are code. Only programs that write
documentation import this module: the service does not load the texts.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from kkdcpd.config.kinds import Kind, ListOf
from kkdcpd.config.named_tables import NamedTables
from kkdcpd.config.reader import Setting, Table, settings_of
from kkdcpd.config.schema import Config
from kkdcpd.frozen import frozen

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["EXAMPLE_NAME", "Group", "Prose", "Section", "introduction", "is_code", "sections"]

EXAMPLE_NAME = "EXAMPLE.COM"


@frozen
class Prose:
    """A text: paragraphs, each on one line. A paragraph of indented lines is code."""

    paragraphs: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first paragraph."""
        return self.paragraphs[0]

    @property
    def blocks(self) -> tuple[str, ...]:
        """The paragraphs, joined where no code is between them."""
        runs = [list(run) for _is_code, run in groupby(self.paragraphs, key=is_code)]
        return tuple(run[0] if is_code(run[0]) else " ".join(run) for run in runs)


@frozen
class Group:
    """Settings with one description."""

    settings: Mapping[str, Setting]
    prose: Prose


@frozen
class Section:
    """A section: its header, its description, its settings, and notes.

    `is_inline`: the table is the value of a setting of the section before it, and needs no header.
    """

    header: str
    is_inline: bool
    is_subsection: bool
    prose: Prose
    groups: tuple[Group, ...]
    notes: tuple[Prose, ...]


def is_code(paragraph: str) -> bool:
    """Whether the paragraph is code."""
    return paragraph.startswith(" ")


def introduction() -> Prose:
    """Return the description of the whole configuration."""
    return _Texts(Config).prose


def sections() -> Iterator[Section]:
    """Return all sections, in the order of config.toml.example."""
    for name, declared in settings_of(Config).items():
        yield from _sections(declared.kind, name)


def _sections(kind: Kind[Any], path: str, *, is_inline: bool = False) -> Iterator[Section]:
    match kind:
        case ListOf(item=Table(form=form)):
            header = f"[[{path}]]"
        case NamedTables(form=form):
            header = f'[{path}."{EXAMPLE_NAME}"]'
        case Table(form=form):
            header = f"[{path}]"
        case _:
            return
    texts = _Texts(form)
    yield Section(
        header=header,
        is_inline=is_inline,
        is_subsection="." in path,
        prose=texts.prose,
        groups=tuple(texts.groups),
        notes=tuple(texts.notes),
    )
    described = {name for group in texts.groups for name in group.settings}
    for name, declared in settings_of(form).items():
        # The policy of a realm has the settings of [policy], which has a section of its own.
        if not isinstance(declared.kind, Table) or name not in described:
            yield from _sections(declared.kind, f"{path}.{name}", is_inline=name in described)


class _Texts:
    """The texts in the source of a dataclass."""

    def __init__(self, form: "type[DataclassInstance]") -> None:
        (source,) = ast.parse(textwrap.dedent(inspect.getsource(form))).body
        assert isinstance(source, ast.ClassDef)
        self.prose = _prose(ast.get_docstring(source) or "")
        self.groups: list[Group] = []
        self.notes: list[Prose] = []
        waiting: dict[str, Setting] = {}
        for statement in source.body[1:]:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name)) if name in settings_of(form):
                    waiting[name] = settings_of(form)[name]
                case ast.Expr(value=ast.Constant(value=str(text))) if waiting:
                    self.groups.append(Group(settings=waiting, prose=_prose(text)))
                    waiting = {}
                case ast.Expr(value=ast.Constant(value=str(text))):
                    self.notes.append(_prose(text))


def _prose(text: str) -> Prose:
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return Prose(paragraphs=tuple(each if is_code(each) else " ".join(each.split()) for each in paragraphs))
