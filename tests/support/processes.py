"""Distributes the tests over processes (pytest-xdist) and reports how far a run has come.

The tests of one module run in one process, because they share fixtures. All modules of tests/deploy run in
one process, because they share a Debian base and a package that take a minute to build. The two modules that
need a Samba domain run in one process, because a domain takes eight seconds to build.
"""

import time
from collections.abc import Mapping, Sequence

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

__all__ = ["TestsByModule", "group_of"]

SHARED: Mapping[str, str] = {
    "tests/deploy/": "deploy",
    "tests/interop/test_samba.py": "samba",
    "tests/interop/test_guard_proofs.py": "samba",
}
"""The group of all tests with names that begin with the key."""

SLOW_FIRST = ("tests/deploy/", "tests/interop/", "tests/attack/", "tests/supervisor/", "tests/frontends/")
REPORT_SECONDS = 30.0
CACHE_KEY = "kkdcpd/seconds"


def group_of(test_id: str) -> str:
    """Return the name of the group of tests that stays in one process."""
    module = test_id.partition("::")[0]
    return next((group for start, group in SHARED.items() if module.startswith(start)), module)


class TestsByModule(LoadScopeScheduling):  # type: ignore[misc]
    """Assigns groups of tests to processes in the order of the collection."""

    __test__ = False  # not a test class

    def _split_scope(self, nodeid: str) -> str:
        """Return the group. xdist documents this method for subclasses."""
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> TestsByModule:
    """Use the groups of `group_of`."""
    config.option.loadscopereorder = False
    return TestsByModule(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow folders first, so that no process works alone at the end."""
    items.sort(key=lambda item: _rank(item.nodeid))


def _rank(test_id: str) -> int:
    ranks: Sequence[int] = [rank for rank, folder in enumerate(SLOW_FIRST) if test_id.startswith(folder)]
    return ranks[0] if ranks else len(SLOW_FIRST)


def pytest_configure(config: pytest.Config) -> None:
    """Report progress from the process that assigns the tests."""
    if getattr(config.option, "numprocesses", None):
        config.pluginmanager.register(Progress(config))


class Progress:
    """Prints a line of progress every `REPORT_SECONDS`, and stores how long the whole run took."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._started = self._reported = time.monotonic()
        self._done = 0

    def pytest_runtest_logfinish(self) -> None:
        """Count a finished test."""
        self._done += 1
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._print(f"{self._done} tests are done after {now - self._started:.0f} s")

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Store the time of a successful run, for the estimate at the start of the next run."""
        cache = self._config.cache
        is_whole = self._config.args_source is pytest.Config.ArgsSource.TESTPATHS
        if exitstatus == 0 and is_whole and cache is not None:
            cache.set(CACHE_KEY, round(time.monotonic() - self._started))

    def _print(self, text: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\n{text}")
            reporter.flush()
