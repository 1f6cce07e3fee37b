"""Answers of the DNS cache, and how long a result may be used. Pure: the caller's clock gives the times."""

import math
from collections.abc import Iterable
from typing import Generic, TypeVar

from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.records import Record

__all__ = ["FOREVER", "DnsAnswer", "Validity"]

_Record = TypeVar("_Record", bound=Record)


@frozen
class Validity:
    """The times until which a result may be used (`expires`), and from which on a new look-up makes sense."""

    recheck: float
    expires: float

    def earliest(self, others: Iterable["Validity"]) -> "Validity":
        """Return the validity of a result that is made of several parts."""
        recheck, expires = self.recheck, self.expires
        for other in others:
            recheck, expires = min(recheck, other.recheck), min(expires, other.expires)
        return Validity(recheck=recheck, expires=expires)


FOREVER = Validity(recheck=math.inf, expires=math.inf)
"""The validity of the configuration: it does not change while the process runs."""


@frozen
class DnsAnswer(Generic[_Record]):
    """The records of a name, or the reason why DNS gives no answer. Records with `is_stale` have expired."""

    records: tuple[_Record, ...] = ()
    validity: Validity
    is_stale: bool = False
    failure: DnsFailedError | None = None

    @property
    def part_validity(self) -> Validity:
        """The validity that this answer gives to a result made of several answers.

        Only records expire. An empty answer is looked up again, but its end does not invalidate the other
        answers.
        """
        return self.validity if self.records else Validity(recheck=self.validity.recheck, expires=math.inf)
