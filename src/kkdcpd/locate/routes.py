"""Makes the route of a realm from the servers that were found, and logs refused servers once per change."""

from collections.abc import Sequence
from dataclasses import replace

from kkdcpd.errors import NoKdcKnownError
from kkdcpd.locate.candidates import FoundCandidates
from kkdcpd.locate.realms import ServedRealm
from kkdcpd.log.events import EventLogger
from kkdcpd.values import Candidate, KdcService, RefusedCandidate, Route

__all__ = ["RouteMaker"]

logger = EventLogger(__name__)

MAX_REASONS = 4
"""The number of refused servers that the log line of a request names."""

_RouteKey = tuple[KdcService, int]


class RouteMaker:
    """Makes routes. It remembers the refused servers of each route, so that each is logged once."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, _RouteKey], frozenset[RefusedCandidate]] = {}

    def make(self, realm: ServedRealm, key: _RouteKey, found: FoundCandidates, *, log_refused: bool) -> Route:
        """Make a route for a service and flags (`key`).

        `log_refused` is false for invented names under a wildcard: then only the log line of the request has
        the reasons.

        Raises:
            NoKdcKnownError: no server was found.
        """
        if log_refused:
            self._log_refused(realm.name, key, found.refused)
        if not found.candidates:
            raise NoKdcKnownError(
                _reasons(found.refused) or f"DNS names no server for {key[0].value} of {realm.name}"
            )
        # A client may spell the name in any case. By custom, the names of realms are in capitals.
        kerberos_realm = realm.name.upper() if realm.config.is_wildcard else realm.config.name
        return Route(
            realm=realm.config.name,
            kerberos_realm=kerberos_realm,
            candidates=_with_branch(found.candidates, realm.branch),
            refused=found.refused,
        )

    def forget(self, name: str, key: _RouteKey) -> None:
        """Forget the logged servers of a route."""
        self._logged.pop((name, key), None)

    def _log_refused(self, name: str, key: _RouteKey, refused: tuple[RefusedCandidate, ...]) -> None:
        now_refused = frozenset(refused)
        before = self._logged.get((name, key), frozenset())
        for each in refused if now_refused != before else ():
            if each not in before:
                logger.warning(
                    "server_refused", realm=name, source=each.source, target=each.target, reason=each.reason
                )
        if now_refused:
            self._logged[name, key] = now_refused
        else:
            self.forget(name, key)


def _with_branch(candidates: tuple[Candidate, ...], branch: str) -> tuple[Candidate, ...]:
    if not branch:
        return candidates
    return tuple(
        replace(candidate, endpoint=replace(candidate.endpoint, branch=branch)) for candidate in candidates
    )


def _reasons(refused: Sequence[RefusedCandidate]) -> str:
    """Describe the first refused servers. The text goes into a log line, so it is bounded."""
    reasons = [f"{each.source}: {each.target}: {each.reason}" for each in refused[:MAX_REASONS]]
    more = [f"and {len(refused) - MAX_REASONS} more"] if len(refused) > MAX_REASONS else []
    return "; ".join(reasons + more)
