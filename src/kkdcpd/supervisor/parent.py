"""The parent process: starts generations, lets each take over from the one before, and stops them all."""

import contextlib
import selectors
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGCHLD, SIGHUP, SIGINT, SIGTERM

from kkdcpd.config import LoadedConfig, LogConfig
from kkdcpd.errors import ConfigError, ConfigProblem, ListenError, StartError
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.memory import WORKER_DEATHS, Metrics, metrics_bytes
from kkdcpd.shared_memory.memory import SharedMemory
from kkdcpd.shared_memory.rows import MAX_ROWS, Rows
from kkdcpd.supervisor.children import ChildExit, Children, handle_events
from kkdcpd.supervisor.control import Control, ReloadOutcome
from kkdcpd.supervisor.generation import Generation, Phase
from kkdcpd.supervisor.generations import Generations
from kkdcpd.supervisor.launcher import Launcher
from kkdcpd.supervisor.reload import ReloadCause, Reloads
from kkdcpd.supervisor.roles import last_addresses, listen_addresses
from kkdcpd.supervisor.signals import SignalReceiver
from kkdcpd.supervisor.sockets import Sockets
from kkdcpd.supervisor.status import StatusReporter
from kkdcpd.supervisor.systemd import Notifier, take_sockets, watchdog_interval

__all__ = ["Parent", "serve"]

logger = EventLogger(__name__)

ROUND_SECONDS = 0.5
"""Longest wait for events before the parent checks what depends on time."""

START_SECONDS = 30.0
"""Time in which a generation must get ready. Its processes take less than a second each."""

MORE_RESOURCES = (
    "allow more processes, memory and file descriptors (systemd: TasksMax=, MemoryMax=, LimitNOFILE=)"
)

_ConfigureLogging = Callable[[LogConfig], None]


def serve(path: Path, loaded: LoadedConfig, configure_logging: _ConfigureLogging) -> None:
    """Serve with the configuration that was read from `path`, until SIGTERM or SIGINT.

    Raises:
        ConfigError: systemd passed a socket that no client can connect to.
        ListenError: an address cannot be opened.
        StartError: the processes do not get ready.
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
    """Connects the parts of the parent process, and runs its loop."""

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
        self._loaded = loaded
        self._sockets = sockets
        self._notifier = notifier
        self._configure_logging = configure_logging
        self._log = loaded.config.log
        self._has_watchdog = watchdog_interval is not None
        self._round_seconds = min(ROUND_SECONDS, (watchdog_interval or ROUND_SECONDS) / 2)
        self._selector = selectors.DefaultSelector()
        memory = SharedMemory.make(
            guard_entries=loaded.config.guard.table_entries, metrics_bytes=metrics_bytes(MAX_ROWS)
        )
        self._metrics = Metrics(memory.metrics)
        self._children = Children(self._selector, Rows([memory.clear_counts, self._metrics.clear_gauges]))
        self._generations = Generations()
        self._reloads = Reloads(path)
        self._control = Control(self._selector, self._reloads.request)
        self._signals = SignalReceiver(self._selector, self._handle_signals)
        self._status = StatusReporter(self._generations, self._children, notifier, self._metrics)
        self._launcher = Launcher(
            sockets,
            memory,
            self._children,
            status=self._status.current,
            close_inherited=self._close_inherited,
        )
        self._start_error: str | None = None

    def run(self) -> None:
        """Start the first generation, and serve until a signal ends the service.

        Raises:
            ListenError, StartError: the first generation does not start.
        """
        try:
            self._control.listen(self._loaded.config.process.control)
            self._start_first()
            while not (self._generations.is_stopping and self._children.is_empty):
                self._run_round()
        finally:
            self._children.kill_all()
            self._sockets.close()
            self._control.close()
        if self._start_error:
            raise StartError(self._start_error)
        logger.info("stopped")

    def _run_round(self) -> None:
        handle_events(self._selector, self._round_seconds)
        now = time.monotonic()
        self._children.kill_hung(now)
        if self._generations.starting:
            self._check_start(self._generations.starting, now)
        serving = self._generations.serving
        if serving:
            self._launcher.replace(serving, now)
        if serving and not self._generations.starting and (cause := self._reloads.next_cause(serving, now)):
            self._reload(cause, serving)
        self._generations.kill_overdue(now)
        self._status.publish()
        if self._has_watchdog:
            self._notifier.alive()

    # -- Signals and exits -----------------------------------------------------------------------------------

    def _handle_signals(self, numbers: set[int]) -> None:
        if SIGCHLD in numbers:
            for child_exit in self._children.reap():
                self._handle_exit(child_exit)
        if numbers & {SIGTERM, SIGINT}:
            self._stop()
        elif SIGHUP in numbers:
            self._reloads.request()

    def _handle_exit(self, child_exit: ChildExit) -> None:
        child, now = child_exit.child, time.monotonic()
        found = self._generations.slot_of(child)
        if not found:
            return
        generation, slot = found
        may_end = generation.phase is Phase.DRAINING or child is slot.retired
        slot.remove(child, now)
        # The processes of a failed generation were killed on purpose.
        if (not may_end or child_exit.code) and generation.phase is not Phase.FAILED:
            lived = round(now - child.started_at, 1)
            logger.error(
                "worker_died", process=slot.name, pid=child.pid, reason=child_exit.reason, lived=lived
            )
            self._metrics.add(WORKER_DEATHS)
        if generation.phase is Phase.STARTING:
            self._fail_start(f"{slot.name} ended by {child_exit.reason}")
        else:
            self._generations.continue_drain(generation)

    def _stop(self) -> None:
        """Drain all generations. A second signal kills them."""
        if self._generations.is_stopping:
            self._children.kill_all()
            return
        self._status.stopping()
        # Later clients are refused. If systemd holds the socket, they wait for the next start.
        serving = self._generations.serving
        self._sockets.keep_only(last_addresses(serving.config) if serving else ())
        self._control.close()
        self._generations.stop()
        self._reloads.answer_all(
            ReloadOutcome(is_done=False, generation=0, problems=(_problem("kkdcpd is stopping"),))
        )

    # -- Start -----------------------------------------------------------------------------------------------

    def _start_first(self) -> None:
        self._reloads.check_dates(self._loaded.dated)
        try:
            self._start(self._loaded)
        except OSError as error:
            raise StartError(str(error), MORE_RESOURCES) from error

    def _start(self, loaded: LoadedConfig) -> None:
        """Fork the processes of the next generation.

        Raises:
            ListenError, StartError, OSError: as in Launcher.prepare and fork_all.
        """
        generation = self._launcher.prepare(self._generations.last_number + 1, loaded)
        self._generations.begin(generation)
        # Child processes log with the configuration of the moment when they are forked.
        self._set_logging(generation.config.log)
        self._launcher.fork_all(generation)

    def _check_start(self, generation: Generation, now: float) -> None:
        if generation.is_ready:
            self._take_over(generation)
        elif now - generation.phase_since > START_SECONDS:
            self._fail_start(f"the worker processes are not ready after {START_SECONDS:g} seconds")

    def _take_over(self, generation: Generation) -> None:
        """Let a ready generation serve, and drain the one before it."""
        # A removed address stays open in the draining processes until they have accepted its backlog.
        self._sockets.keep_only(listen_addresses(generation.config))
        before = self._generations.take_over()
        self._control.listen(generation.config.process.control)
        self._status.serving(generation, self._sockets, is_reload=before is not None)
        self._reloads.answer(ReloadOutcome(is_done=True, generation=generation.number))

    def _fail_start(self, reason: str) -> None:
        """Kill a generation that does not get ready. The one before it serves on."""
        self._abandon()
        if self._generations.serving:
            remedy = "read the log lines before this one; nothing has changed"
            self._fail_reload(self._generations.serving, [_problem(reason, remedy)])
        else:
            self._start_error = reason
            self._generations.is_stopping = True

    def _abandon(self) -> None:
        """Kill the generation that starts, and close the addresses that only this generation has."""
        self._generations.abandon()
        if self._generations.serving:
            self._sockets.go_back()
            self._sockets.keep_only(listen_addresses(self._generations.serving.config))

    # -- Reload ----------------------------------------------------------------------------------------------

    def _reload(self, cause: ReloadCause, serving: Generation) -> None:
        """Start the next generation. Whatever fails, the present one serves on."""
        self._reloads.begin()
        self._status.reloading()
        try:
            self._start(self._reloads.load(cause, serving))
        except ConfigError as error:
            self._fail_reload(serving, error.problems)
        except (ListenError, StartError) as error:
            self._abandon()
            self._fail_reload(serving, [_problem(error.problem, error.remedy)])
        except OSError as error:
            self._abandon()
            self._fail_reload(serving, [_problem(str(error), MORE_RESOURCES)])
        except Exception as error:
            logger.exception("bug_in_reload")
            self._abandon()
            bug = f"a bug in kkdcpd: {type(error).__name__}"
            self._fail_reload(serving, [_problem(bug, "report it, with the log")])

    def _fail_reload(self, serving: Generation, problems: Sequence[ConfigProblem]) -> None:
        with contextlib.suppress(OSError):
            self._set_logging(serving.config.log)
        self._status.reload_failed(serving, problems)
        outcome = ReloadOutcome(is_done=False, generation=serving.number, problems=tuple(problems))
        self._reloads.answer(outcome)

    def _set_logging(self, config: LogConfig) -> None:
        """Configure the log, but only if its configuration differs: this takes a file descriptor.

        Raises:
            OSError: no file descriptor is left. The log stays as it is.
        """
        if config != self._log:
            self._configure_logging(config)
            self._log = config

    def _close_inherited(self) -> None:
        """Close in a child process the descriptors that only the parent needs."""
        self._selector.close()
        self._signals.close()
        self._notifier.close()
        self._control.detach()
        self._reloads.detach()


def _problem(problem: str, remedy: str = "") -> ConfigProblem:
    return ConfigProblem(key="", problem=problem, remedy=remedy)
