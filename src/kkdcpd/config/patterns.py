"""Patterns that names are held against: those of principals, and those that client certificates bear.

Pure. In each, `*` stands for any characters, none included, and case doesn't count; no other character is
special. Strangers choose the names, so that a match takes time in proportion to their length.
"""

import re
from dataclasses import dataclass

from kkdcpd.errors import SettingError
from kkdcpd.values import ClientCertificate, PrincipalName

__all__ = ["CertificatePattern", "PrincipalPattern", "parse_certificate_pattern", "parse_principal_pattern"]

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A subject's separators, and what stands between them: RFC 4514 2.4 escapes separators within a value.
_SUBJECT_PARTS = re.compile(r"[,+]|(?:[^,+\\]|\\.)+", re.DOTALL)
_OTHER_FORMS = re.compile(r"^/|^\w+ = |(?<!\\), ")  # those of openssl(1)

_SUBJECT = "subject"
_KINDS = {_SUBJECT, "dns", "email", "uri", "upn"}
_SUBJECT_REMEDY = (
    "write what `openssl x509 -noout -subject -nameopt RFC2253,-esc_msb -in FILE` tells, "
    'such as "subject:CN=*,O=Example"'
)


@dataclass(frozen=True, slots=True)
class PrincipalPattern:
    """A pattern of principals without realm, as in `*/admin`; `*` stands for several components too."""

    text: str

    def __str__(self) -> str:
        return self.text

    def matches(self, name: PrincipalName) -> bool:
        """Tell whether it is one of these, its components joined by `/` and nothing escaped.

        Windows takes `a/b` in one component for the same as in two.
        """
        return _is_like(self.text, "/".join(name.components))


@dataclass(frozen=True, slots=True)
class CertificatePattern:
    """A pattern of a certificate's subject or of one of its names, after the kind: `dns:*.example.com`.

    In a subject, `*` stays within one value: `subject:CN=*,O=Example` is any common name in just that place.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def matches(self, certificate: ClientCertificate) -> bool:
        """Tell whether the certificate bears such a subject or name."""
        kind, _colon, pattern = self.text.partition(":")
        if kind == _SUBJECT:
            wanted, borne = map(_SUBJECT_PARTS.findall, (pattern, certificate.subject))
            return len(wanted) == len(borne) and all(map(_is_like, wanted, borne))
        return any(_is_like(self.text, name) for name in certificate.names)


def _is_like(pattern: str, name: str) -> bool:
    """Compare what stands between the stars, each where it is found first."""
    first, *others = pattern.casefold().split("*")
    folded = name.casefold()
    if not others:
        return folded == first
    *middle, last = others
    position, end = len(first), len(folded) - len(last)
    if position > end or not (folded.startswith(first) and folded.endswith(last)):
        return False
    for part in middle:
        found = folded.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


def parse_principal_pattern(text: str) -> PrincipalPattern:
    """Read a pattern of principals."""
    if "@" in text:
        raise SettingError("has an @ in it", "leave out the realm: it is the one that is asked for")
    if not text or _UNPRINTABLE.search(text):
        raise SettingError("is no principal's name")
    return PrincipalPattern(text)


def parse_certificate_pattern(text: str) -> CertificatePattern:
    """Read a pattern of subjects or names, its kind before a colon."""
    kind, _colon, pattern = text.partition(":")
    if kind.lower() not in _KINDS:
        raise SettingError("does not begin with the kind of name")
    if not pattern or _UNPRINTABLE.search(pattern):
        raise SettingError("has no name after the kind")
    # Other ways to write a subject would never match.
    if kind.lower() == _SUBJECT and _OTHER_FORMS.search(pattern):
        raise SettingError("is not written as RFC 4514 has it", _SUBJECT_REMEDY)
    return CertificatePattern(f"{kind.lower()}:{pattern}")
