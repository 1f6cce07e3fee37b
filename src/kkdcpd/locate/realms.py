"""Matches names to configured realms, and limits the realms under wildcards.

Other names never cause a look-up. `fold_realm` defines equal names. This module asks no DNS server.
"""

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Iterable

from kkdcpd.config import RealmConfig
from kkdcpd.config.addresses import is_domain_name
from kkdcpd.frozen import frozen
from kkdcpd.locate.fair_semaphore import FairSemaphore
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import DcLocatorFlags

__all__ = ["NewRealm", "RealmTable", "ServedRealm", "WildcardRealms"]

MAX_NEW_LOOKUPS = 16
"""The number of new names under one wildcard that are looked up at the same time. A client can invent any
number of names, and each name costs several DNS queries."""

NEW_LOOKUP_SHARE = 8
"""The most of these look-ups for one client network."""

MAX_WAITING_LOOKUPS = 8
"""The number of further look-ups of one client network that may wait for a slot."""

SITE_BITS = 48
"""The prefix length of the IPv6 networks that get shares."""

IDLE_SECONDS = 600.0
"""The idle time after which any new realm may take over the entry of a realm under a wildcard."""


_IS_FLAT_NAME = DcLocatorFlags.IS_FLAT_NAME.value
_IS_DNS_NAME = DcLocatorFlags.IS_DNS_NAME.value


@frozen
class ServedRealm:
    """A realm with its folded name. `config` is its configuration, or the configuration of its wildcard."""

    name: str
    config: RealmConfig

    @property
    def branch(self) -> str:
        """The domain directly below the wildcard that contains the name, or "" for configured realms.

        The owner of the branch controls DNS for all names in it, so quotas apply to the branch.
        """
        if not self.config.is_wildcard:
            return ""
        domain = fold_realm(self.config.domain)
        return f"{self.name.removesuffix(f'.{domain}').rpartition('.')[2]}.{domain}"


class RealmTable:
    """Finds realms by name, alias or wildcard."""

    def __init__(self, realms: Iterable[RealmConfig]) -> None:
        self._folded: dict[str, str] = {}
        """The folded form of each name in the configuration. Most clients use the same spelling."""
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
        """Return the realm with this name. Exact names come first, then the longest wildcard.

        IS_FLAT_NAME matches flat names only, IS_DNS_NAME matches DNS names only ([MS-NRPC] 3.5.4.3.1).
        """
        name = self._folded.get(target_domain) or fold_realm(target_domain)
        kind = int(flags) & (_IS_FLAT_NAME | _IS_DNS_NAME)
        if kind == _IS_FLAT_NAME:
            return self._flat.get(name)
        exact = self._dns if kind == _IS_DNS_NAME else self._exact
        return exact.get(name) or (self._match_wildcard(name) if self._wildcards else None)

    def _add(self, realm: RealmConfig) -> None:
        """Add a realm under its names. A name without a dot is a flat name too; NetBIOS names are aliases."""
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
        # Only valid domain names reach DNS. A client may send a name of any length and content.
        if not is_domain_name(name):
            return None
        suffix = name
        while "." in suffix:
            suffix = suffix.partition(".")[2]
            realm = self._wildcards.get(suffix)
            if realm is not None:
                return ServedRealm(name=name, config=realm)
        return None


@frozen
class NewRealm:
    """A name under a wildcard without an entry yet, with its branch and the network of the client."""

    name: str
    branch: str = ""
    network: str = ""

    @classmethod
    def of(cls, realm: ServedRealm, network: str) -> "NewRealm":
        """Describe a realm that a client of this network names."""
        return cls(name=realm.name, branch=realm.branch, network=_site_network(network))


class WildcardRealms:
    """The realms that were found under one wildcard, at most `limit`.

    Only a name with found servers gets an entry. If no entry is free, a realm that was idle for
    IDLE_SECONDS is evicted. Otherwise a realm of the branch or client network with the most entries is
    evicted, if the new realm's branch or network has fewer. So neither the owner of a branch nor one client
    can lock out others.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last_used: OrderedDict[str, float] = OrderedDict()
        self._owners: dict[str, tuple[_Owner, _Owner]] = {}
        self._owned: dict[_Owner, OrderedDict[str, None]] = {}
        self._pending: Counter[str] = Counter()
        self.lookup_slots = FairSemaphore(MAX_NEW_LOOKUPS, share=NEW_LOOKUP_SHARE)

    def __contains__(self, name: str) -> bool:
        return name in self._last_used

    def use(self, name: str, now: float) -> bool:
        """Note a request for the realm. Return whether the realm has an entry."""
        if name not in self._last_used:
            return False
        self._last_used[name] = now
        self._last_used.move_to_end(name)
        for owner in self._owners[name]:
            self._owned[owner].move_to_end(name)
        return True

    def has_room(self, new: NewRealm, now: float) -> bool:
        """Whether a new name may be looked up: it could get an entry, and its network has look-ups left."""
        if self._pending[new.network] >= NEW_LOOKUP_SHARE + MAX_WAITING_LOOKUPS:
            return False
        return len(self._last_used) < self._limit or self._victim(new, now) is not None

    def begin_lookup(self, new: NewRealm) -> None:
        """Note that the look-up of a new name starts, or waits for a slot."""
        self._pending[new.network] += 1

    def end_lookup(self, new: NewRealm) -> None:
        """Note that the look-up ended."""
        self._pending[new.network] -= 1
        if not self._pending[new.network]:
            del self._pending[new.network]

    def keep(self, new: NewRealm, now: float) -> str | None:
        """Give the realm an entry. Return the evicted realm, which may be this realm itself."""
        if self.use(new.name, now):
            return None
        victim = None
        if len(self._last_used) >= self._limit:
            victim = self._victim(new, now)
            if victim is None:
                return new.name
            self._remove(victim)
        self._last_used[new.name] = now
        self._owners[new.name] = _owners(new)
        for owner in _owners(new):
            self._owned.setdefault(owner, OrderedDict())[new.name] = None
        return victim

    def _victim(self, new: NewRealm, now: float) -> str | None:
        oldest, last_used = next(iter(self._last_used.items()))
        if now - last_used >= IDLE_SECONDS:
            return oldest
        branch, _ = _owners(new)
        for own in _owners(new):
            largest = max((each for each in self._owned if each[0] == own[0]), key=self._count)
            victim = next(iter(self._owned[largest]))
            is_branch_smaller = self._count(branch) < self._count(self._owners[victim][0])
            if is_branch_smaller and self._count(largest) > self._count(own) + 1:
                return victim
        return None

    def _count(self, owner: "_Owner") -> int:
        return len(self._owned.get(owner, ()))

    def _remove(self, name: str) -> None:
        del self._last_used[name]
        for owner in self._owners.pop(name):
            del self._owned[owner][name]
            if not self._owned[owner]:
                del self._owned[owner]


def _site_network(network: str) -> str:
    """Return the IPv6 /48 of a network, because one subscriber may have all of it (RFC 6177)."""
    if ":" not in network:
        return network
    return str(ipaddress.IPv6Network(network).supernet(new_prefix=SITE_BITS))


_Owner = tuple[str, str]


def _owners(new: NewRealm) -> tuple[_Owner, _Owner]:
    return ("branch", new.branch), ("network", new.network)
