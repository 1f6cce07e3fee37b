"""Parses names of realms, sites and principals, HTTP paths, and file modes.

Pure. What names an address is in `addresses`.
"""

import base64
import binascii
import re
from typing import Annotated

from kkdcpd.config.kinds import Text
from kkdcpd.errors import SettingError
from kkdcpd.frozen import frozen
from kkdcpd.protocol.realms import fold_realm

__all__ = [
    "WILDCARD",
    "PinnedKey",
    "UnixMode",
    "parse_http_path",
    "parse_mode",
    "parse_origin",
    "parse_pinned_key",
    "parse_principal",
    "parse_realm_name",
    "parse_realm_pattern",
    "parse_site",
]

WILDCARD = "*."

_MAX_REALM_BYTES = 255  # as a DNS name (RFC 1035 2.3.4), which a domain-style realm is (RFC 4120 6.1)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# RFC 3986 3.3 without percent-encoding: one path must have one spelling.
_HTTP_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_SITE = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")  # it is a label in DNS ([MS-ADTS] 6.1.1.2.2.1)
_PRINCIPAL = re.compile(r"[^/@\\\x00-\x1f\x7f-\x9f]+(?:/[^/@\\\x00-\x1f\x7f-\x9f]+)*")
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_SHA256_BYTES = 32
_MODE = re.compile(r"0?[0-7]{3}")


@frozen
class PinnedKey:
    """The SHA-256 digest of a public key that a host must have. `host` is in lower case."""

    host: str
    digest: bytes


def parse_pinned_key(text: str) -> PinnedKey:
    """Read a host, and the digest of a key in curl's form."""
    host, _, key = text.partition(" ")
    algorithm, _, encoded = key.strip().partition("//")
    if not host or algorithm != "sha256":
        raise SettingError("is no host with the sha256 digest of a key")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise SettingError("has a digest that is no base64") from error
    if len(digest) != _SHA256_BYTES:
        raise SettingError(f"has a digest of {len(digest)} bytes, and SHA-256 has {_SHA256_BYTES}")
    return PinnedKey(host=host.lower().removesuffix("."), digest=digest)


def parse_realm_name(text: str) -> str:
    """Return a realm's name as the file has it; only comparisons fold it."""
    if not fold_realm(text):
        raise SettingError("is no name")
    if len(text.encode()) > _MAX_REALM_BYTES:
        raise SettingError(f"has more than {_MAX_REALM_BYTES} bytes")
    if _CONTROL_CHARACTER.search(text):
        raise SettingError("has a control character in it")
    if "*" in text:
        raise SettingError("has a * in it")
    return text


def parse_realm_pattern(text: str) -> str:
    """Return a realm's name, or `*.` and the common end of the names of several realms."""
    if "*" not in text:
        return parse_realm_name(text)
    parent = text.removeprefix(WILDCARD)
    if "*" in parent:
        raise SettingError("has a * that is not its first label", 'write "*.EXAMPLE.COM" or a name without *')
    # Below a top-level domain, any person can own a domain, and so a realm and its KDCs.
    if "." not in fold_realm(parent):
        raise SettingError(
            "would serve realms of any owner", 'write two labels at least, as in "*.EXAMPLE.COM"'
        )
    return WILDCARD + parse_realm_name(parent)


def parse_site(text: str) -> str:
    """Return the name of an Active Directory site; it may be empty."""
    if text and not _SITE.fullmatch(text):
        raise SettingError("is no site's name")
    return text


def parse_principal(text: str) -> str:
    """Return a principal's name without realm, its components joined by / and nothing escaped."""
    if "@" in text:
        raise SettingError("has an @ in it", "leave out the realm: each realm's KDCs are asked for their own")
    if not _PRINCIPAL.fullmatch(text):
        raise SettingError("is no principal's name")
    return text


def parse_http_path(text: str) -> str:
    """Return a path of requests."""
    if not text.startswith("/"):
        raise SettingError(
            "does not begin with /", f'write "/{text}"' if _HTTP_PATH.fullmatch(f"/{text}") else None
        )
    if not _HTTP_PATH.fullmatch(text):
        raise SettingError("has characters that a plain path can't have")
    return text


def parse_origin(text: str) -> str:
    """Return the origin of a web page, as browsers write it (RFC 6454 6.2)."""
    if not _ORIGIN.fullmatch(text):
        raise SettingError("is no origin, which is a scheme and a host in lower case, without a path")
    return text


def parse_mode(text: str) -> int:
    """Read a file mode in octal digits, as for chmod(1)."""
    if not _MODE.fullmatch(text):
        raise SettingError("is no octal file mode")
    return int(text, base=8)


UnixMode = Annotated[
    int,
    Text(parse=parse_mode, remedy='write octal digits in quotes, such as "0660"', form="{:04o}".format),
]
