"""Runs other programs, to their end or in the background, with a bound on each wait.

This module knows neither Kerberos nor kkdcpd.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Completed", "Program", "ProgramError", "environment", "find_program", "run"]

# More than every program takes on a busy machine. MIT's clients give up after 24 s and print an error that
# helps more than a time-out.
PATIENCE_SECONDS = 30.0

# Daemons are in folders that the PATH of an ordinary user lacks. openSUSE has its own folder for Kerberos.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/mit/bin", "/usr/lib/mit/sbin")


class ProgramError(Exception):
    """A program is missing, failed, hung or did not print the expected line; the text has its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The result of a program that ran to its end. `output` is stdout and stderr together."""

    command: tuple[str, ...]
    exit_code: int
    output: str
    seconds: float

    @property
    def is_ok(self) -> bool:
        """Whether the program's exit code is 0."""
        return self.exit_code == 0

    def expect_ok(self) -> Self:
        """Raise an error with the program's output unless it succeeded."""
        if not self.is_ok:
            raise ProgramError(f"{' '.join(self.command)}: exit code {self.exit_code}\n{self.output}")
        return self


def environment(home: Path, **settings: str | Path) -> dict[str, str]:
    """Build the environment of a child: this environment without Kerberos settings, with another `home`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KRB5")}
    return {
        **inherited,
        "HOME": str(home),
        "LC_ALL": "C",
        "PATH": _search_path(),
        "TMPDIR": str(home),
        **{name: str(value) for name, value in settings.items()},
    }


def find_program(name: str) -> str:
    """Return the program's path, or say how to get it."""
    path = shutil.which(name, path=_search_path())
    if path is None:
        raise ProgramError(f"{name} isn't installed: lab/install-packages installs what the lab needs")
    return path


def _search_path() -> str:
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))


def run(
    *command: str,
    environment: Mapping[str, str],
    stdin: str = "",
    timeout: float = PATIENCE_SECONDS,
) -> Completed:
    """Run a program to its end. The caller checks whether it succeeded."""
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [find_program(command[0]), *command[1:]],
            check=False,
            env=environment,
            errors="replace",
            input=stdin,
            # In its own session, the program gets no Ctrl-C and cannot prompt on the user's terminal.
            start_new_session=True,
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        so_far = (error.stdout or b"").decode(errors="replace")
        raise ProgramError(f"{' '.join(command)}: not done after {timeout} s\n{so_far}") from error
    return Completed(
        command=command,
        exit_code=done.returncode,
        output=done.stdout,
        seconds=time.perf_counter() - started,
    )


class Program:
    """A program that runs in the background until `stop`, with its output as lines."""

    def __init__(self, name: str, *command: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._lines: list[str] = []
        self._has_ended = False
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [find_program(command[0]), *command[1:]],
            env=environment,
            errors="replace",
            start_new_session=True,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def lines(self) -> tuple[str, ...]:
        """All lines of output so far. Their number can be the `after` of a later wait."""
        with self._changed:
            return tuple(self._lines)

    def wait_for_lines(
        self,
        matches: Callable[[str], bool],
        *,
        count: int = 1,
        after: int = 0,
        timeout: float = PATIENCE_SECONDS,
    ) -> Sequence[str]:
        """Wait for `count` matching lines after the first `after` lines, and return all matching lines."""

        def found() -> list[str]:
            return [line for line in self._lines[after:] if matches(line)]

        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or len(found()) >= count, timeout)
            if len(found()) >= count:
                return found()
        end = "ended" if self._has_ended else f"printed too few of these lines in {timeout} s"
        raise self._error(f"{end}: {len(found())} of {count}")

    def wait_for_line(
        self, matches: Callable[[str], bool], *, after: int = 0, timeout: float = PATIENCE_SECONDS
    ) -> str:
        """Wait for the first matching line after the first `after` lines."""
        return self.wait_for_lines(matches, after=after, timeout=timeout)[0]

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process if it still runs."""
        self._process.send_signal(number)

    def wait(self, *, timeout: float = PATIENCE_SECONDS) -> int:
        """Wait for the program's end; return its exit code, negative if a signal ended it."""
        try:
            exit_code = self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise self._error(f"still runs after {timeout} s") from error
        # A child of the program may keep the output open. The lines so far are then all lines.
        self._reader.join(1.0)
        return exit_code

    def stop(self, *, timeout: float = PATIENCE_SECONDS) -> int:
        """End the program by SIGTERM and return its exit code; if it still runs, kill it and raise an error.

        If the program has ended already, only return its exit code.
        """
        self._process.terminate()
        try:
            return self.wait(timeout=timeout)
        except ProgramError as error:
            self._kill()
            raise self._error(f"DIDN'T END on SIGTERM within {timeout} s and was killed") from error

    def _kill(self) -> None:
        # The program leads the process group of its own session, so this ends only the program and its
        # children.
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _error(self, what: str) -> ProgramError:
        output = "\n".join(self.lines) or "(no output)"
        return ProgramError(f"{self.name} (pid {self.pid}) {what}; its output:\n{output}")
