"""Which paths are ours, and the secret token that one may end with. Pure.

Windows' clients can be given a URL and nothing else, so what lets them in has to be in the path.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Paths", "Place"]

SHORTEST_TOKEN = 16
"""Characters that a token has at least (config/tokens.py)."""

_QUOTE = re.compile("""b?['"]""")


@dataclass(frozen=True, slots=True)
class Place:
    """A path of ours. `token` is the digest of the token behind it; the token itself is forgotten at once."""

    token: bytes | None = field(default=None, repr=False)


_OPEN = Place()


class Paths:
    """The configured paths, compared without case; one slash at the end makes no difference.

    Only where `takes_tokens` is true may one more segment follow.
    """

    def __init__(self, paths: Iterable[str], *, takes_tokens: bool) -> None:
        self._spelled = frozenset(paths)  # as most clients write them
        self._paths = frozenset(map(_fold, self._spelled))
        self._takes_tokens = takes_tokens

    def find(self, path: str) -> Place | None:
        """Return what a request's path stands for, None if it is none of ours."""
        if path in self._spelled or _fold(path) in self._paths:
            return _OPEN
        if self._takes_tokens:
            parent, _, token = path.removesuffix("/").rpartition("/")
            if token and _fold(parent) in self._paths:
                return Place(hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest())
        return None

    def describe(self, path: str) -> str:
        """Return what the log may say of a path that isn't ours: what might be a token is left out."""
        if not self._takes_tokens:
            return path
        first, slash, rest = path.removeprefix("/").partition("/")
        shown = first if len(first) < SHORTEST_TOKEN else "..."
        return f"/{shown}{slash}{'...' if rest else ''}"

    def describe_error(self, text: str) -> str:
        """Return what the log may say of a parser's complaint, which may quote the path it stumbled on."""
        if not self._takes_tokens:
            return text
        return _QUOTE.split(text, maxsplit=1)[0].rstrip(" :")


def _fold(path: str) -> str:
    return path.lower().removesuffix("/")
