"""Which realms are served, by whichever name they are asked for. No other ever causes a look-up.

Pure. Names compare as `fold_realm` says.
"""

from collections import OrderedDict
from collections.abc import Iterable

from kkdcpd.config import RealmConfig
from kkdcpd.config.addresses import is_domain_name
from kkdcpd.frozen import frozen
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import DcLocatorFlags

__all__ = ["RealmTable", "ServedRealm", "WildcardRealms"]

MAX_TRIALS = 16
"""How many names that nobody asked for before are looked up at a time, under one wildcard: a stranger can
make up names as fast as he can send, and each costs our DNS server a handful of queries."""

IDLE_SECONDS = 600.0
"""After how long without a request a wildcard's realm may lose its place to a new one."""


_IS_FLAT_NAME = DcLocatorFlags.IS_FLAT_NAME.value
_IS_DNS_NAME = DcLocatorFlags.IS_DNS_NAME.value


@frozen
class ServedRealm:
    """A realm and its configuration; `name` is its own, folded, where that is a wildcard's."""

    name: str
    config: RealmConfig


class RealmTable:
    """Realms, aliases and wildcards by name."""

    def __init__(self, realms: Iterable[RealmConfig]) -> None:
        self._folded: dict[str, str] = {}
        """Names as they are spelled in the configuration, and by most clients."""
        self._exact: dict[str, ServedRealm] = {}
        self._flat: dict[str, ServedRealm] = {}
        self._dns: dict[str, ServedRealm] = {}
        self._wildcards: dict[str, RealmConfig] = {}
        for realm in realms:
            if realm.is_wildcard:
                self._wildcards[fold_realm(realm.domain)] = realm
            else:
                self._add(realm)

    def match(self, target_domain: str, flags: DcLocatorFlags) -> ServedRealm | None:
        """Return the realm that is asked for. Exact names come first, then the longest wildcard.

        With IS_FLAT_NAME only flat names count, with IS_DNS_NAME only those in DNS ([MS-NRPC] 3.5.4.3.1).
        """
        name = self._folded.get(target_domain) or fold_realm(target_domain)
        kind = int(flags) & (_IS_FLAT_NAME | _IS_DNS_NAME)
        if kind == _IS_FLAT_NAME:
            return self._flat.get(name)
        exact = self._dns if kind == _IS_DNS_NAME else self._exact
        return exact.get(name) or (self._match_wildcard(name) if self._wildcards else None)

    def _add(self, realm: RealmConfig) -> None:
        """File a realm. A name without a dot is a flat one too: aliases are what NetBIOS names are put in."""
        own_name = fold_realm(realm.name)
        served = ServedRealm(name=own_name, config=realm)
        for spelling in (realm.name, *realm.aliases):
            name = fold_realm(spelling)
            self._folded[spelling] = name
            self._exact[name] = served
            if name != own_name or "." not in name:
                self._flat[name] = served
            if name == own_name or "." in name:
                self._dns[name] = served

    def _match_wildcard(self, name: str) -> ServedRealm | None:
        # Nothing but a domain's name is ever put before DNS; a name of any length may come from a stranger.
        if not is_domain_name(name):
            return None
        suffix = name
        while "." in suffix:
            suffix = suffix.partition(".")[2]
            realm = self._wildcards.get(suffix)
            if realm is not None:
                return ServedRealm(name=name, config=realm)
        return None


class WildcardRealms:
    """The realms that were found under one wildcard, of which there are `limit` at most.

    Only a name whose servers were found gets a place, so made-up ones push nobody out; and nobody who was
    asked for within IDLE_SECONDS is pushed out by real ones.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last_used: OrderedDict[str, float] = OrderedDict()
        self._trials = 0

    def __contains__(self, name: str) -> bool:
        return name in self._last_used

    def use(self, name: str, now: float) -> bool:
        """Note that the realm is asked for; tell whether it has a place."""
        if name not in self._last_used:
            return False
        self._last_used[name] = now
        self._last_used.move_to_end(name)
        return True

    def has_room(self, now: float) -> bool:
        """Tell whether another name may be tried."""
        return self._trials < MAX_TRIALS and (
            len(self._last_used) < self._limit or now - self._oldest() >= IDLE_SECONDS
        )

    def begin_trial(self) -> None:
        """Note that a name without a place is looked up from now on."""
        self._trials += 1

    def end_trial(self) -> None:
        """Note that the look-up is over."""
        self._trials -= 1

    def keep(self, name: str, now: float) -> str | None:
        """Give the realm a place; return who has none now, which may be the realm itself."""
        evicted = None
        if name not in self._last_used and len(self._last_used) >= self._limit:
            if now - self._oldest() < IDLE_SECONDS:
                return name
            evicted, _ = self._last_used.popitem(last=False)
        self._last_used[name] = now
        self._last_used.move_to_end(name)
        return evicted

    def _oldest(self) -> float:
        return next(iter(self._last_used.values()))
