"""The rules that settings of several sections share: what may not be twice, and what may not be longer."""

from collections.abc import Iterable, Iterator, Mapping

from kkdcpd.errors import ConfigProblem

__all__ = ["in_order", "items_differ"]


def in_order(section: object, key: str, pairs: Iterable[tuple[str, str]]) -> Iterator[ConfigProblem]:
    """Compare settings in seconds: none may be longer than the one it is paired with."""
    for shorter, longer in pairs:
        least, most = getattr(section, shorter), getattr(section, longer)
        if least > most:
            yield ConfigProblem(
                key=f"{key}.{shorter}",
                problem=f"{least:g} seconds is longer than {longer}, which is {most:g}",
                remedy=f"write {most:g} or less, or raise {longer}",
            )


def items_differ(items: Mapping[str, object]) -> Iterator[ConfigProblem]:
    """Find the items of a list that are there already."""
    seen: dict[object, str] = {}
    for key, item in items.items():
        first = seen.setdefault(item, key)
        if first != key:
            yield ConfigProblem(key=key, problem=f"is the same as {first}", remedy="remove one of them")
