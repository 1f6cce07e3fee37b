"""Applies every rule to a request and its reply, and refuses or only reports by the mode of the broken rule.

The rules are in the modules beside this one. This module sets their order: cheap and decisive rules first.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from kkdcpd.config import Config, RealmConfig
from kkdcpd.frozen import frozen
from kkdcpd.guard.failures import Alert, Blocked, FailureGate
from kkdcpd.guard.limits import ConcurrencyLimit, RequestRates
from kkdcpd.guard.policy import Finding, RealmPolicy, found
from kkdcpd.guard.store import Store
from kkdcpd.log.events import EventLogger
from kkdcpd.protocol.ip_addresses import limited_networks
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.shared_memory.network_counts import NetworkCounts
from kkdcpd.values import ClientConnection, Mode, ProxyRequest, Refusal, ReplyFacts, Rule

__all__ = ["Guard", "Verdict"]

logger = EventLogger(__name__)


@frozen
class Verdict:
    """The refusal of a request or reply, if there is one, and the broken rules in monitor mode."""

    refusal: Refusal | None = None
    monitored: tuple[Rule, ...] = ()


GOOD = Verdict()


class Guard:
    """Decides which requests and replies pass.

    `store` holds the counts and blocks, `requests` counts the requests in flight. All worker processes share
    both, and a monotonic `clock`.
    """

    def __init__(
        self, config: Config, store: Store, requests: NetworkCounts, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._clock = clock
        self._rates_mode = config.guard.rates.mode
        self._rates = RequestRates(config.guard.rates, store)
        self._concurrency = ConcurrencyLimit(config.guard.rates, requests)
        self._failures_mode = config.guard.failures.mode
        self._failures = FailureGate(config.guard.failures, store)
        self._policies = {realm.name: RealmPolicy(realm) for realm in config.realms}

    def check_rate(self, client: ClientConnection) -> Verdict:
        """Count the head of a request, and judge the rate of the client's network."""
        if self._rates_mode is Mode.OFF:
            return GOOD
        refusal = self._rates.check_client(client.network, now=self._clock())
        return _verdict([found(refusal, self._rates_mode)]) if refusal else GOOD

    def in_flight(self, client: ClientConnection) -> AbstractContextManager[Verdict]:
        """Count a request in flight while the context lasts, and judge the number of requests in flight."""
        return _InFlight(self._concurrency, self._rates_mode, client.network)

    def admit(self, request: ProxyRequest, client: ClientConnection, realm: RealmConfig) -> Verdict:
        """Judge a request before it goes to the realm's servers."""
        now = self._clock()
        policy = self._policies[realm.name]
        findings = [] if policy.is_open else policy.check_access(client)
        if self._failures_mode is not Mode.OFF:
            counted = policy.counted_as or fold_realm(request.target_domain)
            block = self._failures.check(request, client=client.network, realm=counted, now=now)
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
        """Count what a reply says about the client, and judge the reply before the client gets it."""
        now = self._clock()
        policy = self._policies[realm.name]
        counted = policy.counted_as or fold_realm(request.target_domain)
        if self._failures_mode is not Mode.OFF:
            for event in self._failures.note(request, facts, client=client.network, realm=counted, now=now):
                _log(event, self._failures_mode)
        findings = policy.check_reply(request, facts)
        many_services = policy.check_services(facts, counted, client.network, self._store, now)
        if many_services:
            findings.append(many_services)
        return _verdict(findings) if findings else GOOD

    def note_departure(
        self, request: ProxyRequest, client: ClientConnection, realm: RealmConfig, *, seconds: float
    ) -> None:
        """Count a client that left without its reply, `seconds` after its request was passed on."""
        if self._failures_mode is Mode.OFF:
            return
        counted = self._policies[realm.name].counted_as or fold_realm(request.target_domain)
        events = self._failures.note_departure(
            request, client=client.network, realm=counted, seconds=seconds, now=self._clock()
        )
        for event in events:
            _log(event, self._failures_mode)


class _InFlight(AbstractContextManager[Verdict]):
    """A request in flight."""

    __slots__ = ("_limit", "_mode", "_networks")

    def __init__(self, limit: ConcurrencyLimit, mode: Mode, network: str) -> None:
        self._limit = limit
        self._mode = mode
        self._networks = limited_networks(network)

    def __enter__(self) -> Verdict:
        refusal = self._limit.enter(self._networks)
        if refusal is None or self._mode is Mode.OFF:
            return GOOD
        return _verdict([found(refusal, self._mode)])

    def __exit__(self, *_error: object) -> None:
        self._limit.leave(self._networks)


def _verdict(findings: list[Finding]) -> Verdict:
    """Refuse by the first enforced rule, and name the rules in monitor mode."""
    return Verdict(
        refusal=next((finding.refusal for finding in findings if finding.is_enforced), None),
        monitored=tuple(finding.refusal.rule for finding in findings if not finding.is_enforced),
    )


def _log(event: Alert | Blocked, mode: Mode) -> None:
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
