"""Reads tables with names that an administrator chooses, such as the realms."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from kkdcpd.config.kinds import Kind, wrong_type
from kkdcpd.config.problems import Location, collected, join, no_items_rule
from kkdcpd.config.reader import Table, settings_of
from kkdcpd.errors import ConfigError, ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["NamedTables"]

N = TypeVar("N", bound="NamedTable")


class NamedTable(Protocol):
    """A dataclass with the name of its table."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """The name."""
        ...


@frozen
class NamedTables(Generic[N]):
    """Tables with names that the administrator chooses. Each table becomes a `form` with that `name`."""

    form: type[N]
    name: Kind[str]
    remedy: str
    rule: Callable[[Mapping[str, N]], Iterable[ConfigProblem]] = no_items_rule

    def read(self, value: object, at: Location) -> tuple[N, ...]:
        """Return the tables, in the order of the file."""
        if not isinstance(value, dict):
            raise wrong_type(value, at, self.remedy)
        if not value:
            raise at.error("is empty", self.remedy)
        problems: list[ConfigProblem] = []
        tables: dict[str, N] = {}
        for name, body in value.items():
            with collected(problems):
                tables[join(at.key, name)] = self._read_table(name, body, at)
        problems += self.rule(tables)
        if problems:
            raise ConfigError(problems)
        return tuple(tables.values())

    def write(self, value: Iterable[N]) -> str:
        """Return the tables as an inline table of TOML."""
        tables = (f"{join('', table.name)} = {Table(form=self.form).write(table)}" for table in value)
        return f"{{{', '.join(tables)}}}"

    def _read_table(self, name: str, body: object, at: Location) -> N:
        if rest := _after_unquoted_dot(body, settings_of(self.form)):
            raise _unquoted(at, f"{name}.{rest}")
        here = at.setting(name)
        return Table(form=self.form).read(body, here, name=self.name.read(name, here))


def _after_unquoted_dot(body: object, known: Iterable[str]) -> str:
    """Return the rest of a name after its first dot, if it has no quotes: TOML makes nested tables of it."""
    if not isinstance(body, dict):
        return ""
    for name, inner in body.items():
        if isinstance(inner, dict) and name not in known:
            rest = _after_unquoted_dot(inner, known)
            return f"{name}.{rest}" if rest else name
    return ""


def _unquoted(at: Location, name: str) -> ConfigError:
    problem = "its dots make tables within tables, as the name is not in quotes"
    return Location(key=f"{at.key}.{name}").error(problem, f"write [{join(at.key, name)}]")
