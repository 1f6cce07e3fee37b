"""Notes the host that took a user's password change, so that the user's next log-on prefers this host.

Masters of one realm may replicate more slowly than a user logs on, and only the host that took the change
knows the new password. A kpasswd message hides its user but shows its ticket. The reply that issued this
ticket names the user, so the user of each ticket for kadmin/changepw is noted. If FAST hides the user, the
client's network replaces the user. Then only requests that hide their user prefer the host.

All worker processes share the notes. They hold keyed digests and no names.
"""

from collections.abc import Callable, Iterable

from kkdcpd.protocol.principals import fold_principal, is_anonymous
from kkdcpd.shared_memory.notes import Notes
from kkdcpd.upstream.choice import host_mark
from kkdcpd.values import KdcReply, MessageKind, PrincipalName, ProxyRequest, ReplyFacts

__all__ = ["TICKET_SECONDS", "PasswordChanges"]

TICKET_SECONDS = 600.0
"""The life of a note about a ticket for kadmin/changepw. MIT issues these tickets for ten minutes, Active
Directory for less."""

_CHANGEPW = ("kadmin", "changepw")
"""The service of RFC 3244 section 2."""

_OWNERS = range(2)
"""A ticket has at most two owners: the user as requested, and the user as the KDC names it (RFC 6806 6)."""


class PasswordChanges:
    """Learns from replies, and prefers a host for `seconds` after a change; 0 turns this off."""

    def __init__(self, notes: Notes, seconds: float, clock: Callable[[], float]) -> None:
        self._notes = notes
        self._seconds = seconds
        self._clock = clock

    def host_for(self, request: ProxyRequest, realm: str, network: str) -> int | None:
        """Return the mark of the preferred host if the password of the request's user changed lately."""
        now = self._clock()
        if not self._seconds or self._notes.is_empty(now):
            return None
        owners: Iterable[int] = ()
        if request.kind is MessageKind.AS_REQ:
            owners = (self._owner(request.cname, realm, network),)
        elif request.kind is MessageKind.KPASSWD_REQ:
            owners = self._owners_of_ticket(request.affinity, realm, now)
        hosts = (self._notes.read(owner, now) for owner in owners)
        return next((host for host in hosts if host is not None), None)

    def learn(self, request: ProxyRequest, reply: KdcReply, realm: str, network: str) -> None:
        """Note a ticket that can change a password, or the host that took a change.

        The result of a change is encrypted. So a refused change counts too, which does no harm.
        """
        facts = reply.facts
        if not self._seconds:
            return
        if facts.ticket_affinity is not None and facts.sname and facts.sname.components == _CHANGEPW:
            self._note_ticket(facts.ticket_affinity, self._owners(request, facts, realm, network), realm)
        elif facts.kind is MessageKind.KPASSWD_REP and facts.error_code is None:
            now = self._clock()
            for owner in self._owners_of_ticket(request.affinity, realm, now):
                self._notes.write(owner, host_mark(reply.endpoint), now + self._seconds)

    def _note_ticket(self, mark: int, owners: Iterable[int], realm: str) -> None:
        ends = self._clock() + TICKET_SECONDS
        for number, owner in zip(_OWNERS, owners, strict=False):
            self._notes.write(self._ticket(mark, number, realm), owner, ends)

    def _owners(self, request: ProxyRequest, facts: ReplyFacts, realm: str, network: str) -> tuple[int, ...]:
        """Return the keys of a ticket's owner, one for each name that the next log-on may use."""
        owners = [self._owner(facts.cname, realm, network)]
        if request.kind is MessageKind.AS_REQ:
            owners.append(self._owner(request.cname, realm, network))
        return tuple(dict.fromkeys(owners))

    def _owners_of_ticket(self, mark: int, realm: str, now: float) -> list[int]:
        owners = [self._notes.read(self._ticket(mark, number, realm), now) for number in _OWNERS]
        return [owner for owner in owners if owner is not None]

    def _owner(self, name: PrincipalName | None, realm: str, network: str) -> int:
        if name is None or is_anonymous(name):
            return self._notes.key("network", realm, network)
        return self._notes.key("user", realm, fold_principal(name))

    def _ticket(self, mark: int, number: int, realm: str) -> int:
        return self._notes.key("ticket", realm, str(mark), str(number))
