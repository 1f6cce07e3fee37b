"""Counts failed log-ons by what KDCs say in clear, and blocks the clients that they come from.

Only clients are blocked, or one principal for one client or its wider networks. No principal is blocked for
all clients, and no wider network as a whole: nobody can lock another user out through the proxy. Each count
and block is for one realm, so that no realm's KDC can change what another realm's clients may do. In a window
are counted:

- failures of one principal from one client, and from its wider networks (GUESSING);
- principals that failed from one client (SPRAYING), and names that the KDC doesn't know (ENUMERATION), beside
  the principals that logged on from there: where many people are, many mistype;
- errors of the password service, by client only, for its requests hide the principal (KPASSWD_FAILURES);
- clients from which one principal fails: that is logged, and nothing else.

A principal that fails twice counts once for SPRAYING, as GUESSING stops it. Where the request hides or forges
the name (FAST), no block of the name can stop the next request: then each failure counts for the client.
"""

import enum
import math
from collections.abc import Iterator

from kkdcpd.config import FailuresConfig
from kkdcpd.frozen import frozen
from kkdcpd.guard.store import Block, Growth, Key, Store, Tally
from kkdcpd.guard.subject import Subject, find_subject, fold_named, hides_names
from kkdcpd.guard.traits import may_bear_proof, proves_client
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.ip_addresses import networks_of
from kkdcpd.protocol.principals import fold_principal
from kkdcpd.values import MessageKind, Outcome, ProxyRequest, Refusal, ReplyFacts, Rule

__all__ = ["Alert", "Blocked", "FailureGate"]

_FAILURES = frozenset(
    {
        KrbErrorCode.KDC_ERR_PREAUTH_FAILED,
        KrbErrorCode.KDC_ERR_CLIENT_REVOKED,
        # What Heimdal's KDC says of a wrong password within FAST, and of a malformed proof.
        KrbErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
    }
)
_UNKNOWN = frozenset({KrbErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN, KrbErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN})
_NOT_THE_CLIENTS_FAULT = frozenset({KrbErrorCode.KDC_ERR_SVC_UNAVAILABLE})

_REASONS = (Rule.GUESSING, Rule.SPRAYING, Rule.ENUMERATION, Rule.KPASSWD_FAILURES)
"""A block's reason is the index herein."""

_TEXTS = {
    Rule.GUESSING: "logging in by this name failed too often from your network",
    Rule.SPRAYING: "logging in failed too often from your network",
    Rule.ENUMERATION: "too many unknown names were asked for from your network",
    Rule.KPASSWD_FAILURES: "changing passwords failed too often from your network",
}

# Kinds of what is blocked.
_CLIENT, _KPASSWD, _PAIR = "blocked", "blocked_kpasswd", "blocked_principal"

DEPARTURE_SECONDS = 0.75
"""KDCs answer in milliseconds, and no client gives up so soon: MIT's asks its next proxy after a second."""


WIDER_MULTIPLES = (2, 4)
"""How many times `guesses` may fail from the first and the last of a client's surrounding networks. An IPv4
address has only the last, its /24."""

GUESSES_PAST_A_BLOCK = 2
"""So many failures block a client as a whole if they get past a block of the name for its network. One may be
a stranger's, who mistypes a password once."""


class _Column(enum.IntEnum):
    """The columns of the tally of principals that log on from one client."""

    FAILED = 0
    SUCCEEDED = 1
    UNKNOWN = 2


class _Step(enum.IntEnum):
    """The columns of the tally of one principal's way to a ticket."""

    DEMANDED = 0
    GRANTED = 1


@frozen
class Alert:
    """A principal failed from so many clients. This is told once in a window."""

    realm: str
    principal: str
    clients: int


@frozen
class Blocked:
    """A client has been blocked for so many seconds, as a whole or (GUESSING) for one principal.

    `client` is its network, or with GUESSING perhaps a wider one.
    """

    rule: Rule
    client: str
    realm: str
    principal: str | None
    seconds: float


class FailureGate:
    """The rules GUESSING, SPRAYING, ENUMERATION and KPASSWD_FAILURES.

    `check` tells who is blocked, before a request goes to a KDC; `note` learns from what came of it.
    """

    def __init__(self, config: FailuresConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._growth = Growth(first=config.block, longest=config.block_maximum, forgiven_after=config.window)

    def check(self, request: ProxyRequest, *, client: str, realm: str, now: float) -> Refusal | None:
        """Return why the client is blocked. A TGS-REQ passes: its ticket shows that its user logged on."""
        if request.kind is MessageKind.TGS_REQ:
            return None
        block = self._store.blocked((_CLIENT, realm, client), now)
        if block is None:
            if request.kind is MessageKind.KPASSWD_REQ:
                block = self._store.blocked((_KPASSWD, realm, client), now)
            elif request.cname is not None:
                block = self._principal_block(fold_principal(request.cname), client, realm, now)
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
        """Learn from a reply."""
        if request.kind is MessageKind.KPASSWD_REQ:
            return self._note_kpasswd(facts, client, realm, now)
        if request.kind is not MessageKind.AS_REQ:
            return ()
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
        """Learn that a client left, so many seconds after its request was passed on and without a reply.

        What it tried may have counted at a KDC all the same: it counts here as if it had failed, or accounts
        could be locked out by proofs whose failing nobody sees. Who waits longer has a slow KDC before it.
        """
        if seconds >= DEPARTURE_SECONDS:
            return ()
        if request.kind is MessageKind.KPASSWD_REQ:
            return self._note_kpasswd_failure(client, realm, now)
        if request.kind is not MessageKind.AS_REQ or not may_bear_proof(request):
            return ()
        return self._note_failure(find_subject(request), client, realm, now)

    def _note_ticket(
        self, request: ProxyRequest, facts: ReplyFacts, client: str, realm: str, now: float
    ) -> None:
        """Count a log-on if the client is known to have proved it, for some tickets are issued to anybody.

        The name is the reply's: by the request's own words one account could pass for many.
        """
        name = fold_named(facts.cname)
        if name is None:
            return
        if proves_client(request, facts) or self._was_demanded(request, facts, client, realm, now):
            self._tally_logon(client, realm, name, _Column.SUCCEEDED, now)

    def _was_demanded(
        self, request: ProxyRequest, facts: ReplyFacts, client: str, realm: str, now: float
    ) -> bool:
        """Whether the KDC has refused this principal a ticket without a proof, within the window."""
        name = find_subject(request, facts).name
        if name is None:
            return False
        tally = self._tally(("proofs", realm, client, name), _Step.GRANTED, None, now)
        return tally.counts[_Step.DEMANDED] > 0

    def _note_demand(
        self, request: ProxyRequest, facts: ReplyFacts, client: str, realm: str, now: float
    ) -> None:
        """Note that the KDC issues no ticket for this principal without a proof, if that may be asked for.

        It is for log-ons with FAST and SPAKE. Where FAST hides the name and the KDC's errors name no client,
        the name is the request's.
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
            subject = find_subject(request, facts)
            return self._note_failed_logon(subject, _Column.UNKNOWN, client, realm, now)
        if facts.error_code in _FAILURES:
            return self._note_failure(find_subject(request, facts), client, realm, now)
        return ()

    def _note_kpasswd(
        self, facts: ReplyFacts, client: str, realm: str, now: float
    ) -> tuple[Alert | Blocked, ...]:
        if facts.error_code is None or facts.error_code in _NOT_THE_CLIENTS_FAULT:
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
        events = self._note_failed_logon(subject, _Column.FAILED, client, realm, now)
        name = subject.name
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
        self, subject: Subject, column: _Column, client: str, realm: str, now: float
    ) -> tuple[Alert | Blocked, ...]:
        member = subject.name if subject.is_shown else None
        return self._judge(self._tally_logon(client, realm, member, column, now), client, realm, now)

    def _judge(self, tally: Tally, client: str, realm: str, now: float) -> tuple[Alert | Blocked, ...]:
        """Block the client if those who fail have no fair share beside those who log in.

        What failed and what is unknown add up, each as a share of its limit: who mixes them gains nothing.
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
