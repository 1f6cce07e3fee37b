"""The candidates that an exchange has not tried yet, and their order after failures."""

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.values import Candidate

__all__ = ["CandidateQueue"]


class CandidateQueue(list[Candidate]):
    """A list of candidates, best first."""

    def make_next(self, endpoint: KdcEndpoint, source: str) -> None:
        """Put the endpoint before all candidates."""
        others = [other for other in self if other.endpoint != endpoint]
        self[:] = [Candidate(endpoint=endpoint, source=source), *others]

    def remove_host(self, endpoint: KdcEndpoint) -> None:
        """Remove the endpoint's server by every transport: the next KDC is another."""
        server = endpoint.server
        self[:] = [other for other in self if other.endpoint.server != server]

    def prefer_fallback_of(self, refused: KdcEndpoint) -> None:
        """Move the UDP fallback of a host that refused TCP before the other fallbacks.

        The host is alive, and its service may be UDP only (Heimdal's kpasswdd).
        """
        fallbacks = iter(
            sorted(
                (other for other in self if other.is_fallback),
                key=lambda other: other.endpoint.address != refused.address,
            )
        )
        self[:] = [next(fallbacks) if other.is_fallback else other for other in self]
