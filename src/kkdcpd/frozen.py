"""How values are written: dataclasses that nobody changes once they are made.

They are frozen to the type checker, which sees every line of ours. Python would make sure of it by setting
each field in a call of its own, which takes three times as long; a request makes some twenty values.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

__all__ = ["frozen"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make the class one of values: fields are given by keyword and compared, and it can be a key."""
    has_own_hash = "__hash__" in vars(cls)
    return dataclass(slots=True, kw_only=True, unsafe_hash=not has_own_hash)(cls)
