"""MIT's profile format, in which krb5.conf is written: sections, nested braces, relations and includes.

Pure: files are had from a `Files` that the caller gives, and no meaning of any relation is known here. It
takes what util/profile of krb5 takes, and refuses what that refuses. krb5.conf(5), "Structure".
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kkdcpd.errors import ConfigError, ConfigProblem, SettingError
from kkdcpd.frozen import frozen

__all__ = ["MAX_PROFILE_BYTES", "Files", "Relation", "read_profile"]

_MAX_NESTING = 16  # of braces; no krb5.conf needs more than two
_MAX_INCLUDES = 10  # one within the other; a real one has a krb5.conf.d, and files in it
_MAX_FILES = 1000  # distributions drop a handful into krb5.conf.d
MAX_PROFILE_BYTES = 4 * 1024 * 1024  # of all files; those of sites with hundreds of realms have 100 KiB

_BLANKS = " \t\n\v\f\r"  # isspace(3) in the C locale; str.strip would strip more
_DIRECTIVE = re.compile(r"(include|includedir|module)\s+(.*)", re.ASCII | re.DOTALL)
_SECTION = re.compile(r"\[([^\]]*)\]\*?\s*", re.ASCII)
_RELATION = re.compile(r"([^=\s]+)\s*=\s*(.*)", re.ASCII | re.DOTALL)
_BRACE = re.compile(r"\{\s*", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.?)*)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "b": "\b"}
# The name of a file that `includedir` takes: so backups of editors and package managers are left out.
_INCLUDED_NAME = re.compile(r"[A-Za-z0-9_-]+|[^.].*\.conf", re.DOTALL)


class Files(Protocol):
    """Where files come from. Both raise SettingError for what can't be had."""

    def text(self, path: Path) -> str:
        """Return what the file holds."""
        ...

    def names(self, directory: Path) -> Sequence[str]:
        """Return the names of the regular files in the directory."""
        ...


@frozen
class Relation:
    """One `key = value`. `path` has the names of its section and of each brace around it, then its own."""

    path: tuple[str, ...]
    value: str
    place: str


def read_profile(path: Path, files: Files, *, key: str) -> tuple[Relation, ...]:
    """Return all relations of a file and of what it includes, in their order. `key` is where it is named.

    Raises:
        ConfigError: it can't be used. The first problem is told only: what follows may be its consequence.
    """
    reading = _Reading(files=files)
    reading.include(path, place=key, within=())
    return tuple(reading.relations)


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What was read of all files so far."""

    files: Files
    relations: list[Relation] = field(default_factory=list)
    file_count: int = 0
    byte_count: int = 0

    def include(self, path: Path, *, place: str, within: tuple[Path, ...]) -> None:
        """Read one file, named at `place`, from `within` those that include each other."""
        lines = self._lines_of(path, place, within)
        fragment = _Fragment(path=path, reading=self, within=(*within, path))
        for number, line in enumerate(lines, start=1):
            fragment.read_line(line, f"{path}, line {number}")

    def include_directory(self, directory: Path, *, place: str, within: tuple[Path, ...]) -> None:
        """Read the directory's files in the order of their names."""
        with _blamed_on(place):
            names = self.files.names(directory)
        for name in sorted(filter(_INCLUDED_NAME.fullmatch, names)):
            self.include(directory / name, place=place, within=within)

    def _lines_of(self, path: Path, place: str, within: tuple[Path, ...]) -> list[str]:
        self._check_bounds(path, place, within)
        with _blamed_on(place):
            text = self.files.text(path)
        self.byte_count += len(text.encode(errors="replace"))
        if self.byte_count > MAX_PROFILE_BYTES:
            problem = f"holds, with all it includes, more than {MAX_PROFILE_BYTES} bytes"
            raise _refusal(str(path), problem, "name a file that is a krb5.conf")
        return text.removesuffix("\n").split("\n")

    def _check_bounds(self, path: Path, place: str, within: tuple[Path, ...]) -> None:
        if path in within:
            raise _refusal(place, f"includes {path} within itself", "remove this line")
        self.file_count += 1
        if len(within) > _MAX_INCLUDES or self.file_count > _MAX_FILES:
            problem = f"includes {path} beyond {_MAX_INCLUDES} levels or {_MAX_FILES} files"
            raise _refusal(place, problem, "include fewer files")


@contextmanager
def _blamed_on(place: str) -> Iterator[None]:
    try:
        yield
    except SettingError as error:
        remedy = error.remedy or "correct the path"
        problem = ConfigProblem(
            key=place, problem=error.problem, remedy=remedy, is_temporary=error.is_temporary
        )
        raise ConfigError([problem]) from error


@dataclass(slots=True, kw_only=True)
class _Fragment:
    """One file being read: no section or brace of it reaches into another file."""

    path: Path
    reading: _Reading
    within: tuple[Path, ...]
    names: list[str] = field(default_factory=list)
    awaits_brace: bool = False

    def read_line(self, line: str, place: str) -> None:
        if directive := _DIRECTIVE.fullmatch(line):
            self._follow(directive[1], directive[2].rstrip(_BLANKS), place)
        elif self.names or line.startswith("["):  # what stands before the first section is a comment
            self._read_statement(line.strip(_BLANKS), place)

    def _follow(self, directive: str, argument: str, place: str) -> None:
        if directive == "module":
            return
        path = Path(argument)
        if not path.is_absolute() or "\0" in argument:
            raise _refusal(place, "includes what is no absolute path", "write a path that begins with /")
        if directive == "include":
            self.reading.include(path, place=place, within=self.within)
        else:
            self.reading.include_directory(path, place=place, within=self.within)

    def _read_statement(self, line: str, place: str) -> None:
        if self.awaits_brace:
            self._open_brace(line, place)
        elif not line or line[0] in "#;":
            return
        elif line.startswith("["):
            self._begin_section(line, place)
        elif line.startswith("}"):
            self._close_brace(place)
        else:
            self._read_relation(line, place)

    def _open_brace(self, line: str, place: str) -> None:
        if not line.startswith("{"):
            problem = f"does not begin with {{, but {self.names[-1]} has no value in the line above"
            raise _refusal(place, problem, "give it a value, or put { on this line")
        self.awaits_brace = False

    def _begin_section(self, line: str, place: str) -> None:
        if len(self.names) > 1:
            raise _refusal(
                place, f"begins a section within {self.names[-1]}", "close its brace with } before"
            )
        found = _SECTION.fullmatch(line)
        if found is None:
            raise _refusal(place, "is no section", "write [name] and nothing else")
        self.names = [found[1]]

    def _close_brace(self, place: str) -> None:
        if len(self.names) < 2:
            raise _refusal(place, "closes a brace that nothing has opened", "remove the }")
        self.names.pop()

    def _read_relation(self, line: str, place: str) -> None:
        found = _RELATION.fullmatch(line)
        if found is None:
            raise _refusal(place, "is no relation", "write name = value, or # before a comment")
        name, value = found[1].partition("*")[0], found[2]  # "*" is about further files, which we don't read
        if value and not _BRACE.fullmatch(value):
            relation = Relation(path=(*self.names, name), value=_unquoted(value), place=place)
            self.reading.relations.append(relation)
            return
        if len(self.names) > _MAX_NESTING:
            raise _refusal(place, f"opens more than {_MAX_NESTING} braces", "close some before")
        self.names.append(name)
        self.awaits_brace = not value


def _unquoted(value: str) -> str:
    quoted = _QUOTED.match(value)  # what follows the quotes means nothing
    return _ESCAPE.sub(_escaped, quoted[1]) if quoted else value


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPED.get(found[1], found[1])


def _refusal(place: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError([ConfigProblem(key=place, problem=problem, remedy=remedy)])
