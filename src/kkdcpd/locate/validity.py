"""For how long something that was found may be used. Pure: times are those of the caller's clock."""

import math
from collections.abc import Iterable

from kkdcpd.frozen import frozen

__all__ = ["FOREVER", "Validity"]


@frozen
class Validity:
    """It holds until `expires`; from `recheck` on asking again may bring something newer."""

    recheck: float
    expires: float

    def earliest(self, others: Iterable["Validity"]) -> "Validity":
        """Return the validity of what was made of this and the others."""
        recheck, expires = self.recheck, self.expires
        for other in others:
            recheck, expires = min(recheck, other.recheck), min(expires, other.expires)
        return Validity(recheck=recheck, expires=expires)


FOREVER = Validity(recheck=math.inf, expires=math.inf)
"""What is configured holds for as long as we run."""
