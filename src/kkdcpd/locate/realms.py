"""Which realms are served, by whichever name they are asked for. No other ever causes a look-up.

Names compare as `fold_realm` says. Nothing here asks DNS.
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

MAX_TRIALS = 16
"""How many new names are looked up at the same time, under one wildcard: a stranger can make up names as fast
as they can send, and each costs our DNS server a handful of queries."""

TRIAL_SHARE = 8
"""Of these one client network has at most so many."""

MAX_WAITING_TRIALS = 8
"""So many more requests of one client network may wait for their turn."""

SITE_BITS = 48
"""The prefix of the IPv6 network that shares are for."""

IDLE_SECONDS = 600.0
"""After how long without a request a wildcard's realm may lose its entry to any other."""


_IS_FLAT_NAME = DcLocatorFlags.IS_FLAT_NAME.value
_IS_DNS_NAME = DcLocatorFlags.IS_DNS_NAME.value


@frozen
class ServedRealm:
    """A realm and its configuration; `name` is its own, folded, where that is a wildcard's."""

    name: str
    config: RealmConfig

    @property
    def branch(self) -> str:
        """The domain right below the wildcard that the name is in, "" of other realms.

        Its owner decides what DNS says of all names in it, so quotas are for the branch.
        """
        if not self.config.is_wildcard:
            return ""
        domain = fold_realm(self.config.domain)
        return f"{self.name.removesuffix(f'.{domain}').rpartition('.')[2]}.{domain}"


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


@frozen
class NewRealm:
    """A realm under a wildcard that a request names: its branch, and the client network that asks."""

    name: str
    branch: str = ""
    network: str = ""

    @classmethod
    def of(cls, realm: ServedRealm, network: str) -> "NewRealm":
        """Make one of a realm that a client asks for."""
        return cls(name=realm.name, branch=realm.branch, network=_wide(network))


class WildcardRealms:
    """The realms that were found under one wildcard, `limit` at most.

    Only a name whose servers were found gets an entry. When there is no free one, a realm that was not asked
    for within IDLE_SECONDS loses its own, else one of the branch or client network that has most, if it has
    more than the newcomer's. So neither the owner of a branch nor one client can keep the others out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last_used: OrderedDict[str, float] = OrderedDict()
        self._owners: dict[str, tuple[_Owner, _Owner]] = {}
        self._owned: dict[_Owner, OrderedDict[str, None]] = {}
        self._trying: Counter[str] = Counter()
        self.trials = FairSemaphore(MAX_TRIALS, share=TRIAL_SHARE)

    def __contains__(self, name: str) -> bool:
        return name in self._last_used

    def use(self, name: str, now: float) -> bool:
        """Note that the realm is asked for; tell whether it has an entry."""
        if name not in self._last_used:
            return False
        self._last_used[name] = now
        self._last_used.move_to_end(name)
        for owner in self._owners[name]:
            self._owned[owner].move_to_end(name)
        return True

    def has_room(self, newcomer: NewRealm, now: float) -> bool:
        """Tell whether a new name may be looked up: it would get an entry, and its network's turn comes."""
        if self._trying[newcomer.network] >= TRIAL_SHARE + MAX_WAITING_TRIALS:
            return False
        return len(self._last_used) < self._limit or self._victim(newcomer, now) is not None

    def begin_trial(self, newcomer: NewRealm) -> None:
        """Note that a new name is looked up from now on, or waits for its turn."""
        self._trying[newcomer.network] += 1

    def end_trial(self, newcomer: NewRealm) -> None:
        """Note that the look-up is over."""
        self._trying[newcomer.network] -= 1
        if not self._trying[newcomer.network]:
            del self._trying[newcomer.network]

    def keep(self, newcomer: NewRealm, now: float) -> str | None:
        """Give the realm an entry; return the one that has none now, which may be the realm itself."""
        if self.use(newcomer.name, now):
            return None
        victim = None
        if len(self._last_used) >= self._limit:
            victim = self._victim(newcomer, now)
            if victim is None:
                return newcomer.name
            self._remove(victim)
        self._last_used[newcomer.name] = now
        self._owners[newcomer.name] = _owners(newcomer)
        for owner in _owners(newcomer):
            self._owned.setdefault(owner, OrderedDict())[newcomer.name] = None
        return victim

    def _victim(self, newcomer: NewRealm, now: float) -> str | None:
        oldest, last_used = next(iter(self._last_used.items()))
        if now - last_used >= IDLE_SECONDS:
            return oldest
        branch, _ = _owners(newcomer)
        for mine in _owners(newcomer):
            largest = max((each for each in self._owned if each[0] == mine[0]), key=self._count)
            victim = next(iter(self._owned[largest]))
            is_branch_smaller = self._count(branch) < self._count(self._owners[victim][0])
            if is_branch_smaller and self._count(largest) > self._count(mine) + 1:
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


def _wide(network: str) -> str:
    """Return the IPv6 /48 that a network is in, as one subscriber may have all of it (RFC 6177)."""
    if ":" not in network:
        return network
    return str(ipaddress.IPv6Network(network).supernet(new_prefix=SITE_BITS))


_Owner = tuple[str, str]


def _owners(newcomer: NewRealm) -> tuple[_Owner, _Owner]:
    return ("branch", newcomer.branch), ("network", newcomer.network)
