"""The kinds of value that may stand behind a key: each reads a TOML value or says what to write instead.

No setting is named here (those are in `schema`) and no file is opened. Every kind collects all the problems
below its key before it raises, so that an administrator sees them at once.
"""

import enum
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from kkdcpd.errors import ConfigError, ConfigProblem, SettingError
from kkdcpd.frozen import frozen

__all__ = [
    "Choice",
    "Flag",
    "Kind",
    "ListOf",
    "Member",
    "Number",
    "Text",
    "collected",
    "no_items_rule",
    "seconds",
    "wrong_type",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=enum.Enum)

# In this order, since a bool is an int to isinstance. What is left are TOML's dates and times.
_TYPE_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "a whole number",
    float: "a fractional number",
    str: "text",
}
_CONTAINER_NAMES: dict[type, str] = {list: "a list", dict: "a table"}


class Kind(Protocol[T_co]):
    """One kind of value. `remedy` tells an administrator what to write."""

    @property
    def remedy(self) -> str:
        """What to write."""
        ...

    def read(self, value: object, key: str) -> T_co:
        """Return what the code wants, or raise ConfigError with every problem found under `key`."""
        ...


@frozen
class Flag:
    """True or false."""

    @property
    def remedy(self) -> str:
        """What to write."""
        return "write true or false"

    def read(self, value: object, key: str) -> bool:
        """Return the boolean."""
        if not isinstance(value, bool):
            raise wrong_type(value, key, self.remedy)
        return value


@frozen
class Number:
    """A number within bounds; a fractional one may be written as a whole one. A port has no unit."""

    minimum: float
    maximum: float
    unit: str = ""
    is_whole: bool = True

    @property
    def remedy(self) -> str:
        """What to write: unit and bounds."""
        number = "a whole number" if self.is_whole else "a number"
        of_unit = f" of {self.unit}" if self.unit else ""
        return f"write {number}{of_unit} from {self.minimum} to {self.maximum}"

    def read(self, value: object, key: str) -> float:
        """Return the number, as int or float as the kind has it."""
        accepted = int if self.is_whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise wrong_type(value, key, self.remedy)
        if not self.minimum <= value <= self.maximum:
            size = "too small" if value < self.minimum else "too large"
            raise _error(key, f"{value} is {size}", self.remedy)
        return value if self.is_whole else float(value)


def seconds(maximum: float, *, minimum: float = 0.1) -> Number:
    """Return the kind of a span of time."""
    return Number(minimum=minimum, maximum=maximum, unit="seconds", is_whole=False)


@frozen
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """What to write: the words."""
        return f"write {_alternatives(self.words)}"

    def read(self, value: object, key: str) -> str:
        """Return the word."""
        if not isinstance(value, str):
            raise wrong_type(value, key, self.remedy)
        if value not in self.words:
            raise _error(key, f"{_quoted(value)} is not one of its values", self.remedy)
        return value


@frozen
class Member(Generic[E]):
    """One member of an enumeration, by its value in small letters: one of `members` if these are given."""

    enumeration: type[E]
    members: tuple[E, ...] = ()

    @property
    def _by_word(self) -> dict[str, E]:
        return {member.value.lower(): member for member in self.members or self.enumeration}

    @property
    def remedy(self) -> str:
        """What to write: the words."""
        return Choice(words=tuple(self._by_word)).remedy

    def read(self, value: object, key: str) -> E:
        """Return the member."""
        words = self._by_word
        return words[Choice(words=tuple(words)).read(value, key)]


@frozen
class Text(Generic[T]):
    """A text that `parse` makes something of, or refuses with SettingError."""

    parse: Callable[[str], T]
    remedy: str

    def read(self, value: object, key: str) -> T:
        """Return what the text means."""
        if not isinstance(value, str):
            raise wrong_type(value, key, self.remedy)
        try:
            return self.parse(value)
        except SettingError as error:
            raise _error(key, f"{_quoted(value)} {error.problem}", error.remedy or self.remedy) from error


def no_items_rule(_items: Mapping[str, object]) -> Iterable[ConfigProblem]:
    """Find nothing: the rule of items that have nothing to do with each other."""
    return ()


@frozen
class ListOf(Generic[T]):
    """A list of `at_most` so many. `rule` is asked about what could be read, each item under its key."""

    item: Kind[T]
    remedy: str
    may_be_empty: bool = True
    at_most: int | None = None
    rule: Callable[[Mapping[str, T]], Iterable[ConfigProblem]] = no_items_rule

    def read(self, value: object, key: str) -> tuple[T, ...]:
        """Return the items."""
        if not isinstance(value, list):
            raise wrong_type(value, key, self.remedy)
        if not value and not self.may_be_empty:
            raise _error(key, "is empty", self.remedy)
        if self.at_most is not None and len(value) > self.at_most:
            raise _error(key, f"has {len(value)} entries", f"leave at most {self.at_most}")
        problems: list[ConfigProblem] = []
        items: dict[str, T] = {}
        for position, item in enumerate(value):
            with collected(problems):
                items[f"{key}[{position}]"] = self.item.read(item, f"{key}[{position}]")
        problems += self.rule(items)
        if problems:
            raise ConfigError(problems)
        return tuple(items.values())


@contextmanager
def collected(problems: list[ConfigProblem]) -> Iterator[None]:
    """Go on after a ConfigError, with its problems kept."""
    try:
        yield
    except ConfigError as error:
        problems += error.problems


def wrong_type(value: object, key: str, remedy: str) -> ConfigError:
    """Return the error for a value of a type that `key` can't have."""
    container = _CONTAINER_NAMES.get(type(value))
    if container:
        return _error(key, f"is {container}", remedy)
    return _error(key, f"{_quoted(value)} is {_TYPE_NAMES.get(type(value), 'a date or time')}", remedy)


def _alternatives(words: Iterable[str]) -> str:
    """Write the words as a sentence has them: `"a", "b" or "c"`."""
    *others, last = map(_quoted, words)
    return f"{', '.join(others)} or {last}" if others else last


def _error(key: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError([ConfigProblem(key=key, problem=problem, remedy=remedy)])


def _quoted(value: object) -> str:
    """Write the value as TOML has it; JSON happens to write these types likewise."""
    return json.dumps(value, ensure_ascii=False, default=str)
