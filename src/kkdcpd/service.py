"""Reports readiness and `/status` to the administrator. Nothing in it is about a client.

It locates realms in the same way as a request does. The health of KDCs is what requests of the worker
processes found.
"""

import asyncio
import datetime
from collections.abc import Mapping

import kkdcpd
from kkdcpd.config import Config, DatedItem, RealmConfig
from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.errors import LocateError
from kkdcpd.locate.locator import Locator
from kkdcpd.metrics.columns import CONNECTIONS_OPEN, REQUESTS_IN_FLIGHT
from kkdcpd.metrics.exposition import ServiceFacts
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.process_messages import ReloadResult
from kkdcpd.values import Candidate, DcLocatorFlags, KdcService, KdcState, LocateQuery

__all__ = ["Service"]

LOCATE_SECONDS = 2.5
"""The time for locating all realms. `kkdcpd healthcheck` and most load balancers wait for 3 s."""

LOCATES_AT_A_TIME = 16

_NO_FLAGS = DcLocatorFlags(0)

_States = Mapping[KdcEndpoint, KdcState]


class Service:
    """Describes the service. Make it in a running event loop."""

    def __init__(self, config: Config, locator: Locator, reader: MetricsReader, facts: ServiceFacts) -> None:
        self._config = config
        self._locator = locator
        self._reader = reader
        self._facts = facts
        self._locate_slots = asyncio.Semaphore(LOCATES_AT_A_TIME)

    async def reasons_against(self) -> list[str]:
        """Return the reasons why the service is not ready, one line each. There are none if it is ready."""
        status = self._facts.status
        reasons = []
        if status.is_draining:
            reasons.append("the service drains: it finishes the requests in flight, and ends")
        if not status.workers_ready:
            reasons.append("no worker process is ready")
        realms = self._config.admin.ready_realms
        states = self._reader.kdc_states() if realms else {}
        found = await self._locate_all([(name, KdcService.KDC) for name in realms])
        for (name, _), candidates in found.items():
            if isinstance(candidates, str):
                reasons.append(f"{name}: {candidates}")
            elif all(_state(each, states) is KdcState.DOWN for each in candidates):
                reasons.append(f"{name}: all KDCs are down: {', '.join(_name(each) for each in candidates)}")
        return reasons

    async def describe(self) -> dict[str, object]:
        """Return all facts in types that JSON has. docs/metrics.md documents the fields."""
        status = self._facts.status
        reasons = await self.reasons_against()
        return {
            "version": kkdcpd.__version__,
            "ready": not reasons,
            "reasons": reasons,
            "started": _moment(status.started_at),
            "draining": status.is_draining,
            "generation": status.generation,
            "workers": {"ready": status.workers_ready, "wanted": status.workers_wanted},
            "last_reload": status.last_reload and _reload(status.last_reload),
            "connections": {
                "open": self._reader.value(CONNECTIONS_OPEN),
                "maximum": self._config.connections.maximum,
            },
            "requests_in_flight": self._reader.value(REQUESTS_IN_FLIGHT),
            "certificates": [_certificate(item) for item in self._facts.dated],
            "realms": await self._realms(),
        }

    async def _realms(self) -> dict[str, object]:
        listed = [realm for realm in self._config.realms if not realm.is_wildcard]
        found = await self._locate_all([(realm.name, service) for realm in listed for service in KdcService])
        states = self._reader.kdc_states()

        def servers(realm: RealmConfig, service: KdcService) -> object:
            candidates = found[realm.name, service]
            if isinstance(candidates, str):
                return {"error": candidates}
            return [_server(each, states) for each in candidates]

        return {
            realm.name: {
                "discovery": realm.discovery,
                # The clients choose the realms that a wildcard stands for.
                **({} if realm.is_wildcard else {each.value: servers(realm, each) for each in KdcService}),
            }
            for realm in self._config.realms
        }

    async def _locate_all(
        self, wanted: list[tuple[str, KdcService]]
    ) -> dict[tuple[str, KdcService], tuple[Candidate, ...] | str]:
        """Return the candidates of each realm and service, or the reason why there are none."""
        deadline = asyncio.get_running_loop().time() + LOCATE_SECONDS
        found = await asyncio.gather(*(self._locate(name, service, deadline) for name, service in wanted))
        return dict(zip(wanted, found, strict=True))

    async def _locate(self, name: str, service: KdcService, deadline: float) -> tuple[Candidate, ...] | str:
        query = LocateQuery(target_domain=name, service=service, flags=_NO_FLAGS)
        try:
            async with asyncio.timeout_at(deadline), self._locate_slots:
                return (await self._locator.locate(query)).candidates
        except LocateError as error:
            return " ".join(str(error).split())
        except TimeoutError:
            return f"not located within {LOCATE_SECONDS:g} s"


def _state(candidate: Candidate, states: _States) -> KdcState:
    return states.get(candidate.endpoint, KdcState.UNKNOWN)


def _name(candidate: Candidate) -> str:
    return f"{candidate.endpoint} ({candidate.endpoint.address})"


def _server(candidate: Candidate, states: _States) -> dict[str, str]:
    return {
        "kdc": str(candidate.endpoint),
        "address": candidate.endpoint.address,
        "state": _state(candidate, states).value,
        "source": candidate.source,
    }


def _reload(result: ReloadResult) -> dict[str, object]:
    return {"at": _moment(result.at), "ok": result.is_ok, "problems": list(result.problems)}


def _certificate(item: DatedItem) -> dict[str, object]:
    now = datetime.datetime.now(datetime.UTC)
    problem = item.problem(now)
    return {
        "setting": item.key,
        "file": str(item.path),
        "kind": item.kind.value,
        "subject": item.subject,
        "names": list(item.names),
        "begins": item.start and _moment(item.start.timestamp()),
        "expires": item.end and _moment(item.end.timestamp()),
        "seconds_left": item.end and round((item.end - now).total_seconds()),
        "valid": problem is None,
        "problem": problem and f"{problem.problem}; {problem.remedy}",
    }


def _moment(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
