"""The life of the parent: it starts generations of workers, replaces who dies, and ends them all in order."""

import datetime
import gc
import logging
import secrets
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import kkdcpd
from kkdcpd.config import LoadedConfig, LogConfig, load_config
from kkdcpd.errors import ConfigError, ConfigProblem, ListenError, StartError
from kkdcpd.guard import occupancy, shared_table
from kkdcpd.metrics.memory import make_metrics
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import serve_with_channel
from kkdcpd.supervisor.control import Asker, Control, ReloadOutcome
from kkdcpd.supervisor.family import Death, Family
from kkdcpd.supervisor.files import FileWatch, tls_files
from kkdcpd.supervisor.generation import Generation, Phase, Slot
from kkdcpd.supervisor.limits import fit_to_descriptors
from kkdcpd.supervisor.rows import MAX_ROWS, Rows
from kkdcpd.supervisor.sockets import Sockets
from kkdcpd.supervisor.systemd import Notifier, take_sockets, watchdog_interval
from kkdcpd.worker import SharedMemory, Worker

__all__ = ["Parent", "serve"]

logger = logging.getLogger(__name__)

TURN_SECONDS = 0.5
"""How often the parent looks after what has a time of its own."""

START_SECONDS = 30.0
"""What a generation has to get ready: its workers take less than a second each."""

FILES_SECONDS = 5.0
"""How often the certificates are looked at. A change counts when it is seen twice: after 10 s at most."""

GRACE_SECONDS = 5.0
"""What a worker has to end by itself, after its `process.drain_timeout`."""


_ConfigureLogging = Callable[[LogConfig], None]


def serve(path: Path, loaded: LoadedConfig, configure_logging: _ConfigureLogging) -> None:
    """Serve until SIGTERM or SIGINT; the configuration was read from `path`.

    Raises:
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
        self._turn_seconds = min(TURN_SECONDS, (watchdog_interval or TURN_SECONDS) / 2)
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wakeup_end = socket.socketpair()
        self._memory = memory = _make_memory(loaded.config.guard.table_entries)
        clear = [partial(occupancy.clear_row, counters) for counters in (memory.connections, memory.requests)]
        self._family = Family(self._selector, Rows(clear), self._forget)
        self._control: Control | None = None
        self._last_number = 0
        self._starting: Generation | None = None
        self._serving: Generation | None = None
        self._draining: list[Generation] = []
        self._askers: list[Asker] = []
        self._is_reload_due = False
        self._files = FileWatch(())
        self._files_at = 0.0
        self._is_stopping = False
        self._start_error: str | None = None

    def run(self) -> None:
        """Start the first generation, and serve until told to stop.

        Raises:
            ListenError, StartError: it can't be started.
        """
        self._catch_signals()
        try:
            self._open_control(self._loaded.config.process.control)
            self._start(self._loaded)
            # What is there now is shared with every worker, as long as nobody counts references to it.
            gc.freeze()
            while not (self._is_stopping and self._family.is_empty):
                self._turn()
        finally:
            self._family.kill_all()
            self._sockets.close()
            if self._control:
                self._control.close()
        if self._start_error:
            raise StartError(self._start_error)
        logger.info("stopped")

    # -- What may happen -------------------------------------------------------------------------------------

    def _turn(self) -> None:
        for key, _events in self._selector.select(self._turn_seconds):
            key.data()
        now = time.monotonic()
        self._family.end_hung(now)
        if self._starting:
            self._look_at_start(self._starting, now)
        elif self._serving and not self._is_stopping:
            self._look_after(self._serving, now)
        for generation in self._draining:
            if now - generation.phase_since > generation.config.process.drain_timeout + GRACE_SECONDS:
                for child in generation.children:
                    child.kill()
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
            self._reload()

    def _died(self, death: Death) -> None:
        for generation in filter(None, (self._starting, self._serving, *self._draining)):
            for slot in generation.slots:
                if slot.child is death.child:
                    self._lost(generation, slot, death)
                    return

    def _lost(self, generation: Generation, slot: Slot, death: Death) -> None:
        now = time.monotonic()
        lived = round(now - death.child.started_at, 1)
        slot.child_died(now)
        if generation.phase is not Phase.DRAINING or death.code:
            fields = {"process": slot.name, "pid": death.child.pid, "reason": death.words, "lived": lived}
            logger.error("worker_died", extra={"fields": fields})
        if generation.phase is Phase.STARTING:
            self._give_up(f"{slot.name} ended by {death.words}")
        elif generation.phase is Phase.DRAINING and not generation.children:
            self._draining.remove(generation)
            if not self._is_stopping:
                logger.info("drained", extra={"fields": {"generation": generation.number}})

    # -- A generation's beginning ----------------------------------------------------------------------------

    def _open_control(self, path: Path | None) -> None:
        if path is None:
            return
        try:
            self._control = Control(path, self._selector, self._reload)
        except OSError as error:
            _warn(
                [
                    ConfigProblem(
                        key="process.control",
                        problem=f"{path} can't be listened on: {error.strerror or error}",
                        remedy="make its folder, or name another; until then a reload is had by SIGHUP alone",
                    )
                ]
            )

    def _start(self, loaded: LoadedConfig) -> None:
        """Fork the workers of the next generation.

        Raises:
            ListenError: an address can't be listened on.
            OSError: its files can't be read any more, or there is no room for its processes.
        """
        _warn(loaded.warnings)
        config, problems = fit_to_descriptors(loaded.config)
        _warn(problems)
        sockets = self._sockets.open(config.listen)
        generation = Generation.make(self._last_number + 1, loaded, config, sockets)
        if not self._family.has_room_for(len(generation.slots)):
            raise OSError("too many workers of earlier generations still finish what they have begun")
        self._last_number = generation.number
        self._starting = generation
        # Children log as they are forked.
        self._configure_logging(config.log)
        for slot in generation.slots:
            self._fork(generation, slot)

    def _fork(self, generation: Generation, slot: Slot) -> None:
        async def work(channel: Channel, row: int) -> None:
            worker = Worker(
                generation.config,
                generation.listeners,
                generation.system,
                self._memory,
                row,
                tell=channel.send,
            )
            await serve_with_channel(worker, channel)

        slot.child = self._family.fork(slot.name, work)

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
        if before:
            self._drain(before)
        self._sockets.keep_only(generation.config.listen)
        self._files = FileWatch(tls_files(generation.config.tls))
        self._tell_serving(generation, "reloaded" if before else "ready")
        self._answer(ReloadOutcome(is_done=True, generation=generation.number))
        if self._is_reload_due:
            self._is_reload_due = False
            self._reload()

    def _tell_serving(self, generation: Generation, event: str) -> None:
        realms = ",".join(realm.name for realm in generation.config.realms)
        fields = {
            "version": kkdcpd.__version__,
            "generation": generation.number,
            "workers": len(generation.slots),
            "listen": ",".join(listener.url for listener in generation.listeners),
            "realms": realms,
        }
        if event == "ready":
            logger.info("ready", extra={"fields": fields})
        else:
            logger.info("reloaded", extra={"fields": fields})
        for address in self._sockets.unclaimed():
            logger.error("socket_unclaimed", extra={"fields": {"address": address}})
        self._notifier.ready(_status(generation))

    def _give_up(self, reason: str) -> None:
        """End a generation that doesn't get ready; the one before it goes on."""
        generation, self._starting = self._starting, None
        assert generation
        for child in generation.children:
            child.kill()
        if generation.children:
            generation.enter(Phase.DRAINING)
            self._draining.append(generation)
        if self._serving:
            self._sockets.keep_only(self._serving.config.listen)
            self._fail_reload([reason])
        else:
            self._start_error = reason
            self._is_stopping = True

    # -- A reload --------------------------------------------------------------------------------------------

    def _reload(self, asker: Asker | None = None, text: str | None = None) -> None:
        """Start another generation. While one is starting, it waits for its turn."""
        if asker:
            self._askers.append(asker)
        if self._is_stopping:
            self._answer(ReloadOutcome(is_done=False, generation=0, problems=("kkdcpd is stopping",)))
        elif self._starting:
            self._is_reload_due = True
        else:
            self._notifier.reloading()
            self._try_reload(text)

    def _try_reload(self, text: str | None) -> None:
        assert self._serving
        try:
            loaded = load_config(self._path, now=datetime.datetime.now(datetime.UTC), text=text)
            self._start(loaded)
        except ConfigError as error:
            self._fail_reload(map(str, error.problems))
        except (ListenError, OSError) as error:
            self._withdraw()
            self._fail_reload([str(error)])
        except Exception as error:
            # The last resort: whatever a new file brings about, the old generation goes on.
            logger.exception("bug_in_reload")
            self._withdraw()
            self._fail_reload([f"a bug: {type(error).__name__}; please report it, with the log"])

    def _withdraw(self) -> None:
        """End what there is of a generation that could not be forked whole."""
        assert self._serving
        if self._starting:
            for child in self._starting.children:
                child.kill()
            self._starting.enter(Phase.DRAINING)
            self._draining.append(self._starting)
            self._starting = None
        self._sockets.keep_only(self._serving.config.listen)

    def _fail_reload(self, problems: Iterable[str]) -> None:
        assert self._serving
        self._configure_logging(self._serving.config.log)
        lines = tuple(problems)
        for line in lines:
            logger.error("reload_failed", extra={"fields": {"problem": line}})
        self._answer(ReloadOutcome(is_done=False, generation=self._serving.number, problems=lines))
        self._notifier.ready(f"{_status(self._serving)}; the last reload failed")

    def _answer(self, outcome: ReloadOutcome) -> None:
        askers, self._askers = self._askers, []
        for asker in askers:
            asker.answer(outcome)

    # -- While it serves, and its end ------------------------------------------------------------------------

    def _look_after(self, generation: Generation, now: float) -> None:
        """Replace who has died; reload where a certificate is new."""
        for slot in generation.slots:
            if slot.child is None and now >= slot.start_at:
                try:
                    self._fork(generation, slot)
                except OSError as error:
                    logger.error("fork_failed", extra={"fields": {"reason": str(error)}})  # noqa: TRY400
                    slot.start_at = now + GRACE_SECONDS
        if now >= self._files_at:
            self._files_at = now + FILES_SECONDS
            if self._files.has_changed():
                logger.info("certificate_changed")
                self._reload(text=generation.loaded.text)

    def _drain(self, generation: Generation) -> None:
        generation.enter(Phase.DRAINING)
        for child in generation.children:
            child.channel.end()
        if generation.children:
            self._draining.append(generation)

    def _stop(self) -> None:
        """Finish what is in flight; when asked again, don't."""
        if self._is_stopping:
            self._family.kill_all()
            return
        self._is_stopping = True
        logger.info("stopping")
        self._notifier.stopping("finishing what is in flight")
        # Who connects from now on is refused, or waits with systemd for our successor.
        self._sockets.close()
        for generation in filter(None, (self._starting, self._serving)):
            self._drain(generation)
        self._starting = self._serving = None
        self._answer(ReloadOutcome(is_done=False, generation=0, problems=("kkdcpd is stopping",)))

    def _forget(self) -> None:
        """Close in a child what is the parent's alone."""
        self._selector.close()
        self._wakeup.close()
        self._wakeup_end.close()
        self._notifier.close()
        if self._control:
            self._control.detach()
        for asker in self._askers:
            asker.socket.close()
        used = self._starting or self._serving
        self._sockets.detach(kept=[listener.socket for listener in used.listeners] if used else [])


def _make_memory(table_entries: int) -> SharedMemory:
    """Make what all processes share. It has its size for ever, whatever a reload says."""
    return SharedMemory(
        guard=shared_table.make_memory(table_entries, secrets.token_bytes(shared_table.SECRET_SIZE)),
        connections=occupancy.make_memory(MAX_ROWS, secrets.token_bytes(occupancy.SECRET_BYTES)),
        requests=occupancy.make_memory(MAX_ROWS, secrets.token_bytes(occupancy.SECRET_BYTES)),
        metrics=make_metrics(rows=MAX_ROWS),
    )


def _warn(problems: Iterable[ConfigProblem]) -> None:
    """Log what the operator should mend, though it keeps nothing from running."""
    for problem in problems:
        logger.warning(
            "check",
            extra={"fields": {"key": problem.key, "problem": problem.problem, "remedy": problem.remedy}},
        )


def _status(generation: Generation) -> str:
    realms, workers = len(generation.config.realms), len(generation.slots)
    return f"generation {generation.number}: {workers} workers serve {realms} realms"
