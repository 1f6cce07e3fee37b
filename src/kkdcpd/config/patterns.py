"""Compares the names of principals and of client certificates with patterns.

In a pattern, `*` stands for any characters or none. Upper and lower case are equal. No other character is
special. Clients choose the names, so the time of a match is proportional to their length.
"""

import re
from dataclasses import dataclass

from kkdcpd.errors import SettingError
from kkdcpd.values import ClientCertificate, PrincipalName

__all__ = ["CertificatePattern", "PrincipalPattern", "parse_certificate_pattern", "parse_principal_pattern"]

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A subject's separators and the texts between them. RFC 4514 2.4 escapes separators within a value.
_SUBJECT_PARTS = re.compile(r"[,+]|(?:[^,+\\]|\\.)+", re.DOTALL)
_OTHER_FORMS = re.compile(r"^/|^\w+ = |(?<!\\), ")  # the other forms of openssl(1)

_SUBJECT = "subject"
_KINDS = {_SUBJECT, "dns", "email", "uri", "upn"}
_SUBJECT_REMEDY = (
    "write what `openssl x509 -noout -subject -nameopt RFC2253,-esc_msb -in FILE` prints, "
    'such as "subject:CN=*,O=Example"'
)


@dataclass(frozen=True, slots=True)
class PrincipalPattern:
    """A pattern of principals without realm, as in `*/admin`; `*` may contain several components."""

    text: str

    def __str__(self) -> str:
        return self.text

    def matches(self, name: PrincipalName) -> bool:
        """Whether the name matches, with its components joined by `/` and without escapes.

        Windows takes `a/b` in one component for the same as in two.
        """
        return _is_like(self.text, "/".join(name.components))


@dataclass(frozen=True, slots=True)
class CertificatePattern:
    """A pattern of a certificate's subject or of one of its names, after the kind: `dns:*.example.com`.

    In a subject, `*` stays within one value: `subject:CN=*,O=Example` is any common name there.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def matches(self, certificate: ClientCertificate) -> bool:
        """Whether the subject or a name of the certificate matches."""
        kind, _colon, pattern = self.text.partition(":")
        if kind == _SUBJECT:
            wanted, found = map(_SUBJECT_PARTS.findall, (pattern, certificate.subject))
            return len(wanted) == len(found) and all(map(_is_like, wanted, found))
        return any(_is_like(self.text, name) for name in certificate.names)


def _is_like(pattern: str, name: str) -> bool:
    """Find the texts between the stars in their order, each at its first position."""
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
        raise SettingError(
            "has an @ in it",
            "leave out the @ and the text after it: a name has no realm and no UPN suffix here",
        )
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
