"""Shows the names of users in the log, replaces them by pseudonyms, or omits them.

Pseudonyms depend on a key. Without the key, trying names does not reveal the name of a pseudonym. All
spellings that the guard counts as one principal have the same pseudonym.
"""

import functools
import hashlib
import secrets
from collections.abc import Mapping

from kkdcpd.config import LogConfig
from kkdcpd.protocol.principals import fold_principal
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import PrincipalName

__all__ = ["Fields", "Principals"]

Fields = Mapping[str, object]

PSEUDONYM_BYTES = 8
"""Among a million principals, two share a pseudonym with a chance of 1 in 37 million."""

_NAMES = ("cname", "sname", "certificate")


class Principals:
    """Hides names in the fields of a line, as `log.principals` sets it."""

    def __init__(self, config: LogConfig) -> None:
        secret = config.principals_key or _key_of_this_start()
        self._key = hashlib.blake2b(secret).digest()
        self._is_plain = config.principals == "plain"
        self._is_hashed = config.principals == "hashed"

    def hide(self, fields: Fields) -> Fields:
        """Return the fields with the names hidden."""
        if self._is_plain:
            return fields
        shown = dict(fields)
        if "rule" in fields:
            # A refusal's detail may quote a name.
            shown.pop("detail", None)
        for name in _NAMES:
            if name not in fields or (name == "sname" and _is_service(fields[name])):
                continue
            if self._is_hashed:
                shown[name] = self._pseudonym(name, fields[name], str(fields.get("realm", "")))
            else:
                del shown[name]
        return shown

    def _pseudonym(self, field: str, value: object, realm: str) -> str:
        if field == "certificate":
            kind, name = "certificate", str(value)
        else:
            kind = "principal"
            name = fold_principal(value) if isinstance(value, PrincipalName) else str(value)
        text = "\0".join((kind, fold_realm(realm) if kind == "principal" else "", name))
        data = text.encode(errors="surrogatepass")
        digest = hashlib.blake2b(data, key=self._key, digest_size=PSEUDONYM_BYTES)
        return f"hashed:{digest.hexdigest()}"


def _is_service(sname: object) -> bool:
    """Whether the sname is a service on a host. An sname of one component may be a user (user-to-user)."""
    return isinstance(sname, PrincipalName) and len(sname.components) > 1


@functools.cache
def _key_of_this_start() -> bytes:
    """Make a key if none is configured. All processes share it, because it is made before any fork."""
    return secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)
