"""Reports the state of the service: to its processes, to systemd, to the log and to the metrics."""

import time
from collections.abc import Iterable, Sequence

import kkdcpd
from kkdcpd.config import Config
from kkdcpd.errors import ConfigProblem
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.memory import RELOADS_FAILED, RELOADS_OK, Metrics
from kkdcpd.process_messages import ReloadResult, ServiceStatus
from kkdcpd.supervisor.children import Children
from kkdcpd.supervisor.generation import Generation
from kkdcpd.supervisor.generations import Generations
from kkdcpd.supervisor.roles import ADMIN, WORKER
from kkdcpd.supervisor.sockets import Sockets
from kkdcpd.supervisor.systemd import Notifier

__all__ = ["StatusReporter", "log_warnings"]

logger = EventLogger(__name__)

UNCLAIMED_ADVICE = (
    "systemd opened it, and no [[listen]] has this address: add one that has, or remove ListenStream= from "
    "the .socket unit"
)


class StatusReporter:
    """Knows the state of the service, and reports its changes."""

    def __init__(
        self, generations: Generations, children: Children, notifier: Notifier, metrics: Metrics
    ) -> None:
        self._generations = generations
        self._children = children
        self._notifier = notifier
        self._metrics = metrics
        self._started_at = time.time()
        self._last_reload: ReloadResult | None = None
        self._published: ServiceStatus | None = None

    def current(self) -> ServiceStatus:
        """Return the present state."""
        serving = self._generations.serving
        workers = serving.workers if serving else []
        return ServiceStatus(
            generation=serving.number if serving else self._generations.last_number,
            workers_ready=sum(slot.child is not None and slot.child.is_ready for slot in workers),
            workers_wanted=len(workers),
            started_at=self._started_at,
            is_draining=self._generations.is_stopping,
            last_reload=self._last_reload,
        )

    def publish(self) -> None:
        """Send the state to the child processes if it has changed."""
        status = self.current()
        if status != self._published:
            self._published = status
            self._children.send(status)

    def serving(self, generation: Generation, sockets: Sockets, *, is_reload: bool) -> None:
        """Report that a generation serves."""
        fields = _serving_fields(generation)
        if is_reload:
            self._record_reload(())
            logger.info("reloaded", **fields)
        else:
            logger.info("ready", **fields)
        for address in sockets.unclaimed():
            logger.error("socket_unclaimed", address=address, advice=UNCLAIMED_ADVICE)
        for problem in sockets.unreachable():
            logger.error("socket_unreachable", problem=problem)
        self._notifier.ready(_summary(generation))

    def reloading(self) -> None:
        """Report that a reload begins."""
        self._notifier.reloading()

    def reload_failed(self, serving: Generation, problems: Sequence[ConfigProblem]) -> None:
        """Report why a reload has changed nothing."""
        for problem in problems:
            logger.error(
                "reload_failed",
                key=problem.key or None,
                problem=problem.problem,
                remedy=problem.remedy or None,
            )
        self._record_reload(tuple(map(str, problems)))
        self._notifier.ready(f"{_summary(serving)}; the last reload failed")

    def stopping(self) -> None:
        """Report that the service ends."""
        logger.info("stopping")
        self._notifier.stopping("finishing what is in flight")

    def _record_reload(self, problems: tuple[str, ...]) -> None:
        self._last_reload = ReloadResult(at=time.time(), is_ok=not problems, problems=problems)
        self._metrics.add(RELOADS_FAILED if problems else RELOADS_OK)


def log_warnings(problems: Iterable[ConfigProblem]) -> None:
    """Log problems that the administrator should correct, although the service runs."""
    for problem in problems:
        logger.warning("config_warning", key=problem.key, problem=problem.problem, remedy=problem.remedy)


def _serving_fields(generation: Generation) -> dict[str, object]:
    return {
        "version": kkdcpd.__version__,
        "generation": generation.number,
        "workers": len(generation.workers),
        "listen": _urls(generation, WORKER.name),
        "admin": _urls(generation, ADMIN.name) or "none",
        "realms": _realms(generation.config),
    }


def _urls(generation: Generation, role: str) -> str:
    return ",".join(listener.url for listener in generation.listeners[role])


def _realms(config: Config) -> str:
    return ",".join(realm.name for realm in config.realms)


def _summary(generation: Generation) -> str:
    realms, workers = len(generation.config.realms), len(generation.workers)
    return f"generation {generation.number} serves; workers: {workers}, realms: {realms}"
