"""Whether a name is one of a realm's: its own, an alias, its NetBIOS name. Pure."""

from collections.abc import Iterable

from kkdcpd.config import RealmConfig
from kkdcpd.protocol.realms import fold_realm

__all__ = ["RealmNames", "names_of"]

NETBIOS_CHARACTERS = 15
"""The longest name of a domain in NetBIOS; Windows makes it from the first label of the DNS name."""


class RealmNames:
    """The names of one realm. They compare as `fold_realm` says: case and a root dot don't count.

    Windows may name a domain by its NetBIOS name on one side of a message and by DNS on the other. So a name
    without dots is also that of the realm whose first label it is, and the other way round where no DNS name
    of the realm is known.
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
    """Return the names of a realm that was asked for by `target_domain`: all there is under a wildcard."""
    return RealmNames((target_domain,) if realm.is_wildcard else (realm.name, *realm.aliases))
