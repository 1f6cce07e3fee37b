"""Builds the KRB-ERROR that answers a request in place of a reply (RFC 4120 5.9.1, RFC 3244 section 2).

Clients understand this error without keys.
"""

from datetime import UTC, datetime

from kkdcpd.protocol import der, kpasswd
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.kerberos import encode_fields, encode_principal, encode_text
from kkdcpd.values import MessageKind, PrincipalName, ProxyRequest

__all__ = ["build_error"]

KRB_ERROR_TAG = 0x7E
KRB_ERROR_TYPE = 30
PVNO = 5
NT_SRV_INST = 2

KPASSWD_HARDERROR = 2
KPASSWD_ACCESSDENIED = 5
"""RFC 3244's result codes for a failure of the server and a forbidden change. Clients show the text that
follows the code."""


def build_error(
    code: KrbErrorCode, text: str = "", *, request: ProxyRequest | None = None, now: float
) -> bytes:
    """Build a KRB-ERROR with `code` and `text`. `now` is in seconds since 1970.

    `request` is the request that the error answers, None if there is no well-formed request. The answer to a
    kpasswd request has a frame.
    """
    if request is None or request.kind is not MessageKind.KPASSWD_REQ:
        return _krb_error(code, text, request, now)
    return kpasswd.encode_kpasswd_error(_krb_error(code, text, request, now, _kpasswd_result(code, text)))


def _kpasswd_result(code: KrbErrorCode, text: str) -> bytes | None:
    """Return the result code and the text. Without a text, clients read the error code instead."""
    if not text:
        return None
    result = KPASSWD_ACCESSDENIED if code is KrbErrorCode.KDC_ERR_POLICY else KPASSWD_HARDERROR
    return result.to_bytes(2, "big") + text.encode("utf-8", "surrogateescape")


def _krb_error(
    code: KrbErrorCode, text: str, request: ProxyRequest | None, now: float, data: bytes | None = None
) -> bytes:
    time = datetime.fromtimestamp(now, UTC)
    realm = request.realm if request else ""
    server = request.sname if request else None
    fields = {
        0: der.encode_integer(PVNO),
        1: der.encode_integer(KRB_ERROR_TYPE),
        4: der.encode(der.GENERALIZED_TIME[0], f"{time:%Y%m%d%H%M%SZ}".encode()),
        5: der.encode_integer(time.microsecond),
        6: der.encode_integer(code),
        9: encode_text(realm),
        10: encode_principal(server or PrincipalName(name_type=NT_SRV_INST, components=("krbtgt", realm))),
    }
    if text:
        fields[11] = encode_text(text)
    if data is not None:
        fields[12] = der.encode(der.OCTET_STRING[0], data)
    return der.encode(KRB_ERROR_TAG, encode_fields(fields))
