"""Reads MIT's profile format, the format of krb5.conf: sections, nested braces, relations and includes.

The caller gives a `Files` that opens files, and knows the meaning of relations. This module accepts the same
texts as util/profile of krb5. See krb5.conf(5), "Structure".
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kkdcpd.config.problems import refusal
from kkdcpd.errors import SettingError
from kkdcpd.frozen import frozen

__all__ = ["MAX_PROFILE_BYTES", "Files", "Relation", "read_profile"]

_MAX_NESTING = 16  # of braces; no krb5.conf needs more than two
_MAX_INCLUDES = 10  # nested; a usual krb5.conf includes a krb5.conf.d, and the files in it
_MAX_FILES = 1000  # distributions have a few in krb5.conf.d
MAX_PROFILE_BYTES = 4 * 1024 * 1024  # of all files; sites with hundreds of realms have 100 KiB

_BLANKS = " \t\n\v\f\r"  # isspace(3) in the C locale; str.strip would strip more
_DIRECTIVE = re.compile(r"(include|includedir|module)\s+(.*)", re.ASCII | re.DOTALL)
_SECTION = re.compile(r"\[([^\]]*)\]\*?\s*", re.ASCII)
_RELATION = re.compile(r"([^=\s]+)\s*=\s*(.*)", re.ASCII | re.DOTALL)
_BRACE = re.compile(r"\{\s*", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.?)*)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "b": "\b"}
# The name of a file that `includedir` reads. It excludes backups of editors and package managers.
_INCLUDED_NAME = re.compile(r"[A-Za-z0-9_-]+|[^.].*\.conf", re.DOTALL)


class Files(Protocol):
    """The source of files. Both methods raise SettingError for a path that cannot be read."""

    def text(self, path: Path) -> str:
        """Return the text of the file."""
        ...

    def names(self, directory: Path) -> Sequence[str]:
        """Return the names of the regular files in the directory."""
        ...


@frozen
class Relation:
    """A `key = value`. `path` has the names of its section, of each brace around it, and its own name.

    `origin` is its file and line.
    """

    path: tuple[str, ...]
    value: str
    origin: str


def read_profile(path: Path, files: Files, *, key: str) -> tuple[Relation, ...]:
    """Return all relations of a file and of the files that it includes, in their order.

    `key` is the setting that names the file.

    Raises:
        ConfigError: the file is not usable. The error has only the first problem; others may be its effects.
    """
    reading = _Reading(files=files)
    reading.include(path, origin=key, within=())
    return tuple(reading.relations)


@dataclass(slots=True, kw_only=True)
class _Reading:
    """The relations and the size of all files so far."""

    files: Files
    relations: list[Relation] = field(default_factory=list)
    file_count: int = 0
    byte_count: int = 0

    def include(self, path: Path, *, origin: str, within: tuple[Path, ...]) -> None:
        """Read a file that is named at `origin`. `within` are the files that include it."""
        lines = self._lines_of(path, origin, within)
        fragment = _Fragment(path=path, reading=self, within=(*within, path))
        for number, line in enumerate(lines, start=1):
            fragment.read_line(line, f"{path}, line {number}")

    def include_directory(self, directory: Path, *, origin: str, within: tuple[Path, ...]) -> None:
        """Read the directory's files in the order of their names."""
        with _problems_at(origin):
            names = self.files.names(directory)
        for name in sorted(filter(_INCLUDED_NAME.fullmatch, names)):
            self.include(directory / name, origin=origin, within=within)

    def _lines_of(self, path: Path, origin: str, within: tuple[Path, ...]) -> list[str]:
        self._check_bounds(path, origin, within)
        with _problems_at(origin):
            text = self.files.text(path)
        self.byte_count += len(text.encode(errors="replace"))
        if self.byte_count > MAX_PROFILE_BYTES:
            problem = f"holds, with all it includes, more than {MAX_PROFILE_BYTES} bytes"
            raise refusal(str(path), problem, "name a file that is a krb5.conf")
        return text.removesuffix("\n").split("\n")

    def _check_bounds(self, path: Path, origin: str, within: tuple[Path, ...]) -> None:
        if path in within:
            raise refusal(origin, f"includes {path} within itself", "remove this line")
        self.file_count += 1
        if len(within) > _MAX_INCLUDES or self.file_count > _MAX_FILES:
            problem = f"includes {path} beyond {_MAX_INCLUDES} levels or {_MAX_FILES} files"
            raise refusal(origin, problem, "include fewer files")


@contextmanager
def _problems_at(origin: str) -> Iterator[None]:
    try:
        yield
    except SettingError as error:
        remedy = error.remedy or "correct the path"
        raise refusal(origin, error.problem, remedy, is_temporary=error.is_temporary) from error


@dataclass(slots=True, kw_only=True)
class _Fragment:
    """The state of reading one file. Its sections and braces end with the file."""

    path: Path
    reading: _Reading
    within: tuple[Path, ...]
    names: list[str] = field(default_factory=list)
    awaits_brace: bool = False

    def read_line(self, line: str, origin: str) -> None:
        if directive := _DIRECTIVE.fullmatch(line):
            self._follow(directive[1], directive[2].rstrip(_BLANKS), origin)
        elif self.names or line.startswith("["):  # lines before the first section are comments
            self._read_statement(line.strip(_BLANKS), origin)

    def _follow(self, directive: str, argument: str, origin: str) -> None:
        if directive == "module":
            return
        path = Path(argument)
        if not path.is_absolute() or "\0" in argument:
            raise refusal(origin, "includes what is no absolute path", "write a path that begins with /")
        if directive == "include":
            self.reading.include(path, origin=origin, within=self.within)
        else:
            self.reading.include_directory(path, origin=origin, within=self.within)

    def _read_statement(self, line: str, origin: str) -> None:
        if self.awaits_brace:
            self._open_brace(line, origin)
        elif not line or line[0] in "#;":
            return
        elif line.startswith("["):
            self._begin_section(line, origin)
        elif line.startswith("}"):
            self._close_brace(origin)
        else:
            self._read_relation(line, origin)

    def _open_brace(self, line: str, origin: str) -> None:
        if not line.startswith("{"):
            problem = f"does not begin with {{, but {self.names[-1]} has no value in the line above"
            raise refusal(origin, problem, "give it a value, or put { on this line")
        self.awaits_brace = False

    def _begin_section(self, line: str, origin: str) -> None:
        if len(self.names) > 1:
            raise refusal(
                origin, f"begins a section within {self.names[-1]}", "close its brace with } before"
            )
        found = _SECTION.fullmatch(line)
        if found is None:
            raise refusal(origin, "is no section", "write [name] and nothing else")
        self.names = [found[1]]

    def _close_brace(self, origin: str) -> None:
        if len(self.names) < 2:
            raise refusal(origin, "closes a brace that nothing has opened", "remove the }")
        self.names.pop()

    def _read_relation(self, line: str, origin: str) -> None:
        found = _RELATION.fullmatch(line)
        if found is None:
            raise refusal(origin, "is no relation", "write name = value, or # before a comment")
        name, value = (
            found[1].partition("*")[0],
            found[2],
        )  # "*" is about further files, which kkdcpd does not read
        if value and not _BRACE.fullmatch(value):
            relation = Relation(path=(*self.names, name), value=_unquoted(value), origin=origin)
            self.reading.relations.append(relation)
            return
        if len(self.names) > _MAX_NESTING:
            raise refusal(origin, f"opens more than {_MAX_NESTING} braces", "close some before")
        self.names.append(name)
        self.awaits_brace = not value


def _unquoted(value: str) -> str:
    quoted = _QUOTED.match(value)  # the text after the quotes has no meaning
    return _ESCAPE.sub(_escaped, quoted[1]) if quoted else value


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPED.get(found[1], found[1])
