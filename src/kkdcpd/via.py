"""Names this kkdcpd in the header Via of requests that it forwards, and finds its own name in a request.

RFC 9110 7.6.3. A KDC proxy that forwards to another one can be part of a loop: A forwards to B, and B to A.
Each proxy passes on the names in Via with its own name, so the first proxy of the loop finds its own name.
"""

import re
import secrets
from collections.abc import Sequence

from kkdcpd.errors import LoopDetectedError

__all__ = ["NAME", "extend"]

NAME = f"kkdcpd-{secrets.token_hex(6)}"
"""The name of this service. All its processes have the name that the parent process made at its import."""

MAX_HOPS = 16
"""The most proxies that a request may have passed. A longer way is a loop of proxies without unique names."""

_OWN_HOP = f"1.1 {NAME}"

# A version and a name or host; a comment is dropped.
_HOP = re.compile(r"\s*([!-+.-~]{1,16} [!-'*+.-~-]{1,128})(?:\s+\(.*\))?\s*")


def extend(received: Sequence[str] = ()) -> str:
    """Return the header for the forwarded request, from the values of Via in the request.

    Raises:
        LoopDetectedError: this kkdcpd has forwarded the request already.
    """
    if not received:
        return _OWN_HOP
    hops = [found[1] for hop in ",".join(received).split(",") if (found := _HOP.fullmatch(hop))]
    if _OWN_HOP in hops:
        raise LoopDetectedError(f"Via has our own name, {NAME}")
    if len(hops) >= MAX_HOPS:
        raise LoopDetectedError(f"Via has {len(hops)} names")
    return ", ".join([*hops, _OWN_HOP])
