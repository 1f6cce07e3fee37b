"""When two realm names are the same.

Nothing but the folding of names may live here: which realms are served is configuration. RFC 4120 6.1.
"""

import string

__all__ = ["fold_realm"]

_LOWER_CASE = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def fold_realm(name: str) -> str:
    """Return what equal realm names have in common.

    RFC 4120 6.1 compares realms case-sensitively, but domain-style realms are DNS names: clients spell them
    as users typed them and Windows ignores their case. So they compare as in RFC 4343: only ASCII letters
    fold (`str.lower` would make other realms out of some names), and a root dot means nothing.
    """
    # Of ASCII alone, as nearly all are, str.lower does the same, and takes a tenth of the time.
    return (name.lower() if name.isascii() else name.translate(_LOWER_CASE)).removesuffix(".")
