"""Builds the KRB-ERROR that refuses a request (RFC 4120 5.9.1, RFC 3244 section 2).

Clients understand this error without keys.
"""

from datetime import UTC, datetime

from kkdcpd.protocol import der, kpasswd
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.kerberos import encode_fields, encode_principal, encode_text
from kkdcpd.values import MessageKind, PrincipalName, ProxyRequest

__all__ = ["build_policy_error"]

KRB_ERROR_TAG = 0x7E
KRB_ERROR_TYPE = 30
PVNO = 5
NT_SRV_INST = 2

KPASSWD_ACCESSDENIED = 5
"""RFC 3244's result code for a forbidden change. Clients show the text that follows the code."""


def build_policy_error(request: ProxyRequest, text: str, now: float) -> bytes:
    """Build the reply to `request` with KDC_ERR_POLICY and `text`. `now` is in seconds since 1970.

    The reply to a kpasswd request has a frame, and the text is in it again, after a result code.
    """
    if request.kind is not MessageKind.KPASSWD_REQ:
        return _krb_error(request, text, now)
    result = KPASSWD_ACCESSDENIED.to_bytes(2, "big") + text.encode("utf-8", "surrogateescape")
    return kpasswd.encode_kpasswd_error(_krb_error(request, text, now, result))


def _krb_error(request: ProxyRequest, text: str, now: float, data: bytes | None = None) -> bytes:
    time = datetime.fromtimestamp(now, UTC)
    server = request.sname or PrincipalName(name_type=NT_SRV_INST, components=("krbtgt", request.realm))
    fields = {
        0: der.encode_integer(PVNO),
        1: der.encode_integer(KRB_ERROR_TYPE),
        4: der.encode(der.GENERALIZED_TIME[0], f"{time:%Y%m%d%H%M%SZ}".encode()),
        5: der.encode_integer(time.microsecond),
        6: der.encode_integer(KrbErrorCode.KDC_ERR_POLICY),
        9: encode_text(request.realm),
        10: encode_principal(server),
        11: encode_text(text),
    }
    if data is not None:
        fields[12] = der.encode(der.OCTET_STRING[0], data)
    return der.encode(KRB_ERROR_TAG, encode_fields(fields))
