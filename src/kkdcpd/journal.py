"""One log line per exchange: who asked what, which KDC said what, and how it ended.

The fields are documented in docs/log.md. Nothing of a kerb-message but names and numbers gets here.
"""

import logging
from dataclasses import dataclass

from kkdcpd.protocol.error_codes import error_name
from kkdcpd.values import ClientConnection, KdcReply, Outcome, ProxyRequest, Served

__all__ = ["ExchangeRecord", "write"]

logger = logging.getLogger(__name__)

_LEVELS = {
    # The operator should act.
    Outcome.NO_KDC_KNOWN: logging.WARNING,
    Outcome.DNS_FAILED: logging.WARNING,
    Outcome.NO_KDC_REACHED: logging.WARNING,
    Outcome.NO_KDC_REPLY: logging.WARNING,
    # A bug.
    Outcome.INTERNAL_ERROR: logging.ERROR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRecord:
    """All that is known of an exchange when it has ended. `status` is None if no response could be sent."""

    request_id: str
    client: ClientConnection
    served: Served
    request: ProxyRequest | None
    status: int | None
    milliseconds: float
    bytes_in: int
    bytes_out: int


def write(record: ExchangeRecord) -> None:
    """Write the line."""
    outcome = record.served.outcome
    level = _LEVELS.get(outcome, logging.INFO)
    if logger.isEnabledFor(level):
        logger.log(level, "exchange", extra={"fields": _fields(record)})


def _fields(record: ExchangeRecord) -> dict[str, object]:
    served = record.served
    fields: dict[str, object] = {"id": record.request_id} | _client_fields(record.client)
    if record.request:
        fields |= _request_fields(record.request, served)
    if served.reply:
        fields |= _reply_fields(served.reply)
    if served.attempts:
        fields["attempts"] = served.attempts
    fields["outcome"] = served.outcome.value
    if served.refusal:
        fields["rule"] = served.refusal.rule.value
    if served.monitored:
        fields["monitored"] = ",".join(rule.value for rule in served.monitored)
    if served.detail:
        fields["detail"] = served.detail
    if record.status:
        fields["status"] = record.status
    fields |= {"ms": round(record.milliseconds, 1), "in": record.bytes_in, "out": record.bytes_out}
    return fields


def _client_fields(client: ClientConnection) -> dict[str, object]:
    fields: dict[str, object] = {"client": client.address}
    if client.port:
        fields["port"] = client.port
    if client.proxy:
        fields["proxy"] = client.proxy
    fields["tls"] = client.tls or "none"
    if client.certificate:
        fields["certificate"] = client.certificate.subject
    return fields


def _request_fields(request: ProxyRequest, served: Served) -> dict[str, object]:
    fields: dict[str, object] = {
        "realm": served.realm or request.target_domain,
        "kind": request.kind.value,
    }
    cname = request.cname or (served.reply and served.reply.facts.cname)
    if cname:
        fields["cname"] = cname
    if request.sname:
        fields["sname"] = request.sname
    if request.padata_types:
        fields["padata"] = ",".join(map(str, request.padata_types))
    if request.is_armored:
        fields["armor"] = "fast"
    if request.kpasswd_version:
        fields["version"] = f"{request.kpasswd_version:#06x}"
    if request.dclocator_hint is not None:
        fields["hint"] = f"{request.dclocator_hint & 0xFFFFFFFF:#x}"
    return fields


def _reply_fields(reply: KdcReply) -> dict[str, object]:
    endpoint = reply.endpoint
    fields: dict[str, object] = {
        "kdc": f"[{endpoint.name}]:{endpoint.port}"
        if ":" in endpoint.name
        else f"{endpoint.name}:{endpoint.port}",
        "transport": endpoint.transport.value,
        "reply": reply.facts.kind.value,
    }
    if reply.facts.error_code is not None:
        fields |= {"error": reply.facts.error_code, "error_name": error_name(reply.facts.error_code)}
    return fields
