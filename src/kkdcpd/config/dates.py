"""Compares the validity dates of certificates and revocation lists with the clock.

A wrong clock must not keep the service down. So these problems fail `kkdcpd check`, and may refuse a reload,
but never a start.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import Word, frozen

__all__ = ["DatedItem", "DatedKind", "minute", "newly_outside_dates"]


class DatedKind(Word):
    """SERVER is a certificate of the server. CLIENT_CA and CLIENT_CRL verify certificates of clients."""

    SERVER = "server"
    CLIENT_CA = "client_ca"
    CLIENT_CRL = "client_crl"


_REMEDIES = {
    DatedKind.SERVER: "renew it",
    DatedKind.CLIENT_CA: "renew it, or remove it if no client has a certificate from it",
    DatedKind.CLIENT_CRL: "fetch the newest one; until then the certificates that it is for are refused",
}


@frozen
class DatedItem:
    """A certificate or revocation list in use. `subject` of a list is its issuer.

    An unreadable date is None, and so is the end of a list without a next update.
    """

    kind: DatedKind
    key: str
    path: Path
    subject: str
    names: tuple[str, ...] = ()
    start: datetime | None
    end: datetime | None

    def problem(self, now: datetime) -> ConfigProblem | None:
        """Return the problem if `now` is outside the dates."""
        if self.start and now < self.start:
            remedy = f"set this host's clock right (it says {minute(now)}), or wait"
            return self._problem(f"is not valid before {minute(self.start)}", remedy)
        if self.end and now > self.end:
            clock = f"set this host's clock right (it says {minute(now)})"
            return self._problem(f"expired on {minute(self.end)}", f"{_REMEDIES[self.kind]}; or {clock}")
        return None

    @property
    def identities(self) -> frozenset[object]:
        """The identities of the item. It equals an item of another configuration with a common identity."""
        if self.kind is DatedKind.SERVER:
            return frozenset({self.key, self.path})
        return frozenset({(self.kind, self.subject)})

    def _problem(self, words: str, remedy: str) -> ConfigProblem:
        return ConfigProblem(key=self.key, problem=f"{self._description} {words}", remedy=remedy)

    @property
    def _description(self) -> str:
        if self.kind is DatedKind.SERVER:
            return f"the certificate in {self.path}"
        noun = "certificate" if self.kind is DatedKind.CLIENT_CA else "revocation list"
        return f"the {noun} of {self.subject} in {self.path}"


def minute(when: datetime) -> str:
    """Return a time as an administrator reads it."""
    return f"{when:%Y-%m-%d %H:%M} UTC"


def newly_outside_dates(
    items: Sequence[DatedItem], current: Sequence[DatedItem], now: datetime
) -> tuple[ConfigProblem, ...]:
    """Return the problems of items outside their dates, unless the same current item is outside its dates."""
    known = {identity for item in current if item.problem(now) for identity in item.identities}
    found = ((item, item.problem(now)) for item in items)
    return tuple(problem for item, problem in found if problem and not known & item.identities)
