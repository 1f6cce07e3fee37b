"""Logs the failures of KDC proxies, with advice, for all ways out to them."""

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.log.events import EventLogger
from kkdcpd.values import FailureReason

__all__ = ["log_kdc_proxy_failure"]

logger = EventLogger(__name__)

_ADVICE = {
    FailureReason.TLS_FAILED: (
        "let the KDC proxy show a valid certificate for this name; if its authority is your own, name the "
        "authority's certificate"
    ),
    FailureReason.WEB_PROXY_FAILED: (
        "correct https_proxy and no_proxy in the environment of kkdcpd, or let the web proxy allow CONNECT "
        "to this host and port"
    ),
    FailureReason.NOT_A_KDC_PROXY: (
        "correct the path, which belongs to another service; in a guest network, log in to its portal"
    ),
    FailureReason.PROXY_REFUSED: "the log of the KDC proxy has the reason",
    FailureReason.PROXY_RATE_LIMITED: "raise the limits that the KDC proxy has for this host",
    FailureReason.PROXY_UNAVAILABLE: (
        "the log of the KDC proxy has the reason: it does not serve the realm, or its KDCs do not respond"
    ),
    FailureReason.PROXY_LOOP: "correct the endpoints: KDC proxies forward requests for this realm in a loop",
    FailureReason.PROXY_ERROR: "correct the URL; the log of the KDC proxy has the reason",
}


def log_kdc_proxy_failure(
    endpoint: KdcEndpoint,
    reason: FailureReason,
    *,
    status: int | None,
    problem: str | None = None,
    request_id: str | None = None,
) -> None:
    """Log why a KDC proxy gives no reply. `status` and `request_id` are those of its response."""
    logger.warning(
        "kdc_proxy_failed",
        sum_by=("kdc_proxy_failed", endpoint, reason),
        kdc=str(endpoint),
        address=endpoint.address,
        reason=reason.value,
        status=status,
        problem=problem,
        request_id=request_id,
        advice=_ADVICE.get(reason),
    )
