"""Immutable dataclasses and fast enums for values.

Each request creates dozens of values. The frozen dataclasses and enums of the standard library are too slow
for this.
"""

import enum
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, dataclass_transform

__all__ = ["Word", "frozen"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a value class: fields are keyword arguments, instances compare by value and are hashable.

    Only the type checker enforces that instances do not change. Python's own check sets each field in a
    separate call, and takes three times as long.
    """
    has_own_hash = "__hash__" in vars(cls)
    return dataclass(slots=True, kw_only=True, unsafe_hash=not has_own_hash)(cls)


class Word(enum.Enum):
    """An enum of words. Unlike Enum's, its members' hash and `value` need no call of Python code."""

    if not TYPE_CHECKING:
        __hash__ = object.__hash__
        value = property(operator.attrgetter("_value_"))
