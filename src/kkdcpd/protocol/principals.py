"""Folds all spellings of a principal into one text, to count principals and to name them in the log.

KDCs take several spellings as one name. Samba 4.17 ignores case, spaces around the name, a NUL at its end,
`@REALM` or `@NETBIOS` after it, and the missing `$` of a computer. Heimdal ignores a NUL at the end, and no
KDC reads the name type. Active Directory also ignores accents and the
width of letters. Folding too much does little harm: two users with names that differ only in the suffix share
a count of failures, and only if they share a network.
"""

import unicodedata

from kkdcpd.values import PrincipalName

__all__ = ["fold_principal", "is_anonymous", "plain_letters"]

DOTLESS_I = "\u0131"
"""It has no decomposition, but `I` is its capital letter."""

_ANONYMOUS = ("WELLKNOWN", "ANONYMOUS")


def is_anonymous(name: PrincipalName) -> bool:
    """Whether the name stands for any client (RFC 8062 section 3), as outside of FAST's armor."""
    return name.components == _ANONYMOUS


def fold_principal(name: PrincipalName) -> str:
    """Return what the spellings of one principal have in common, as far as can be said without its KDC.

    The result has no NUL.
    """
    text = "/".join(name.components)
    # Nearly all names end here.
    return text.lower() if text.isascii() and text.isalnum() else _fold_unusual(text)


def plain_letters(text: str) -> str:
    """Return the text without accents and unusual widths of letters: `ádmin` is `admin`."""
    if text.isascii():
        return text
    # Letter by letter: unicodedata sorts a run of combining characters in quadratic time.
    return text.translate({ord(letter): _plain_letter(letter) for letter in set(text)})


def _plain_letter(letter: str) -> str:
    parts = unicodedata.normalize("NFKD", letter)
    return "".join(part for part in parts if not unicodedata.combining(part))


def _fold_unusual(text: str) -> str:
    whole = plain_letters(text.partition("\0")[0].casefold()).casefold().replace(DOTLESS_I, "i")
    whole = "".join(whole.split())
    # `DOMAIN\name` and `name@SUFFIX`.
    stem = whole.rpartition("\\")[2].partition("@")[0].rstrip("$.")
    return stem or whole
