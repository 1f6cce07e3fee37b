"""Finds the served path, and the secret token after it, in the target of a request. Pure.

The token is in the path because a Windows client can be configured with a URL only.

Paths are compared without decoding: an encoded slash is no slash (RFC 3986 2.2), and no client encodes
characters without need.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Paths", "ServedPath"]


@dataclass(frozen=True, slots=True)
class ServedPath:
    """A path that is served. `token` is the digest of the token after it. The token itself is not kept."""

    token: bytes | None = field(default=None, repr=False)


_WITHOUT_TOKEN = ServedPath()


class Paths:
    """The configured paths. They are compared without case, and one slash at the end makes no difference.

    If `takes_tokens` is true, one more segment may follow a path.
    """

    def __init__(self, paths: Iterable[str], *, takes_tokens: bool) -> None:
        self._configured = tuple(paths)
        self._targets = frozenset(self._configured)  # most clients send exactly these
        self._paths = {_fold(path): path for path in self._configured}
        self._takes_tokens = takes_tokens

    def find(self, target: str) -> ServedPath | None:
        """Return the served path in the target of a request, None if there is none."""
        if target in self._targets:
            return _WITHOUT_TOKEN
        path = _path_of(target)
        if path is None:
            return None
        if _fold(path) in self._paths:
            return _WITHOUT_TOKEN
        if self._takes_tokens:
            parent, _, token = path.removesuffix("/").rpartition("/")
            if token and _fold(parent) in self._paths:
                return ServedPath(hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest())
        return None

    def describe(self, target: str) -> str:
        """Describe a target that is not served, and the served paths, for the log.

        The target is not quoted, because any part of it may be a token, perhaps of another proxy.
        """
        return f"{self._describe(target)}; served: {', '.join(self._configured)}"

    def _describe(self, target: str) -> str:
        path = _path_of(target)
        if path is None:
            return "no path"
        folded = _fold(path)
        for served, configured in self._paths.items():
            if served and folded.startswith(f"{served}/"):
                return f"{configured}/... ({len(path)} characters)"
        return f"another path ({len(path)} characters)"


def _path_of(target: str) -> str | None:
    """Return the path in the target of a request (RFC 9112 3.2) without decoding, None if there is none."""
    if not target.startswith("/"):
        scheme, is_url, rest = target.partition("://")
        if not is_url or not scheme.isalnum():
            return None  # The asterisk form, or the authority form of CONNECT.
        authority, slash, path = rest.partition("/")
        if "?" in authority or "#" in authority:
            return "/"
        target = slash + path or "/"
    return target.partition("?")[0].partition("#")[0]


def _fold(path: str) -> str:
    return path.lower().removesuffix("/")
