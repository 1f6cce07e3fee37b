"""How values are written: dataclasses that nobody changes once they are made, and enums of words.

The standard library's own are made for safety, not for being made and asked dozens of times for each request.
"""

import enum
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, dataclass_transform

__all__ = ["Word", "frozen"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make the class one of values: fields are given by keyword and compared, and it can be a key.

    It is frozen to the type checker, which sees every line of ours. Python would make sure of it by setting
    each field in a call of its own, and would take three times as long.
    """
    has_own_hash = "__hash__" in vars(cls)
    return dataclass(slots=True, kw_only=True, unsafe_hash=not has_own_hash)(cls)


class Word(enum.Enum):
    """An enum whose members are hashed and tell their `value` without functions in Python, as Enum's are."""

    if not TYPE_CHECKING:
        __hash__ = object.__hash__
        value = property(operator.attrgetter("_value_"))
