"""Reads the dclocator-hint: the client's requirements for the KDC.

The hint contains the Flags of DsrGetDcNameEx2 ([MS-NRPC] 3.5.4.3.1), which [MS-KKDCP] 3.2.5.1 calls with it.
The locator decides the effect of each flag.
"""

from functools import lru_cache, reduce
from operator import or_

from kkdcpd.values import DcLocatorFlags

__all__ = ["flags_of"]

_WITHOUT_HINT = DcLocatorFlags.IP_REQUIRED | DcLocatorFlags.KDC_REQUIRED  # [MS-KKDCP] 3.2.5.1: G and H
# [MS-NRPC] 3.5.4.3.1: the name is flat, a DNS name, or of unknown kind.
_EXCLUSIVE = DcLocatorFlags.IS_FLAT_NAME | DcLocatorFlags.IS_DNS_NAME
_KNOWN = reduce(or_, DcLocatorFlags)
_FLAGS_MASK = 0xFFFFFFFF
_CACHED_HINTS = 64
"""Clients of one kind send the same hint. To combine flags takes microseconds."""


@lru_cache(_CACHED_HINTS)
def flags_of(hint: int | None, *, is_armored: bool) -> DcLocatorFlags:
    """Return the flags of a hint, or the default flags without a hint.

    The field has 32 bits, but its ASN.1 type is INTEGER. If the highest bit is set, some clients encode a
    negative number, and others 5 bytes. Unknown flags and contradictory flags are dropped, because a hint is
    advice and no reason to refuse a log-on.
    """
    flags = _WITHOUT_HINT if hint is None else DcLocatorFlags(hint & _FLAGS_MASK & _KNOWN)
    if _EXCLUSIVE in flags:
        flags &= ~_EXCLUSIVE
    # U: domain controllers before Windows Server 2012 do not support FAST ([MS-KILE] 3.2.5.3).
    return flags | DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED if is_armored else flags
