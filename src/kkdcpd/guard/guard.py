"""The guard: puts every rule to a request and a reply, and does with what they find as their mode says.

Rules are in the modules beside; here is only their order. What is cheap to ask and tells most comes first.
"""

import contextlib
from collections.abc import Callable

from kkdcpd.config import Config, RealmConfig
from kkdcpd.frozen import frozen
from kkdcpd.guard.concurrency import Slots
from kkdcpd.guard.failures import Alert, Blocked, FailureGate
from kkdcpd.guard.policy import Finding, RealmPolicy, found
from kkdcpd.guard.rates import Rates
from kkdcpd.guard.store import Store
from kkdcpd.log.events import EventLogger
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.shared_memory.network_counts import NetworkCounts
from kkdcpd.values import ClientConnection, Mode, ProxyRequest, Refusal, ReplyFacts, Rule

__all__ = ["Guard", "Verdict"]

logger = EventLogger(__name__)


@frozen
class Verdict:
    """Why a request or reply is refused, if it is, and which rules would have refused it."""

    refusal: Refusal | None = None
    monitored: tuple[Rule, ...] = ()


GOOD = Verdict()


class Guard:
    """Decides who may pass.

    `store` is what it remembers, `requests` counts who is served now; `clock` is monotonic and shared by all
    workers.
    """

    def __init__(
        self, config: Config, store: Store, requests: NetworkCounts, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._clock = clock
        self._rates_mode = config.guard.rates.mode
        self._rates = Rates(config.guard.rates, store)
        self._slots = Slots(config.guard.rates, requests)
        self._failures_mode = config.guard.failures.mode
        self._failures = FailureGate(config.guard.failures, store)
        self._policies = {realm.name: RealmPolicy(realm) for realm in config.realms}

    def charge(self, client: ClientConnection) -> Verdict:
        """Charge the client for a request's head; say whether its network sends too many."""
        if self._rates_mode is Mode.OFF:
            return GOOD
        refusal = self._rates.check_client(client.network, now=self._clock())
        return _verdict([found(refusal, self._rates_mode)]) if refusal else GOOD

    def visit(self, client: ClientConnection) -> contextlib.AbstractContextManager[Verdict]:
        """Count a request of the client from its body to its response; say whether there are too many."""
        return _Visit(self.enter, self._slots.leave, client.network)

    def enter(self, network: str) -> Verdict:
        """Begin a visit."""
        refusal = self._slots.enter(network)
        if refusal is None or self._rates_mode is Mode.OFF:
            return GOOD
        return _verdict([found(refusal, self._rates_mode)])

    def admit(self, request: ProxyRequest, client: ClientConnection, realm: RealmConfig) -> Verdict:
        """Say whether the request may go to the realm's servers."""
        now = self._clock()
        policy = self._policies[realm.name]
        findings = [] if policy.is_open else policy.check_access(client)
        if self._failures_mode is not Mode.OFF:
            asked = _asked_realm(request, realm)
            block = self._failures.check(request, client=client.network, realm=asked, now=now)
            if block:
                findings.append(found(block, self._failures_mode))
        findings += policy.check_request(request)
        if self._rates_mode is not Mode.OFF and not (findings and any(each.is_enforced for each in findings)):
            shortage = self._rates.check_realm(realm.name, now=now)
            if shortage:
                findings.append(found(shortage, self._rates_mode))
        return _verdict(findings) if findings else GOOD

    def review(
        self, request: ProxyRequest, client: ClientConnection, realm: RealmConfig, facts: ReplyFacts
    ) -> Verdict:
        """Learn from a reply, and say whether the client may have it."""
        now = self._clock()
        asked = _asked_realm(request, realm)
        if self._failures_mode is not Mode.OFF:
            events = self._failures.note(
                request,
                facts,
                client=client.network,
                realm=asked,
                now=now,
            )
            for event in events:
                _tell(event, self._failures_mode)
        policy = self._policies[realm.name]
        findings = policy.check_reply(request, facts)
        many_services = policy.check_services(facts, asked, client.network, self._store, now)
        if many_services:
            findings.append(many_services)
        return _verdict(findings) if findings else GOOD

    def note_departure(
        self, request: ProxyRequest, client: ClientConnection, realm: RealmConfig, *, seconds: float
    ) -> None:
        """Learn that the client left, so many seconds after its request was passed on."""
        if self._failures_mode is Mode.OFF:
            return
        events = self._failures.note_departure(
            request,
            client=client.network,
            realm=_asked_realm(request, realm),
            seconds=seconds,
            now=self._clock(),
        )
        for event in events:
            _tell(event, self._failures_mode)


class _Visit(contextlib.AbstractContextManager[Verdict]):
    """A request, from its body to its response."""

    __slots__ = ("_enter", "_leave", "_network")

    def __init__(self, enter: Callable[[str], Verdict], leave: Callable[[str], None], network: str) -> None:
        self._enter = enter
        self._leave = leave
        self._network = network

    def __enter__(self) -> Verdict:
        return self._enter(self._network)

    def __exit__(self, *_error: object) -> None:
        self._leave(self._network)


def _asked_realm(request: ProxyRequest, realm: RealmConfig) -> str:
    """Return the name by which the realm is counted: realms of one wildcard have nothing in common."""
    return fold_realm(request.target_domain) if realm.is_wildcard else realm.name


def _verdict(findings: list[Finding]) -> Verdict:
    """Refuse by the first rule that is enforced; of those that aren't, tell."""
    return Verdict(
        refusal=next((finding.refusal for finding in findings if finding.is_enforced), None),
        monitored=tuple(finding.refusal.rule for finding in findings if not finding.is_enforced),
    )


def _tell(event: Alert | Blocked, mode: Mode) -> None:
    match event:
        case Alert(realm=realm, principal=principal, clients=clients):
            logger.warning("principal_under_attack", realm=realm, cname=principal, clients=clients)
        case Blocked(rule=rule, client=client, realm=realm, principal=principal, seconds=seconds):
            logger.warning(
                "client_blocked",
                rule=rule.value,
                client=client,
                realm=realm,
                seconds=round(seconds),
                cname=principal,
                mode=mode.value if mode is Mode.MONITOR else None,
            )
