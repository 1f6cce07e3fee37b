"""The rules for sending a message again: which messages may be repeated, and which failures permit it."""

from kkdcpd.endpoints import Transport
from kkdcpd.values import FailureFacts, FailureReason, MessageKind, ProxyRequest

__all__ = [
    "HAS_DECIDED",
    "NOT_THE_ENDPOINT",
    "NO_DATAGRAM_LEFT",
    "NO_FACTS",
    "is_repeatable",
    "may_be_delivered",
]

NO_FACTS = FailureFacts()
"""The facts about a failure whose reason says everything."""

HARMLESS_PADATA = frozenset(
    {
        128,  # PA-PAC-REQUEST ([MS-KILE] 2.2.3)
        149,  # PA-REQ-ENC-PA-REP (RFC 6806 11)
        150,  # PA-AS-FRESHNESS, as an empty request for a token (RFC 8070 2)
        167,  # PA-PAC-OPTIONS ([MS-KILE] 2.2.10)
    }
)
"""Padata that prove nothing. Any other padata may be a proof, and FAST may hide a proof."""

NO_DATAGRAM_LEFT = frozenset({FailureReason.LOCAL_ERROR, FailureReason.PORT_LIMIT})
"""Failures of UDP on this host. TCP may still work: it needs no port that no late answer can reach."""

_NOT_DELIVERED_BY_UDP = NO_DATAGRAM_LEFT | {FailureReason.REFUSED, FailureReason.MESSAGE_TOO_BIG}
"""A datagram to a closed port reached a host, but no KDC. The other datagrams never left this host."""

NOT_THE_ENDPOINT = frozenset(
    {
        FailureReason.BUSY,
        FailureReason.DISPLACED,
        FailureReason.LOCAL_ERROR,
        FailureReason.MESSAGE_TOO_BIG,
        FailureReason.PORT_LIMIT,
        FailureReason.PROXY_REFUSED,
    }
)
"""Failures that say nothing about the endpoint's health. A KDC proxy refuses one message, not all."""

HAS_DECIDED = frozenset(
    {
        FailureReason.BAD_REPLY,
        FailureReason.CLOSED,
        FailureReason.REPLY_TOO_BIG,
        FailureReason.RESET,
        FailureReason.SERVICE_UNAVAILABLE,
    }
)
"""Failures of a KDC that has read the message. The other transport of its host leads to the same KDC."""


def is_repeatable(request: ProxyRequest) -> bool:
    """Whether two KDCs may get the request. This is an allow-list.

    A ticket may be shown any number of times, so a TGS-REQ is repeatable. An AS-REQ is repeatable if nothing
    in it can be a proof of a password.
    """
    if request.kind is MessageKind.AS_REQ:
        return HARMLESS_PADATA.issuperset(request.padata_types)
    return request.kind is MessageKind.TGS_REQ


def may_be_delivered(transport: Transport, reason: FailureReason) -> bool:
    """Whether a KDC may have a message, if sending it has failed for this reason."""
    return transport is not Transport.UDP or reason not in _NOT_DELIVERED_BY_UDP
