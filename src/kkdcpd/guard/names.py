"""Compares names in messages with the names of a realm, and with its lists of allowed and denied names."""

from collections.abc import Iterable, Iterator, Sequence

from kkdcpd.config import PrincipalPattern, RealmConfig
from kkdcpd.protocol.principals import plain_letters
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import PrincipalName

__all__ = ["RealmNames", "find_objection", "names_of"]

NETBIOS_CHARACTERS = 15
"""The longest NetBIOS name of a domain. Windows makes it from the first label of the DNS name."""

MAX_CHARACTERS = 1024
"""The longest name that is compared with patterns: the limit of a userPrincipalName in Active Directory."""


class RealmNames:
    """The names of one realm. Case and a root dot make no difference, as in `fold_realm`.

    Windows may name a domain by its NetBIOS name on one side of a message and by its DNS name on the other.
    So a name without dots is also a name of the realm that has it as its first label. A name with dots is a
    name of the realm with this first label if no DNS name of the realm is known.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(map(fold_realm, names))
        self._flat = frozenset(map(_flat_name, self._names))
        self._has_dns_name = any("." in name for name in self._names)

    def __contains__(self, name: str) -> bool:
        folded = fold_realm(name)
        if folded in self._names:
            return True
        if "." not in folded:
            return folded in self._flat
        return not self._has_dns_name and _flat_name(folded) in self._names


def _flat_name(name: str) -> str:
    return name.partition(".")[0][:NETBIOS_CHARACTERS]


def names_of(realm: RealmConfig, target_domain: str) -> RealmNames:
    """Return the names of a realm. Under a wildcard, only the requested `target_domain` is known."""
    return RealmNames((target_domain,) if realm.is_wildcard else (realm.name, *realm.aliases))


def find_objection(
    name: PrincipalName, *, allow: Sequence[PrincipalPattern], deny: Sequence[PrincipalPattern]
) -> str | None:
    """Return why the lists forbid the name, or None. An empty allow list allows all names.

    A name is denied by each of its spellings, also by similar letters, but allowed only as it is written.
    """
    if not (allow or deny):
        return None
    if sum(map(len, name.components)) > MAX_CHARACTERS:
        return f"a name of more than {MAX_CHARACTERS} characters"
    for spelling in (*_spellings(name), *_similar_names(name)):
        for pattern in deny:
            if pattern.matches(spelling):
                return f'{name} is denied by "{pattern}"'
    if allow and not any(pattern.matches(spelling) for spelling in _spellings(name) for pattern in allow):
        return f"{name} is not among the allowed names"
    return None


def _spellings(name: PrincipalName) -> Iterator[PrincipalName]:
    """Yield the name, and the name without `@SUFFIX`.

    Enterprise names have a suffix (RFC 6806 5), and Active Directory looks for one in every name.
    """
    yield name
    stem = "/".join(name.components).rpartition("@")[0]
    if stem:
        yield PrincipalName(name_type=name.name_type, components=(stem,))


def _similar_names(name: PrincipalName) -> Iterator[PrincipalName]:
    """Yield the name without accents and unusual widths: Active Directory takes `ádmin` for `admin`."""
    for spelling in _spellings(name):
        text = "/".join(spelling.components)
        if not text.isascii():
            yield PrincipalName(name_type=name.name_type, components=(plain_letters(text),))
