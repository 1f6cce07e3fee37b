"""Which paths are served, and the secret token that one may end with. Pure.

Windows' clients can be given a URL and nothing else, so what lets them in has to be in the path.

A path is compared as it is written, and nothing in it is decoded: an encoded slash is no slash (RFC 3986
2.2), and no client encodes what needs no encoding.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Paths", "Place"]


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
        self._spelled = tuple(paths)
        self._targets = frozenset(self._spelled)  # as most clients write them
        self._paths = {_fold(path): path for path in self._spelled}
        self._takes_tokens = takes_tokens

    def find(self, target: str) -> Place | None:
        """Return what a request's target stands for, None if it is none of ours."""
        if target in self._targets:
            return _OPEN
        path = _path_of(target)
        if path is None:
            return None
        if _fold(path) in self._paths:
            return _OPEN
        if self._takes_tokens:
            parent, _, token = path.removesuffix("/").rpartition("/")
            if token and _fold(parent) in self._paths:
                return Place(hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest())
        return None

    def describe(self, target: str) -> str:
        """Return what the log may say of a target that is not ours, and what is served.

        Anything in it may be a token, whole or in part, perhaps of another proxy. So nothing is quoted.
        """
        return f"{self._describe(target)}; served: {', '.join(self._spelled)}"

    def _describe(self, target: str) -> str:
        path = _path_of(target)
        if path is None:
            return "no path"
        folded = _fold(path)
        for served, spelled in self._paths.items():
            if served and folded.startswith(f"{served}/"):
                return f"{spelled}/... ({len(path)} characters)"
        return f"another path ({len(path)} characters)"


def _path_of(target: str) -> str | None:
    """Return the path of a request's target (RFC 9112 3.2), as it is written; None if it has none."""
    if not target.startswith("/"):
        scheme, is_url, rest = target.partition("://")
        if not is_url or not scheme.isalnum():
            return None  # The asterisk form, or CONNECT's.
        authority, slash, path = rest.partition("/")
        if "?" in authority or "#" in authority:
            return "/"
        target = slash + path or "/"
    return target.partition("?")[0].partition("#")[0]


def _fold(path: str) -> str:
    return path.lower().removesuffix("/")
