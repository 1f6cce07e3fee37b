"""Holds values by endpoint, with a quota for endpoints that were found under wildcards. Plain code.

The DNS of a domain below a wildcard decides how many endpoints the domain has. These endpoints displace one
another, but never an endpoint of a configured realm.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

from kkdcpd.endpoints import KdcEndpoint

__all__ = ["MAX_ENDPOINTS", "MAX_OF_BRANCH", "MAX_OF_BRANCHES", "EndpointTable"]

MAX_ENDPOINTS = 4096
"""The most endpoints of configured realms. Only a mistake in configuration or DNS reaches this bound."""

MAX_OF_BRANCHES = 1024
MAX_OF_BRANCH = 256
"""The most endpoints that were found under wildcards, in all and of one branch."""

_Value = TypeVar("_Value")


class EndpointTable(Generic[_Value]):
    """A bounded mapping of endpoints to values, in the order of arrival."""

    def __init__(self) -> None:
        self._values: dict[KdcEndpoint, _Value] = {}
        self._branches: dict[str, dict[KdcEndpoint, None]] = {}
        # Equal endpoints may belong to different branches.
        self._branch_of: dict[KdcEndpoint, str] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, endpoint: KdcEndpoint) -> _Value | None:
        """Return the endpoint's value, if there is one."""
        return self._values.get(endpoint)

    def values(self) -> Iterable[_Value]:
        """Return all values."""
        return self._values.values()

    def has_room(self, endpoint: KdcEndpoint) -> bool:
        """Whether the endpoint may be added."""
        return bool(endpoint.branch) or len(self._values) - len(self._branch_of) < MAX_ENDPOINTS

    def add(self, endpoint: KdcEndpoint, value: _Value) -> KdcEndpoint | None:
        """Add an endpoint that has room; return the endpoint that it displaces, if there is one."""
        displaced = self._oldest_of_full_branch(endpoint.branch) if endpoint.branch else None
        if displaced:
            self.pop(displaced)
        self._values[endpoint] = value
        if endpoint.branch:
            self._branch_of[endpoint] = endpoint.branch
            self._branches.setdefault(endpoint.branch, {})[endpoint] = None
        return displaced

    def pop(self, endpoint: KdcEndpoint) -> _Value | None:
        """Remove an endpoint and return its value, if there was one."""
        branch = self._branch_of.pop(endpoint, None)
        if branch is not None:
            del self._branches[branch][endpoint]
            if not self._branches[branch]:
                del self._branches[branch]
        return self._values.pop(endpoint, None)

    def _oldest_of_full_branch(self, branch: str) -> KdcEndpoint | None:
        """Return the oldest endpoint of the branch if it is full, else of the largest one if all are."""
        members = self._branches.get(branch, {})
        if len(members) >= MAX_OF_BRANCH:
            return next(iter(members))
        if len(self._branch_of) >= MAX_OF_BRANCHES:
            largest = max(self._branches, key=lambda name: len(self._branches[name]))
            return next(iter(self._branches[largest]))
        return None
