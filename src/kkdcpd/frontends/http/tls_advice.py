"""Explains why TLS handshakes fail: advice for OpenSSL's reasons, which name the client's alert or our error.

An alert (RFC 8446 6.2) says little of its cause, and each TLS library chooses another one for the same cause.
tests/frontends/http/test_tls_advice.py shows the alerts of the clients that can be had.
"""

from collections.abc import Mapping

__all__ = ["ADVICE"]

_NAME = (
    "the client refuses our certificate, most often because the name in its URL is not among the "
    "certificate's names: compare both"
)
_OLD_TLS = "the client's TLS version is older than tls.minimum_version"
_CIPHERS = "client and server have no cipher suite in common: the client is very old, or set up to use few"
_CERTIFICATE_KIND = (
    "the client can't use our certificate's kind of key or signature: get one with an RSA or P-256 key"
)
_NO_TLS = "this is not TLS"
_CLIENT_CERTIFICATE = "the listener requires a client certificate, and there is none"

ADVICE: Mapping[str, str] = {
    "HTTP_REQUEST": "plain HTTP on a TLS port",
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "BAD_RECORD_TYPE": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _OLD_TLS,
    "VERSION_TOO_LOW": _OLD_TLS,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD_TLS,
    "NO_SHARED_CIPHER": _CIPHERS,
    "NO_SUITABLE_KEY_SHARE": _CIPHERS,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": _CERTIFICATE_KIND,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": _CIPHERS,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _CIPHERS,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _CERTIFICATE_KIND,
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust our certificate's issuer: have it trust that CA "
    "(Windows: the machine's store; MIT krb5: http_anchors), or complete the chain in tls.certificate",
    # MIT krb5's answer to a wrong name; OpenSSL's to any certificate that a program of its own refuses.
    "TLSV1_ALERT_INTERNAL_ERROR": _NAME,
    "SSLV3_ALERT_BAD_CERTIFICATE": _NAME,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _NAME,
    "TLSV1_UNRECOGNIZED_NAME": _NAME,
    "TLSV1_ALERT_ACCESS_DENIED": "the client refuses our certificate by a rule of its own: see its log",
    "TLSV1_ALERT_USER_CANCELLED": "the client's user, or a rule of its own, refused our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client finds our certificate expired: check both clocks",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the client finds our certificate revoked: get another one",
    "TLSV1_ALERT_DECRYPT_ERROR": "a signature is wrong: a device on the way may alter the handshake",
    "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE": "the client demands OCSP stapling, which kkdcpd has not: get a "
    "certificate without must-staple",
    "NO_APPLICATION_PROTOCOL": "the client speaks another application protocol, such as HTTP/2 alone",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": _CLIENT_CERTIFICATE,
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is not from an authority in tls.client_ca, has "
    "expired, or is revoked",
}
"""OpenSSL's reason to what the administrator can do. A reason that isn't here speaks for itself."""
