"""The allow and deny lists of principals. What is denied is taken widely, what is allowed narrowly. Pure."""

from collections.abc import Iterator, Sequence

from kkdcpd.config import PrincipalPattern
from kkdcpd.protocol.principals import plain_letters
from kkdcpd.values import PrincipalName

__all__ = ["find_objection"]

MAX_CHARACTERS = 1024
"""The longest name that is held against patterns: that of a userPrincipalName in Active Directory."""


def find_objection(
    name: PrincipalName, *, allow: Sequence[PrincipalPattern], deny: Sequence[PrincipalPattern]
) -> str | None:
    """Say what is against the name, None being nothing; an empty allow list allows all."""
    if not (allow or deny):
        return None
    if sum(map(len, name.components)) > MAX_CHARACTERS:
        return f"a name of more than {MAX_CHARACTERS} characters"
    for spelling in (*_spellings(name), *_lookalikes(name)):
        for pattern in deny:
            if pattern.matches(spelling):
                return f'{name} is denied by "{pattern}"'
    if allow and not any(pattern.matches(spelling) for spelling in _spellings(name) for pattern in allow):
        return f"{name} is not among those allowed"
    return None


def _spellings(name: PrincipalName) -> Iterator[PrincipalName]:
    """Yield the name, and the name without `@SUFFIX`.

    Enterprise names bear a suffix (RFC 6806 5), and Active Directory looks for one in every name.
    """
    yield name
    stem = "/".join(name.components).rpartition("@")[0]
    if stem:
        yield PrincipalName(name_type=name.name_type, components=(stem,))


def _lookalikes(name: PrincipalName) -> Iterator[PrincipalName]:
    """Yield the name without accents and odd widths: Active Directory takes `ádmin` for `admin`."""
    for spelling in _spellings(name):
        text = "/".join(spelling.components)
        if not text.isascii():
            yield PrincipalName(name_type=name.name_type, components=(plain_letters(text),))
