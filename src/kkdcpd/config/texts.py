"""The other texts with a syntax of their own: realm names, HTTP paths and file modes.

Pure. What names an address is in `addresses`.
"""

import re

from kkdcpd.errors import SettingError
from kkdcpd.protocol.realms import fold_realm

__all__ = ["parse_http_path", "parse_mode", "parse_realm_name"]

_MAX_REALM_BYTES = 255  # as a DNS name (RFC 1035 2.3.4), which a domain-style realm is (RFC 4120 6.1)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# RFC 3986 3.3 without percent-encoding: one path must have one spelling.
_HTTP_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_MODE = re.compile(r"0?[0-7]{3}")


def parse_realm_name(text: str) -> str:
    """Return a realm's name as it was written; only comparisons fold it."""
    if not fold_realm(text):
        raise SettingError("is no name")
    if len(text.encode()) > _MAX_REALM_BYTES:
        raise SettingError(f"has more than {_MAX_REALM_BYTES} octets")
    if _CONTROL_CHARACTER.search(text):
        raise SettingError("has a control character in it")
    return text


def parse_http_path(text: str) -> str:
    """Return a path that requests may have."""
    if not text.startswith("/"):
        raise SettingError(
            "does not begin with /", f'write "/{text}"' if _HTTP_PATH.fullmatch(f"/{text}") else None
        )
    if not _HTTP_PATH.fullmatch(text):
        raise SettingError("has characters that a plain path can't have")
    return text


def parse_mode(text: str) -> int:
    """Read a file mode in octal digits, as for chmod(1)."""
    if not _MODE.fullmatch(text):
        raise SettingError("is no octal file mode")
    return int(text, base=8)
