"""One log line per exchange: who asked what, which KDC said what, and how it ended.

The fields are documented in docs/log.md. Nothing of a kerb-message but names and numbers gets here.
"""

import logging
import time
from typing import ClassVar

from kkdcpd.frozen import frozen
from kkdcpd.protocol.error_codes import KrbErrorCode, error_name
from kkdcpd.values import ClientConnection, Outcome, ProxyRequest, RequestResult

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


_UNKNOWN_THERE = frozenset(
    {
        KrbErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN,
        KrbErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN,
        KrbErrorCode.KDC_ERR_WRONG_REALM,
    }
)


@frozen
class ExchangeRecord:
    """All that is known of an exchange when it has ended. `status` is None if no response could be sent."""

    request_id: str
    client: ClientConnection
    served: RequestResult
    request: ProxyRequest | None
    status: int | None
    milliseconds: float
    bytes_in: int
    bytes_out: int


class _ExchangeLine(logging.LogRecord):
    """A record of which only what differs from others is made anew: logging takes long over the rest."""

    _COMMON: ClassVar = {
        level: vars(logging.LogRecord(logger.name, level, "", 0, "exchange", (), None))
        for level in (logging.INFO, logging.WARNING, logging.ERROR)
    }

    def __init__(self, level: int, fields: dict[str, object]) -> None:
        self.__dict__.update(self._COMMON[level], created=time.time(), fields=fields)


def write(record: ExchangeRecord) -> None:
    """Write the line."""
    level = _LEVELS.get(record.served.outcome, logging.INFO)
    if logger.isEnabledFor(level):
        logger.handle(_ExchangeLine(level, _fields(record)))


def _fields(record: ExchangeRecord) -> dict[str, object]:
    client = record.client
    fields: dict[str, object] = {"id": record.request_id, "client": client.address}
    if client.port:
        fields["port"] = client.port
    if client.proxy:
        fields["proxy"] = client.proxy
    fields["tls"] = client.tls or "none"
    if client.certificate:
        fields["certificate"] = client.certificate.subject
    if record.request:
        _add_request(fields, record.request, record.served)
    _add_end(fields, record.served)
    if record.request:
        _add_advice(fields, record.request, record.served)
    if record.status:
        fields["status"] = record.status
    fields["ms"] = round(record.milliseconds, 1)
    fields["in"] = record.bytes_in
    fields["out"] = record.bytes_out
    return fields


def _add_request(fields: dict[str, object], request: ProxyRequest, served: RequestResult) -> None:
    fields["realm"] = served.realm or request.target_domain
    fields["kind"] = request.kind.value
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


def _add_advice(fields: dict[str, object], request: ProxyRequest, served: RequestResult) -> None:
    """Say so where the KDC may not know the realm because of its case, which counts (RFC 4120 6.1)."""
    asked, known = request.realm, served.realm
    if served.reply is None or served.reply.facts.error_code not in _UNKNOWN_THERE or not (asked and known):
        return
    if asked != known and asked.lower() == known.lower():
        fields["advice"] = f"the client asks for {asked}, the configuration has {known}: case counts"


def _add_end(fields: dict[str, object], served: RequestResult) -> None:
    if served.reply:
        endpoint, facts = served.reply.endpoint, served.reply.facts
        fields["kdc"] = endpoint.host_port
        fields["transport"] = endpoint.transport.value
        fields["reply"] = facts.kind.value
        if facts.error_code is not None:
            fields["error"] = facts.error_code
            fields["error_name"] = error_name(facts.error_code)
    if served.attempts:
        fields["attempts"] = served.attempts
    fields["outcome"] = served.outcome.value
    if served.refusal:
        fields["rule"] = served.refusal.rule.value
    if served.monitored:
        fields["monitored"] = ",".join(rule.value for rule in served.monitored)
    if served.detail:
        fields["detail"] = served.detail
