"""Who fails to log in, as KDCs tell it in clear, and who is blocked for it. Plain code.

Only clients are blocked, or one principal for one client; never a principal for all: nobody can lock another
out through us. What is counted, in a window:

- failures of one principal from one client (GUESSING);
- principals that failed from one client (SPRAYING), and such as no KDC knows (ENUMERATION), beside those that
  logged in from there: where many people are, many mistype;
- errors of the password service, by client only, for its requests hide whose they are (KPASSWD_FAILURES);
- clients from which one principal fails: that is told, and nothing else.
"""

import enum
import math

from kkdcpd.config import FailuresConfig
from kkdcpd.frozen import frozen
from kkdcpd.guard.store import Block, Growth, Key, Store, Tally
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.principals import fold_principal
from kkdcpd.values import MessageKind, Outcome, ProxyRequest, Refusal, ReplyFacts, Rule

__all__ = ["Alert", "Blocked", "FailureGate"]

_FAILURES = frozenset({KrbErrorCode.KDC_ERR_PREAUTH_FAILED, KrbErrorCode.KDC_ERR_CLIENT_REVOKED})
_UNKNOWN = KrbErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN
_NOT_THE_CLIENTS_FAULT = frozenset({KrbErrorCode.KDC_ERR_SVC_UNAVAILABLE})

_REASONS = (Rule.GUESSING, Rule.SPRAYING, Rule.ENUMERATION, Rule.KPASSWD_FAILURES)
"""A block's reason is the index herein."""

_TEXTS = {
    Rule.GUESSING: "logging in by this name failed too often from your network",
    Rule.SPRAYING: "too many names failed to log in from your network",
    Rule.ENUMERATION: "too many unknown names tried to log in from your network",
    Rule.KPASSWD_FAILURES: "changing passwords failed too often from your network",
}

# Kinds of what is blocked.
_CLIENT, _KPASSWD, _PAIR = "blocked", "blocked_kpasswd", "blocked_principal"

DEPARTURE_SECONDS = 0.75
"""KDCs answer in milliseconds, and no client gives up so soon: MIT's asks its next proxy after a second."""


class _Column(enum.IntEnum):
    """Of the tally of those who log in from one client."""

    FAILED = 0
    SUCCEEDED = 1
    UNKNOWN = 2


@frozen
class Alert:
    """A principal failed from so many clients. This is told once in a window."""

    realm: str
    principal: str
    clients: int


@frozen
class Blocked:
    """A client has been blocked for so many seconds, as a whole or (GUESSING) for one principal."""

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
        """Tell whether the client is blocked. A TGS-REQ passes: its ticket says that somebody logged in."""
        if request.kind is MessageKind.TGS_REQ:
            return None
        block = self._store.blocked((_CLIENT, client), now)
        if block is None:
            if request.kind is MessageKind.KPASSWD_REQ:
                block = self._store.blocked((_KPASSWD, client), now)
            elif request.cname is not None:
                name = fold_principal(request.cname, realm)
                block = self._store.blocked((_PAIR, client, realm, name), now)
        return _refusal(block) if block else None

    def note(
        self,
        request: ProxyRequest,
        facts: ReplyFacts,
        *,
        client: str,
        realm: str,
        has_proof: bool,
        now: float,
    ) -> tuple[Alert | Blocked, ...]:
        """Learn from a reply. `has_proof` tells whether the request bore a proof of who sent it.

        Who has logged in is taken from the reply: what a request with FAST says in clear may be a lie, by
        which one account could pass for many.
        """
        if request.kind is MessageKind.KPASSWD_REQ:
            return self._note_kpasswd(facts, client, realm, now)
        if request.kind is not MessageKind.AS_REQ:
            return ()
        if facts.kind is MessageKind.AS_REP:
            if has_proof and facts.cname is not None:
                name = fold_principal(facts.cname, realm)
                self._tally_login(client, realm, name, _Column.SUCCEEDED, now)
            return ()
        if request.cname is None:
            return ()
        return self._note_error(facts, client, realm, fold_principal(request.cname, realm), now)

    def note_departure(
        self, request: ProxyRequest, *, client: str, realm: str, has_proof: bool, seconds: float, now: float
    ) -> tuple[Alert | Blocked, ...]:
        """Learn that a client left, so many seconds after its request was passed on and without a reply.

        What it tried may have counted at a KDC all the same: it counts here as if it had failed, or accounts
        could be locked out by proofs whose failing nobody sees. Who waits longer has a slow KDC before it.
        """
        if seconds >= DEPARTURE_SECONDS:
            return ()
        if request.kind is MessageKind.KPASSWD_REQ:
            return self._note_kpasswd_failure(client, realm, now)
        if request.kind is not MessageKind.AS_REQ or request.cname is None or not has_proof:
            return ()
        return self._note_failure(client, realm, fold_principal(request.cname, realm), now)

    def _note_error(
        self, facts: ReplyFacts, client: str, realm: str, name: str, now: float
    ) -> tuple[Alert | Blocked, ...]:
        if facts.error_code == _UNKNOWN:
            tally = self._tally_login(client, realm, name, _Column.UNKNOWN, now)
            return self._judge(tally, client, realm, now)
        if facts.error_code in _FAILURES:
            return self._note_failure(client, realm, name, now)
        return ()

    def _note_kpasswd(
        self, facts: ReplyFacts, client: str, realm: str, now: float
    ) -> tuple[Alert | Blocked, ...]:
        if facts.error_code is None or facts.error_code in _NOT_THE_CLIENTS_FAULT:
            return ()
        return self._note_kpasswd_failure(client, realm, now)

    def _note_kpasswd_failure(self, client: str, realm: str, now: float) -> tuple[Alert | Blocked, ...]:
        tally = self._tally(("kpasswd_failures", client), 0, None, now)
        if tally.counts[0] < self._config.kpasswd_failures:
            return ()
        return self._block((_KPASSWD, client), Rule.KPASSWD_FAILURES, now, client=client, realm=realm)

    def _note_failure(self, client: str, realm: str, name: str, now: float) -> tuple[Alert | Blocked, ...]:
        events = self._judge(self._tally_login(client, realm, name, _Column.FAILED, now), client, realm, now)
        guesses = self._tally(("guesses", client, realm, name), 0, None, now)
        if guesses.counts[0] >= self._config.guesses:
            key = _PAIR, client, realm, name
            events += self._block(key, Rule.GUESSING, now, client=client, realm=realm, principal=name)
        clients = self._tally(("failing_clients", realm, name), 0, client, now)
        if clients.is_new and clients.counts[0] == self._config.alert_clients:
            events += (Alert(realm=realm, principal=name, clients=clients.counts[0]),)
        return events

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
        return self._block((_CLIENT, client), rule, now, client=client, realm=realm)

    def _tally_login(self, client: str, realm: str, name: str, column: _Column, now: float) -> Tally:
        member = f"{realm}\0{name}"
        return self._store.tally(("logins", client), column, member, window=self._config.window, now=now)

    def _tally(self, key: Key, column: int, member: str | None, now: float) -> Tally:
        return self._store.tally(key, column, member, window=self._config.window, now=now)

    def _block(
        self, key: Key, rule: Rule, now: float, *, client: str, realm: str, principal: str | None = None
    ) -> tuple[Alert | Blocked, ...]:
        seconds = self._store.block(key, _REASONS.index(rule), self._growth, now)
        if not seconds:
            return ()
        return (Blocked(rule=rule, client=client, realm=realm, principal=principal, seconds=seconds),)


def _refusal(block: Block) -> Refusal:
    rule = _REASONS[block.reason]
    return Refusal(
        rule=rule,
        outcome=Outcome.REFUSED,
        text=f"{_TEXTS[rule]}; try again in {math.ceil(block.seconds)} s",
        retry_after=block.seconds,
    )
