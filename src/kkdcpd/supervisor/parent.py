"""The life of the parent: it starts generations of workers, replaces who dies, and ends them all in order."""

import contextlib
import datetime
import gc
import selectors
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path

import kkdcpd
from kkdcpd.config import DatedItem, LoadedConfig, LogConfig, load_config, newly_outside_dates
from kkdcpd.errors import ConfigError, ConfigProblem, ListenError, StartError, unix_remedy
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.memory import RELOADS_FAILED, RELOADS_OK, WORKER_DEATHS, Metrics, metrics_bytes
from kkdcpd.process_messages import ReloadResult, Retire, ServiceStatus
from kkdcpd.shared_memory.memory import SharedMemory
from kkdcpd.shared_memory.rows import MAX_ROWS, Rows
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import Child
from kkdcpd.supervisor.control import Asker, Control, ReloadOutcome
from kkdcpd.supervisor.events import take_turn
from kkdcpd.supervisor.family import Death, Family
from kkdcpd.supervisor.files import DateWatch, tell_changes
from kkdcpd.supervisor.generation import Generation, Phase, Role, Slot, admin_places, places
from kkdcpd.supervisor.limits import fit_to_descriptors
from kkdcpd.supervisor.services import serve_admin, serve_clients
from kkdcpd.supervisor.sockets import Sockets
from kkdcpd.supervisor.systemd import Notifier, take_sockets, watchdog_interval

__all__ = ["Parent", "serve"]

logger = EventLogger(__name__)

TURN_SECONDS = 0.5
"""How often the parent looks after what has a time of its own."""

START_SECONDS = 30.0
"""What a generation has to get ready: its workers take less than a second each."""

FILES_SECONDS = 1.0
"""How often the certificates are looked at. A change counts when two looks have seen it: within 3 s."""

GRACE_SECONDS = 5.0
"""What a worker has to end by itself, after its `process.drain_timeout`."""

UNCLAIMED_ADVICE = (
    "systemd opened it, and no [[listen]] has this address: add one that has, or remove ListenStream= from "
    "the .socket unit"
)

MORE_ROOM = "allow more processes, memory and file descriptors (systemd: TasksMax=, MemoryMax=, LimitNOFILE=)"

_ConfigureLogging = Callable[[LogConfig], None]


def serve(path: Path, loaded: LoadedConfig, configure_logging: _ConfigureLogging) -> None:
    """Serve until SIGTERM or SIGINT; the configuration was read from `path`.

    Raises:
        ConfigError: systemd passed a socket that no client can connect to.
        ListenError: an address can't be listened on.
        StartError: the workers don't get ready.
    """
    Parent(
        path,
        loaded,
        sockets=Sockets(take_sockets()),
        notifier=Notifier.from_environment(),
        watchdog_interval=watchdog_interval(),
        configure_logging=configure_logging,
    ).run()


class Parent:
    """Holds what outlives a worker. Its loop waits for signals, children, and who asks for a reload."""

    def __init__(
        self,
        path: Path,
        loaded: LoadedConfig,
        *,
        sockets: Sockets,
        notifier: Notifier,
        watchdog_interval: float | None,
        configure_logging: _ConfigureLogging,
    ) -> None:
        self._path = path
        self._loaded = loaded
        self._sockets = sockets
        self._notifier = notifier
        self._configure_logging = configure_logging
        self._log = loaded.config.log
        self._has_watchdog = watchdog_interval is not None
        self._turn_seconds = min(TURN_SECONDS, (watchdog_interval or TURN_SECONDS) / 2)
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wakeup_end = socket.socketpair()
        self._memory = memory = SharedMemory.make(
            guard_entries=loaded.config.guard.table_entries, metrics_bytes=metrics_bytes(MAX_ROWS)
        )
        self._metrics = Metrics(memory.metrics)
        self._family = Family(self._selector, Rows([memory.clear_counts, self._metrics.clear_gauges]))
        self._started_at = time.time()
        self._last_reload: ReloadResult | None = None
        self._told: ServiceStatus | None = None
        self._control: Control | None = None
        self._control_path: Path | None = None
        self._last_number = 0
        self._starting: Generation | None = None
        self._serving: Generation | None = None
        self._ending: list[Generation] = []
        self._is_reload_due = False
        self._next_askers: list[Asker] = []
        self._askers: list[Asker] = []
        self._files_at = 0.0
        self._dates = DateWatch()
        self._refused: Sequence[DatedItem] = ()
        self._is_stopping = False
        self._start_error: str | None = None

    def run(self) -> None:
        """Start the first generation, and serve until told to stop.

        Raises:
            ListenError, StartError: it can't be started.
        """
        self._catch_signals()
        try:
            self._listen_for_askers(self._loaded.config.process.control)
            self._start_first()
            while not (self._is_stopping and self._family.is_empty):
                self._turn()
        finally:
            self._family.kill_all()
            self._sockets.close()
            self._close_control()
        if self._start_error:
            raise StartError(self._start_error)
        logger.info("stopped")

    # -- What may happen -------------------------------------------------------------------------------------

    def _turn(self) -> None:
        take_turn(self._selector, self._turn_seconds)
        now = time.monotonic()
        self._family.end_hung(now)
        if self._starting:
            self._look_at_start(self._starting, now)
        if self._serving:
            self._replace(self._serving, now)
        if self._serving and not self._starting:
            self._look_for_news(self._serving, now)
        self._end_drains(now)
        self._tell_status()
        if self._has_watchdog:
            self._notifier.alive()

    def _catch_signals(self) -> None:
        self._wakeup.settimeout(0.0)
        self._wakeup_end.settimeout(0.0)
        signal.set_wakeup_fd(self._wakeup_end.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            # What is to be done is done in the loop, where nothing is half done.
            signal.signal(number, lambda *_: None)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._take_signals)

    def _take_signals(self) -> None:
        numbers = set(self._wakeup.recv(4096))
        if signal.SIGCHLD in numbers:
            for death in self._family.reap():
                self._died(death)
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._stop()
        elif signal.SIGHUP in numbers:
            self._ask_for_reload()

    def _died(self, death: Death) -> None:
        for generation in filter(None, (self._starting, self._serving, *self._ending)):
            for slot in generation.slots:
                if any(death.child is child for child in slot.children):
                    self._lost(generation, slot, death)
                    return

    def _lost(self, generation: Generation, slot: Slot, death: Death) -> None:
        now = time.monotonic()
        lived = round(now - death.child.started_at, 1)
        may_end = generation.phase is Phase.DRAINING or death.child is slot.former
        slot.child_died(death.child, now)
        has_failed = not may_end or death.code
        # Those that were killed beside another one are nothing new.
        if has_failed and generation.phase is not Phase.FAILED:
            pid = death.child.pid
            logger.error("worker_died", process=slot.name, pid=pid, reason=death.words, lived=lived)
            self._metrics.add(WORKER_DEATHS)
        if generation.phase is Phase.STARTING:
            self._give_up(f"{slot.name} ended by {death.words}")
        elif generation in self._ending:
            self._ended_in_part(generation)

    def _ended_in_part(self, generation: Generation) -> None:
        if not any(slot.children for slot in generation.workers):
            for child in generation.admins:
                child.channel.end()
        if not generation.children:
            self._ending.remove(generation)
            if generation.phase is Phase.DRAINING and not self._is_stopping:
                logger.info("drained", generation=generation.number)

    # -- A generation's beginning ----------------------------------------------------------------------------

    def _listen_for_askers(self, path: Path | None) -> None:
        """Have the control socket there, and nowhere else; one whose file is gone is made anew."""
        if path == self._control_path and (self._control is None or self._control.is_reachable):
            return
        self._close_control()
        self._control_path = path
        if path is None:
            return
        try:
            self._control = Control(path, self._selector, self._ask_for_reload)
        except OSError as error:
            _warn(
                [
                    ConfigProblem(
                        key="process.control",
                        problem=f"{path} can't be listened on: {error.strerror or error}",
                        remedy=f"{unix_remedy(error)}; until then only SIGHUP reloads the configuration",
                    )
                ]
            )

    def _close_control(self) -> None:
        if self._control:
            self._control.close()
            self._control = None

    def _start_first(self) -> None:
        self._dates.look(self._loaded.dated, _now())
        try:
            self._start(self._loaded)
        except OSError as error:
            raise StartError(str(error), MORE_ROOM) from error

    def _start(self, loaded: LoadedConfig) -> None:
        """Fork the workers of the next generation.

        Raises:
            ListenError: an address can't be listened on.
            OSError: its files can't be read any more, or there is no room for its processes.
        """
        _warn(loaded.warnings)
        config, problems = fit_to_descriptors(loaded.config)
        _warn(problems)
        sockets = self._sockets.open(places(config))
        generation = Generation.make(self._last_number + 1, loaded, config, sockets)
        _warn(generation.system.warnings(config))
        if not self._family.has_room_for(len(generation.slots)):
            raise OSError("too many workers of earlier generations still finish what they have begun")
        self._last_number = generation.number
        self._starting = generation
        # Children log as they are forked.
        self._log_as(config.log)
        _keep_memory_shared()
        for slot in generation.slots:
            slot.take(self._fork(generation, slot))

    def _fork(self, generation: Generation, slot: Slot) -> Child:
        def work(channel: Channel, row: int) -> Coroutine[None, None, None]:
            if slot.role is Role.ADMIN:
                return serve_admin(generation, self._memory, self._service_status(), channel)
            return serve_clients(generation, self._memory, row, channel)

        return self._family.fork(slot.name, partial(self._forget, generation, slot), work)

    def _look_at_start(self, generation: Generation, now: float) -> None:
        if generation.is_ready:
            self._take_over(generation)
        elif now - generation.phase_since > START_SECONDS:
            self._give_up(f"the workers aren't ready after {START_SECONDS:g} seconds")

    def _take_over(self, generation: Generation) -> None:
        """Let a generation that is ready serve, and the one before it finish."""
        self._starting = None
        before, self._serving = self._serving, generation
        generation.enter(Phase.SERVING)
        # Where nobody listens any more, the workers that end are last to close, once they let in who waits.
        self._sockets.keep_only(places(generation.config))
        if before:
            self._drain(before)
            self._reload_ended()
        self._listen_for_askers(generation.config.process.control)
        self._tell_serving(generation, "reloaded" if before else "ready")
        self._answer(ReloadOutcome(is_done=True, generation=generation.number))

    def _tell_serving(self, generation: Generation, event: str) -> None:
        realms = ",".join(realm.name for realm in generation.config.realms)
        fields = {
            "version": kkdcpd.__version__,
            "generation": generation.number,
            "workers": len(generation.workers),
            "listen": ",".join(listener.url for listener in generation.listeners),
            "admin": ",".join(listener.url for listener in generation.admin_listeners) or "none",
            "realms": realms,
        }
        if event == "ready":
            logger.info("ready", **fields)
        else:
            logger.info("reloaded", **fields)
        for address in self._sockets.unclaimed():
            logger.error("socket_unclaimed", address=address, advice=UNCLAIMED_ADVICE)
        for problem in self._sockets.unreachable():
            logger.error("socket_unreachable", problem=problem)
        self._notifier.ready(_status(generation))

    def _give_up(self, reason: str) -> None:
        """End a generation that doesn't get ready; the one before it goes on."""
        self._abandon()
        if self._serving:
            self._fail_reload([reason])
        else:
            self._start_error = reason
            self._is_stopping = True

    def _abandon(self) -> None:
        """End what there is of a generation that doesn't get ready, and close what it alone listened on."""
        generation, self._starting = self._starting, None
        if generation and generation.children:
            generation.enter(Phase.FAILED)
            for child in generation.children:
                child.kill()
            self._ending.append(generation)
        if self._serving:
            self._sockets.go_back()
            self._sockets.keep_only(places(self._serving.config))

    # -- A reload --------------------------------------------------------------------------------------------

    def _ask_for_reload(self, asker: Asker | None = None) -> None:
        """Have a reload begin as soon as none is under way: what that one has read may be old already."""
        self._is_reload_due = True
        if asker:
            self._next_askers.append(asker)

    def _reload(self, text: str | None = None, changed: Sequence[Path] = ()) -> None:
        """Start another generation; with a `text`, by the one that serves, as its files have `changed`."""
        self._is_reload_due = False
        self._refused = ()
        self._askers, self._next_askers = self._next_askers, []
        self._notifier.reloading()
        try:
            self._start(self._load_next(text, changed))
        except ConfigError as error:
            self._fail_reload(map(str, error.problems))
        except (ListenError, OSError) as error:
            self._abandon()
            self._fail_reload([str(error)])
        except Exception as error:
            # The last resort: whatever a new file brings about, the old generation goes on.
            logger.exception("bug_in_reload")
            self._abandon()
            self._fail_reload([f"a bug: {type(error).__name__}; please report it, with the log"])

    def _load_next(self, text: str | None, changed: Sequence[Path]) -> LoadedConfig:
        """Read the configuration of the next generation, which must not be worse than the one that serves.

        Changed files that are outside their dates are taken later, once their dates fit.

        Raises:
            ConfigError: it cannot be used, or would replace what is within its dates.
        """
        assert self._serving
        try:
            loaded = load_config(self._path, now=_now(), text=text)
        except ConfigError:
            tell_changes(changed, ())
            raise
        tell_changes(changed, loaded.dated)
        if problems := newly_outside_dates(loaded.dated, self._serving.loaded.dated, _now()):
            self._refused = loaded.dated if text else ()
            raise ConfigError(problems)
        return loaded

    def _fail_reload(self, problems: Iterable[str]) -> None:
        assert self._serving
        with contextlib.suppress(OSError):
            self._log_as(self._serving.config.log)
        lines = tuple(problems)
        for line in lines:
            logger.error("reload_failed", problem=line)
        self._reload_ended(lines)
        self._answer(ReloadOutcome(is_done=False, generation=self._serving.number, problems=lines))
        self._notifier.ready(f"{_status(self._serving)}; the last reload failed")

    def _reload_ended(self, problems: tuple[str, ...] = ()) -> None:
        self._last_reload = ReloadResult(at=time.time(), is_ok=not problems, problems=problems)
        self._metrics.add(RELOADS_FAILED if problems else RELOADS_OK)

    def _log_as(self, config: LogConfig) -> None:
        """Have the log configured like this: anew only if it isn't, as that takes a file descriptor.

        Raises:
            OSError: there is none left. Then the log stays as it is.
        """
        if config != self._log:
            self._configure_logging(config)
            self._log = config

    def _answer(self, outcome: ReloadOutcome) -> None:
        askers, self._askers = self._askers, []
        for asker in askers:
            asker.answer(outcome)

    # -- How it is -------------------------------------------------------------------------------------------

    def _tell_status(self) -> None:
        """Tell those who tell others, when it has changed."""
        status = self._service_status()
        if status == self._told:
            return
        self._told = status
        for generation in filter(None, (self._starting, self._serving, *self._ending)):
            for child in generation.admins:
                child.channel.send(status)

    def _service_status(self) -> ServiceStatus:
        workers = self._serving.workers if self._serving else []
        return ServiceStatus(
            generation=self._serving.number if self._serving else self._last_number,
            workers_ready=sum(slot.child is not None and slot.child.is_ready for slot in workers),
            workers_wanted=len(workers),
            started_at=self._started_at,
            is_draining=self._is_stopping,
            last_reload=self._last_reload,
        )

    # -- While it serves, and its end ------------------------------------------------------------------------

    def _replace(self, generation: Generation, now: float) -> None:
        """Replace who has died, and who has grown large with a crowd that is gone."""
        for slot in generation.slots:
            if slot.successor and slot.successor.is_ready:
                self._renew(slot, now)
            elif slot.is_due(now):
                try:
                    slot.take(self._fork(generation, slot))
                except OSError as error:
                    logger.error("fork_failed", reason=str(error))  # noqa: TRY400
                    slot.start_at = now + GRACE_SECONDS

    def _renew(self, slot: Slot, now: float) -> None:
        """Let a successor that serves have the place. Who had it has as long as its connections take."""
        assert slot.child
        if not slot.child.channel.send(Retire()):
            return
        lived = round(now - slot.child.started_at, 1)
        logger.info("worker_recycled", process=slot.name, pid=slot.child.pid, lived=lived)
        slot.change()

    def _look_for_news(self, generation: Generation, now: float) -> None:
        """Begin a reload that was asked for, or that a new certificate is reason for."""
        if self._is_reload_due:
            self._reload()
        elif now >= self._files_at:
            self._files_at = now + FILES_SECONDS
            self._look_at_files(generation)

    def _look_at_files(self, generation: Generation) -> None:
        wall_clock = _now()
        self._dates.look(generation.loaded.dated, wall_clock)
        may_be_taken = self._refused and not any(item.problem(wall_clock) for item in self._refused)
        changed = generation.files.changed()
        if changed or may_be_taken:
            self._reload(text=generation.loaded.text, changed=changed)

    def _drain(self, generation: Generation) -> None:
        """Let it finish. When all ends, the admin process is the last to go: it tells that it drains."""
        generation.enter(Phase.DRAINING)
        admins = generation.admins if self._is_stopping else []
        for child in generation.children:
            if child not in admins:
                child.channel.end()
        if generation.children:
            self._ending.append(generation)
            self._ended_in_part(generation)

    def _end_drains(self, now: float) -> None:
        """Kill those that don't end by themselves in time."""
        for generation in self._ending:
            if now - generation.phase_since > generation.config.process.drain_timeout + GRACE_SECONDS:
                for child in generation.children:
                    child.kill()

    def _stop(self) -> None:
        """Finish what is in flight; when asked again, don't."""
        if self._is_stopping:
            self._family.kill_all()
            return
        self._is_stopping = True
        logger.info("stopping")
        self._notifier.stopping("finishing what is in flight")
        # Who connects from now on is refused, or waits with systemd for our successor.
        self._sockets.keep_only(admin_places(self._serving.config) if self._serving else ())
        self._close_control()
        for generation in filter(None, (self._starting, self._serving)):
            self._drain(generation)
        self._starting = self._serving = None
        self._askers += self._next_askers
        self._answer(ReloadOutcome(is_done=False, generation=0, problems=("kkdcpd is stopping",)))

    def _forget(self, generation: Generation, slot: Slot) -> None:
        """Close in a child what is the parent's alone, and the sockets that others serve."""
        self._selector.close()
        self._wakeup.close()
        self._wakeup_end.close()
        self._notifier.close()
        if self._control:
            self._control.detach()
        for asker in (*self._askers, *self._next_askers):
            asker.socket.close()
        kept = generation.admin_listeners if slot.role is Role.ADMIN else generation.listeners
        self._sockets.detach(kept=[listener.socket for listener in kept])


def _keep_memory_shared() -> None:
    """Have what is there now stay as it is: a worker's collector would write to all of it, and so copy it."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _warn(problems: Iterable[ConfigProblem]) -> None:
    """Log what the operator should mend, though it keeps nothing from running."""
    for problem in problems:
        logger.warning("config_warning", key=problem.key, problem=problem.problem, remedy=problem.remedy)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _status(generation: Generation) -> str:
    realms, workers = len(generation.config.realms), len(generation.workers)
    return f"generation {generation.number} serves; workers: {workers}, realms: {realms}"
