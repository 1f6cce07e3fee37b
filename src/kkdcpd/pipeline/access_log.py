"""Writes one line and the counts for each request that has ended.

docs/log.md documents the fields. Of a Kerberos message, only names and numbers get into the line.
"""

import logging
import time
from typing import ClassVar

from kkdcpd.frozen import frozen
from kkdcpd.log.lines import Plain
from kkdcpd.metrics.counters import Counters
from kkdcpd.protocol.error_codes import KrbErrorCode, error_name
from kkdcpd.values import ClientConnection, KdcReply, Outcome, ProxyRequest, RequestResult

__all__ = ["AccessLog", "AccessRecord"]

logger = logging.getLogger(__name__)

_LEVELS = {
    # The administrator should act.
    Outcome.NO_KDC_KNOWN: logging.WARNING,
    Outcome.DNS_FAILED: logging.WARNING,
    Outcome.NO_KDC_REACHED: logging.WARNING,
    Outcome.NO_KDC_REPLY: logging.WARNING,
    Outcome.LOOP_DETECTED: logging.WARNING,
    # A bug.
    Outcome.INTERNAL_ERROR: logging.ERROR,
}

_UNKNOWN_NAME_ERRORS = frozenset(
    {
        KrbErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN,
        KrbErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN,
        KrbErrorCode.KDC_ERR_WRONG_REALM,
    }
)


@frozen
class AccessRecord:
    """The facts about a request that has ended.

    `request` is None if the request could not be read. `status` is None if the way in has no statuses, or if
    the client left before the response. `copies` is the number of further copies of the request that got the
    same response.
    """

    request_id: str
    client: ClientConnection
    result: RequestResult
    request: ProxyRequest | None
    status: int | None
    seconds: float
    bytes_in: int
    bytes_out: int
    copies: int = 0


class AccessLog:
    """The one place where ended requests are logged and counted, so that log and metrics agree."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def enter(self, record: AccessRecord) -> None:
        """Write the line, and count the request."""
        result = record.result
        level = _LEVELS.get(result.outcome, logging.INFO)
        if logger.isEnabledFor(level):
            logger.handle(_Line(level, _fields(record)))
        self._counters.request_ended(result, record.request.kind if record.request else None, record.seconds)


class _Line(logging.LogRecord):
    """A log record that copies the attributes that all lines share. Making them anew costs more CPU."""

    _SHARED: ClassVar = {
        level: vars(logging.LogRecord(logger.name, level, "", 0, "exchange", (), None))
        for level in (logging.INFO, logging.WARNING, logging.ERROR)
    }

    def __init__(self, level: int, fields: dict[str, object]) -> None:
        self.__dict__.update(self._SHARED[level], created=time.time(), fields=fields)


def _fields(record: AccessRecord) -> dict[str, object]:
    client, result, request = record.client, record.result, record.request
    fields: dict[str, object] = {"id": Plain(record.request_id), "client": client.address}
    if client.port:
        fields["port"] = client.port
    if client.uid is not None:
        fields["uid"] = client.uid
    if client.proxy:
        fields["proxy"] = client.proxy
    fields["tls"] = client.tls or "none"
    if client.certificate:
        fields["certificate"] = client.certificate.subject
    if request:
        _add_request(fields, request, result)
    if result.reply:
        _add_reply(fields, result.reply)
    _add_result(fields, result)
    if request and result.reply and result.reply.facts.error_code in _UNKNOWN_NAME_ERRORS:
        _add_advice(fields, request.realm, result.realm)
    if record.copies:
        fields["copies"] = record.copies
    if record.status:
        fields["status"] = record.status
    fields["ms"] = round(record.seconds * 1000, 1)
    fields["in"] = record.bytes_in
    fields["out"] = record.bytes_out
    return fields


def _add_request(fields: dict[str, object], request: ProxyRequest, result: RequestResult) -> None:
    fields["realm"] = result.realm or request.target_domain
    fields["kind"] = request.kind.value
    cname = request.cname or (result.reply and result.reply.facts.cname)
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


def _add_reply(fields: dict[str, object], reply: KdcReply) -> None:
    endpoint, facts = reply.endpoint, reply.facts
    fields["kdc"] = endpoint.host_port
    fields["transport"] = endpoint.transport.value
    fields["reply"] = facts.kind.value
    if facts.error_code is not None:
        fields["error"] = facts.error_code
        fields["error_name"] = error_name(facts.error_code)


def _add_result(fields: dict[str, object], result: RequestResult) -> None:
    if result.attempts:
        fields["attempts"] = result.attempts
    fields["outcome"] = result.outcome.value
    if result.refusal:
        fields["rule"] = result.refusal.rule.value
    if result.monitored:
        fields["monitored"] = ",".join(rule.value for rule in result.monitored)
    if result.detail:
        fields["detail"] = result.detail


def _add_advice(fields: dict[str, object], requested: str, configured: str | None) -> None:
    """Explain an error that a realm in the wrong case may cause (RFC 4120 6.1: case counts)."""
    if configured and requested != configured and requested.lower() == configured.lower():
        fields["advice"] = (
            f"the client requests {requested}, the configuration has {configured}, and the KDC distinguishes "
            "upper and lower case; write the KDC's spelling at the client and in [realms]"
        )
