"""The dclocator-hint: what a client asks of the KDC that its message goes to.

Only the reading of the hint lives here; who heeds its flags is the locator's business. It holds the Flags of
DsrGetDcNameEx2 ([MS-NRPC] 3.5.4.3.1), which [MS-KKDCP] 3.2.5.1 calls with it.
"""

from functools import lru_cache, reduce
from operator import or_

from kkdcpd.values import DcLocatorFlags

__all__ = ["flags_of"]

_WITHOUT_HINT = DcLocatorFlags.IP_REQUIRED | DcLocatorFlags.KDC_REQUIRED  # [MS-KKDCP] 3.2.5.1: G and H
# [MS-NRPC] 3.5.4.3.1: the name is a flat one, a DNS one, or it is not known which.
_EXCLUSIVE = DcLocatorFlags.IS_FLAT_NAME | DcLocatorFlags.IS_DNS_NAME
_KNOWN = reduce(or_, DcLocatorFlags)
_FLAGS_MASK = 0xFFFFFFFF
_CACHED_HINTS = 64
"""Clients of one kind send one hint; sets of flags take microseconds to put together."""


@lru_cache(_CACHED_HINTS)
def flags_of(hint: int | None, *, is_armored: bool) -> DcLocatorFlags:
    """Return the flags that a hint asks for, or those for no hint.

    The field is 32 bits wide, but ASN.1 knows only INTEGER: with the topmost bit set it is encoded as a
    negative number by some and in 5 octets by others. Flags we don't know are dropped, and so are two that
    exclude each other: a hint is advice, and no reason to refuse a login.
    """
    flags = _WITHOUT_HINT if hint is None else DcLocatorFlags(hint & _FLAGS_MASK & _KNOWN)
    if _EXCLUSIVE in flags:
        flags &= ~_EXCLUSIVE
    # U: DCs before Windows Server 2012 don't know FAST ([MS-KILE] 3.2.5.3).
    return flags | DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED if is_armored else flags
