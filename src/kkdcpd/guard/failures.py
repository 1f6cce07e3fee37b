"""Counts failed log-ons by the replies of KDCs, and blocks the clients that they come from.

A block is for one client, or for one principal from one client's network or its wider networks. No principal
is blocked for all clients, and no wider network as a whole: no client can lock another user out through the
proxy. Each count and block is for one realm, so that the KDC of one realm cannot change the limits in another
realm. Within a window, the rules count:

- failures of one principal from one client, and from its wider networks (GUESSING);
- principals that failed from one client (SPRAYING) and unknown names (ENUMERATION), in relation to the
  principals that logged on from there: many users at one address mistype many passwords;
- errors of the password service per client, because its requests hide the principal (KPASSWD_FAILURES);
- clients from which one principal fails. This count is only logged.

A principal that fails twice counts once for SPRAYING, because GUESSING stops it. An unknown name counts once
for each spelling of it. Where the request hides or forges the name (FAST), no block of the name can stop the
next request: then each failure counts for the client.

Errors in reply to TGS-REQs with a ticket-granting ticket do not count. Such a TGS-REQ tries no password, and
its ticket shows a log-on. Any client can make up a ticket for a user, and encrypt it by the key that a
password makes. MIT's KDC says whether the user exists, and whether it is the user's key. So errors to
TGS-REQs with other tickets count for the service of the ticket.
"""

import enum
import math
from collections.abc import Iterator

from kkdcpd.config import FailuresConfig
from kkdcpd.frozen import frozen
from kkdcpd.guard.store import Block, Growth, Key, Store, Tally
from kkdcpd.guard.subject import Subject, find_spelling, find_subject, fold_named, hides_names
from kkdcpd.guard.traits import has_tgt, may_have_proof, proves_client
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.ip_addresses import networks_of
from kkdcpd.protocol.principals import fold_principal
from kkdcpd.values import MessageKind, Outcome, ProxyRequest, Refusal, ReplyFacts, Rule

__all__ = ["Alert", "Blocked", "FailureGate"]

_FAILURES = frozenset(
    {
        KrbErrorCode.KDC_ERR_PREAUTH_FAILED,
        KrbErrorCode.KDC_ERR_CLIENT_REVOKED,
        # Heimdal's KDC sends it for a wrong password within FAST, and for a malformed proof. KDCs send it for
        # a ticket, in a TGS-REQ or in FAST's armor, that its service's key does not decrypt.
        KrbErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
    }
)
_UNKNOWN = frozenset(
    {
        KrbErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN,
        KrbErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN,
        # MIT's KDC sends it for an unknown service of the ticket in FAST's armor.
        KrbErrorCode.KRB_AP_ERR_NOT_US,
    }
)
_SERVER_FAULTS = frozenset({KrbErrorCode.KDC_ERR_SVC_UNAVAILABLE})

_REASONS = (Rule.GUESSING, Rule.SPRAYING, Rule.ENUMERATION, Rule.KPASSWD_FAILURES)
"""The reason of a block is an index into this tuple."""

_TEXTS = {
    Rule.GUESSING: "logging on with this name failed too often from your network",
    Rule.SPRAYING: "logging on failed too often from your network",
    Rule.ENUMERATION: "your network requested too many unknown names",
    Rule.KPASSWD_FAILURES: "changing passwords failed too often from your network",
}

# The first parts of the keys of blocks.
_CLIENT, _KPASSWD, _PAIR = "blocked", "blocked_kpasswd", "blocked_principal"

DEPARTURE_SECONDS = 0.75
"""KDCs answer in milliseconds, and no honest client gives up earlier: MIT's client tries its next proxy after
a second."""

WIDER_MULTIPLES = (2, 4)
"""Multiples of `guesses` that may fail from a /56 and a /48. An IPv4 address is only in a /24, which has the
last multiple."""

GUESSES_PAST_A_BLOCK = 2
"""Failures that block a client as a whole if they get past a block of the name for its network. A single
failure may come from a user that mistypes a password once."""


class _Column(enum.IntEnum):
    """The columns of the tally of principals that log on from one client."""

    FAILED = 0
    SUCCEEDED = 1
    UNKNOWN = 2


class _Step(enum.IntEnum):
    """The columns of the tally of proofs for one principal: demanded by the KDC, and tickets granted."""

    DEMANDED = 0
    GRANTED = 1


@frozen
class Alert:
    """A principal failed from several clients. This is reported once in a window."""

    realm: str
    principal: str
    clients: int


@frozen
class Blocked:
    """A client is blocked for some seconds, as a whole or (GUESSING) for one principal.

    `client` is its network, or a wider network with GUESSING.
    """

    rule: Rule
    client: str
    realm: str
    principal: str | None
    seconds: float


class FailureGate:
    """The rules GUESSING, SPRAYING, ENUMERATION and KPASSWD_FAILURES.

    `check` finds blocks before a request goes to a KDC. `note` counts by the reply.
    """

    def __init__(self, config: FailuresConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._growth = Growth(first=config.block, longest=config.block_maximum, forgiven_after=config.window)

    def check(self, request: ProxyRequest, *, client: str, realm: str, now: float) -> Refusal | None:
        """Return the refusal of a blocked client. A TGS-REQ passes if its ticket shows a log-on."""
        if not self._store.has_blocks(now) or (request.kind is MessageKind.TGS_REQ and has_tgt(request)):
            return None
        block = self._store.blocked((_CLIENT, realm, client), now)
        if block is None:
            if request.kind is MessageKind.KPASSWD_REQ:
                block = self._store.blocked((_KPASSWD, realm, client), now)
            elif name := request.cname if request.kind is MessageKind.AS_REQ else request.ticket_sname:
                block = self._principal_block(fold_principal(name), client, realm, now)
        return _refusal(block) if block else None

    def _principal_block(self, name: str, client: str, realm: str, now: float) -> Block | None:
        for network in networks_of(client):
            block = self._store.blocked((_PAIR, realm, network, name), now)
            if block:
                return block
        return None

    def note(
        self, request: ProxyRequest, facts: ReplyFacts, *, client: str, realm: str, now: float
    ) -> tuple[Alert | Blocked, ...]:
        """Count what a reply says about the client."""
        if request.kind is MessageKind.KPASSWD_REQ:
            return self._note_kpasswd(facts, client, realm, now)
        if request.kind is MessageKind.TGS_REQ:
            is_logged_on = facts.error_code is None or has_tgt(request)
            return () if is_logged_on else self._note_error(request, facts, client, realm, now)
        if facts.kind is MessageKind.AS_REP:
            self._note_ticket(request, facts, client, realm, now)
            return ()
        if facts.error_code == KrbErrorCode.KDC_ERR_PREAUTH_REQUIRED:
            self._note_demand(request, facts, client, realm, now)
            return ()
        return self._note_error(request, facts, client, realm, now)

    def note_departure(
        self, request: ProxyRequest, *, client: str, realm: str, seconds: float, now: float
    ) -> tuple[Alert | Blocked, ...]:
        """Count a client that left without a reply, `seconds` after its request was passed on.

        The KDC may have counted the attempt all the same. So it counts as a failure here: otherwise a client
        could lock accounts by wrong proofs without waiting for the errors. A client that waited longer left
        because the KDC is slow.
        """
        if seconds >= DEPARTURE_SECONDS:
            return ()
        if request.kind is MessageKind.KPASSWD_REQ:
            return self._note_kpasswd_failure(client, realm, now)
        if request.kind is not MessageKind.AS_REQ or not may_have_proof(request):
            return ()
        return self._note_failure(find_subject(request), client, realm, now)

    def _note_ticket(
        self, request: ProxyRequest, facts: ReplyFacts, client: str, realm: str, now: float
    ) -> None:
        """Count a log-on if the client has proved itself: KDCs issue some tickets to any client.

        The name comes from the reply, because a request could show many names for one account.
        """
        name = fold_named(facts.cname)
        if name is None:
            return
        if proves_client(request, facts) or self._was_demanded(request, facts, client, realm, now):
            self._tally_logon(client, realm, name, _Column.SUCCEEDED, now)

    def _was_demanded(
        self, request: ProxyRequest, facts: ReplyFacts, client: str, realm: str, now: float
    ) -> bool:
        """Whether the KDC has demanded a proof from this principal within the window."""
        name = find_subject(request, facts).name
        if name is None:
            return False
        tally = self._tally(("proofs", realm, client, name), _Step.GRANTED, None, now)
        return tally.counts[_Step.DEMANDED] > 0

    def _note_demand(
        self, request: ProxyRequest, facts: ReplyFacts, client: str, realm: str, now: float
    ) -> None:
        """Note that the KDC demands a proof from this principal.

        Only log-ons with FAST and SPAKE need this note. If FAST hides the name and the KDC's errors name no
        client, the name comes from the request.
        """
        if not (request.is_armored or facts.offers_spake):
            return
        name = find_subject(request, facts).name
        if name is None and not hides_names(facts):
            name = fold_named(request.cname)
        if name is not None:
            self._tally(("proofs", realm, client, name), _Step.DEMANDED, None, now)

    def _note_error(
        self, request: ProxyRequest, facts: ReplyFacts, client: str, realm: str, now: float
    ) -> tuple[Alert | Blocked, ...]:
        if facts.error_code in _UNKNOWN:
            spelling = find_spelling(request, facts)
            return self._note_failed_logon(spelling, _Column.UNKNOWN, client, realm, now)
        if facts.error_code in _FAILURES:
            return self._note_failure(find_subject(request, facts), client, realm, now)
        return ()

    def _note_kpasswd(
        self, facts: ReplyFacts, client: str, realm: str, now: float
    ) -> tuple[Alert | Blocked, ...]:
        if facts.error_code is None or facts.error_code in _SERVER_FAULTS:
            return ()
        return self._note_kpasswd_failure(client, realm, now)

    def _note_kpasswd_failure(self, client: str, realm: str, now: float) -> tuple[Alert | Blocked, ...]:
        tally = self._tally(("kpasswd_failures", realm, client), 0, None, now)
        if tally.counts[0] < self._config.kpasswd_failures:
            return ()
        return self._block((_KPASSWD, realm, client), Rule.KPASSWD_FAILURES, now, client=client, realm=realm)

    def _note_failure(
        self, subject: Subject, client: str, realm: str, now: float
    ) -> tuple[Alert | Blocked, ...]:
        name = subject.name
        member = name if subject.is_shown else None
        events = self._note_failed_logon(member, _Column.FAILED, client, realm, now)
        if name is None:
            return events
        events += self._note_guess(name, client, realm, now, is_shown=subject.is_shown)
        clients = self._tally(("failing_clients", realm, name), 0, client, now)
        if clients.is_new and clients.counts[0] == self._config.alert_clients:
            events += (Alert(realm=realm, principal=name, clients=clients.counts[0]),)
        return events

    def _note_guess(
        self, name: str, client: str, realm: str, now: float, *, is_shown: bool
    ) -> tuple[Alert | Blocked, ...]:
        """Count a failure of the principal from the client and from the networks around it."""
        events: tuple[Alert | Blocked, ...] = ()
        of_client = 0
        for network, multiple in _guessing_networks(client):
            limit = self._config.guesses * multiple
            count = self._tally(("guesses", realm, network, name), 0, None, now).counts[0]
            of_client = of_client or count
            if count < limit:
                continue
            key = _PAIR, realm, network, name
            events += self._block(key, Rule.GUESSING, now, client=network, realm=realm, principal=name)
            if count > limit and of_client >= GUESSES_PAST_A_BLOCK and not is_shown:
                # The request got past the block of the name, and so would the next one.
                whole = _CLIENT, realm, client
                events += self._block(whole, Rule.GUESSING, now, client=client, realm=realm)
        return events

    def _note_failed_logon(
        self, member: str | None, column: _Column, client: str, realm: str, now: float
    ) -> tuple[Alert | Blocked, ...]:
        return self._judge(self._tally_logon(client, realm, member, column, now), client, realm, now)

    def _judge(self, tally: Tally, client: str, realm: str, now: float) -> tuple[Alert | Blocked, ...]:
        """Block the client if its failures exceed the limit that its log-ons allow.

        Failed and unknown names add up, each as a share of its limit: a client gains nothing by mixing them.
        """
        allowance = self._config.principals_per_success * tally.counts[_Column.SUCCEEDED]
        failed = tally.counts[_Column.FAILED] / (self._config.sprayed_principals + allowance)
        unknown = tally.counts[_Column.UNKNOWN] / (self._config.unknown_principals + allowance)
        if failed + unknown <= 1:
            return ()
        rule = Rule.SPRAYING if failed >= unknown else Rule.ENUMERATION
        return self._block((_CLIENT, realm, client), rule, now, client=client, realm=realm)

    def _tally_logon(self, client: str, realm: str, name: str | None, column: _Column, now: float) -> Tally:
        return self._tally(("logons", realm, client), column, name, now)

    def _tally(self, key: Key, column: int, member: str | None, now: float) -> Tally:
        return self._store.tally(key, column, member, window=self._config.window, now=now)

    def _block(
        self, key: Key, rule: Rule, now: float, *, client: str, realm: str, principal: str | None = None
    ) -> tuple[Alert | Blocked, ...]:
        seconds = self._store.block(key, _REASONS.index(rule), self._growth, now)
        if not seconds:
            return ()
        return (Blocked(rule=rule, client=client, realm=realm, principal=principal, seconds=seconds),)


def _guessing_networks(client: str) -> Iterator[tuple[str, int]]:
    """Yield the networks in which guesses at one principal add up, with their multiples of the limit."""
    first, *wider = networks_of(client)
    yield first, 1
    yield from zip(wider, WIDER_MULTIPLES[-len(wider) :], strict=False)


def _refusal(block: Block) -> Refusal:
    rule = _REASONS[block.reason]
    return Refusal(
        rule=rule,
        outcome=Outcome.REFUSED,
        text=f"{_TEXTS[rule]}; try again in {math.ceil(block.seconds)} s",
        retry_after=block.seconds,
    )
