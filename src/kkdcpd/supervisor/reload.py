"""Decides when a reload begins, reads the next configuration, and answers the clients that requested it."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from kkdcpd.config import DatedItem, LoadedConfig, load_config, newly_outside_dates
from kkdcpd.errors import ConfigError
from kkdcpd.frozen import frozen
from kkdcpd.supervisor.control import ReloadClient, ReloadOutcome
from kkdcpd.supervisor.files import DateWatch, log_changes
from kkdcpd.supervisor.generation import Generation

__all__ = ["ReloadCause", "Reloads", "utc_now"]

FILES_SECONDS = 1.0
"""Interval at which certificates are checked. A change counts when two checks have seen it: within 3 s."""


@frozen
class ReloadCause:
    """The reason for a reload. A request has no fields: the configuration file is read anew.

    After a change of certificates, `text` is the configuration that serves, and `changed` names the files.
    """

    text: str | None = None
    changed: Sequence[Path] = ()


class Reloads:
    """The reloads of the configuration at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_requested = False
        self._waiting_clients: list[ReloadClient] = []
        self._clients: list[ReloadClient] = []
        self._check_files_at = 0.0
        self._dates = DateWatch()
        self._postponed: Sequence[DatedItem] = ()

    def request(self, client: ReloadClient | None = None) -> None:
        """Request a reload. If one is under way, another follows, since the file may have changed again."""
        self._is_requested = True
        if client:
            self._waiting_clients.append(client)

    def next_cause(self, serving: Generation, now: float) -> ReloadCause | None:
        """Return the cause of the reload that is due, if one is."""
        if self._is_requested:
            return ReloadCause()
        if now < self._check_files_at:
            return None
        self._check_files_at = now + FILES_SECONDS
        return self._check_files(serving)

    def check_dates(self, items: Sequence[DatedItem]) -> None:
        """Log certificates and revocation lists that are outside their dates."""
        self._dates.check(items, utc_now())

    def begin(self) -> None:
        """Begin a reload. Later requests are for the next one."""
        self._is_requested = False
        self._postponed = ()
        self._clients, self._waiting_clients = self._waiting_clients, []

    def load(self, cause: ReloadCause, serving: Generation) -> LoadedConfig:
        """Read the configuration of the next generation.

        Changed files that are outside their dates are used later, when their dates fit.

        Raises:
            ConfigError: the configuration is invalid, or replaces a valid certificate by an invalid one.
        """
        try:
            loaded = load_config(self._path, now=utc_now(), text=cause.text)
        except ConfigError:
            log_changes(cause.changed, ())
            raise
        log_changes(cause.changed, loaded.dated)
        if problems := newly_outside_dates(loaded.dated, serving.loaded.dated, utc_now()):
            self._postponed = loaded.dated if cause.text else ()
            raise ConfigError(problems)
        return loaded

    def answer(self, outcome: ReloadOutcome) -> None:
        """Send the outcome to the clients of the reload that has ended."""
        clients, self._clients = self._clients, []
        for client in clients:
            client.answer(outcome)

    def answer_all(self, outcome: ReloadOutcome) -> None:
        """Send the outcome to all clients: no further reload follows."""
        self._clients += self._waiting_clients
        self._waiting_clients = []
        self.answer(outcome)

    def detach(self) -> None:
        """Close the clients' connections in a forked process."""
        for client in (*self._clients, *self._waiting_clients):
            client.socket.close()

    def _check_files(self, serving: Generation) -> ReloadCause | None:
        self.check_dates(serving.loaded.dated)
        now = utc_now()
        dates_fit = self._postponed and not any(item.problem(now) for item in self._postponed)
        changed = serving.files.changed()
        if changed or dates_fit:
            return ReloadCause(text=serving.loaded.text, changed=changed)
        return None


def utc_now() -> datetime.datetime:
    """Return the time of the wall clock, with which dates of certificates are compared."""
    return datetime.datetime.now(datetime.UTC)
