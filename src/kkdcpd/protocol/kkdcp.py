"""Decodes and encodes the envelope KDC-PROXY-MESSAGE ([MS-KKDCP] 2.2.2), and not the message in it."""

from kkdcpd.errors import MalformedError
from kkdcpd.protocol import der, framing
from kkdcpd.values import ProxyMessage

__all__ = ["decode_proxy_message", "encode_proxy_message"]

MAX_DOMAIN_BYTES = 4096
"""The limit for realms in the message (protocol.kerberos) too. Long names take long to compare."""

_KDC_PROXY_MESSAGE = der.Grammar(
    "KDC-PROXY-MESSAGE",
    der.Field(0, der.OCTET_STRING),
    # A KerberosString is a GeneralString. Some encoders send one of the other two types.
    der.Field(1, der.GENERAL_STRING + der.UTF8_STRING + der.IA5_STRING, is_optional=True),
    der.Field(2, der.INTEGER, is_optional=True),
)


def decode_proxy_message(body: bytes) -> ProxyMessage:
    """Decode the body of a request or response.

    The length prefix of the kerb-message may be missing, because Apple's clients up to macOS 14 and iOS 17
    leave it out. Then it is added. The message itself is never changed.

    Raises:
        MalformedError: not exactly one KDC-PROXY-MESSAGE in DER.
    """
    span = der.read_element(body, 0, len(body), der.SEQUENCE)
    if span[1] != len(body):
        raise MalformedError(f"{len(body) - span[1]} bytes after the KDC-PROXY-MESSAGE")
    message, target_domain, hint = der.read_fields(body, span, _KDC_PROXY_MESSAGE)
    kerb_message = body[message[0] : message[1]]
    has_prefix = framing.has_prefix(kerb_message)
    return ProxyMessage(
        kerb_message=kerb_message if has_prefix else framing.add_prefix(kerb_message),
        target_domain=_read_domain(body, target_domain) if target_domain is not der.ABSENT else None,
        # 32 flags. If the top bit is set, some encoders write a negative number, others five bytes.
        dclocator_hint=der.read_integer(body, hint, der.UINT32_BYTES) if hint is not der.ABSENT else None,
        has_length_prefix=has_prefix,
    )


def _read_domain(body: bytes, span: der.Span) -> str:
    if span[1] - span[0] > MAX_DOMAIN_BYTES:
        raise MalformedError(f"a target-domain of more than {MAX_DOMAIN_BYTES} bytes")
    return body[span[0] : span[1]].decode("utf-8", "surrogateescape")


def encode_proxy_message(message: ProxyMessage) -> bytes:
    """Encode a KDC-PROXY-MESSAGE. A reply has neither target-domain nor hint ([MS-KKDCP] 3.2.5.2)."""
    fields = der.encode_explicit(0, der.encode(der.OCTET_STRING[0], message.kerb_message))
    if message.target_domain is not None:
        realm = message.target_domain.encode("utf-8", "surrogateescape")
        fields += der.encode_explicit(1, der.encode(der.GENERAL_STRING[0], realm))
    if message.dclocator_hint is not None:
        fields += der.encode_explicit(2, der.encode_integer(message.dclocator_hint))
    return der.encode(der.SEQUENCE[0], fields)
