"""kkdcpd as a process: `python -m kkdcpd --config FILE`."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.program import PATIENCE_SECONDS, Program

__all__ = ["Daemon", "is_exchange", "without_defaults"]

# Text or JSON. The listening addresses follow `ready`. A time of day may precede it.
_READY = re.compile(r"\bready\b(?P<addresses>.*)")
_PORT = re.compile(r"(?:\[[^]]*\]|[\w.*-]+):(\d+)\b")
_SOURCES = Path(__file__).parent.parent / "src"
_EXCHANGE = re.compile(r'\S+ \w+ exchange |.*"event": "exchange"')


def is_exchange(line: str) -> bool:
    """Whether a line of the log, text or JSON, is the line of an exchange."""
    return bool(_EXCHANGE.match(line))


def without_defaults(config: str) -> str:
    """Switch off the parts with a fixed default address, unless the configuration has a section for them."""
    quiet = {"[admin]": 'admin.address = ""\n', "[process]": 'process.control = ""\n'}
    return "".join(line for section, line in quiet.items() if section not in config) + config


class Daemon(Program):
    """A kkdcpd that is ready to serve, with `config` as its config.toml in `directory`.

    `lines` is its log. `ports` are the ports of its listeners, in the order of the configuration. Without
    sections for them, it has neither an admin listener nor a control socket: only one kkdcpd could use their
    default addresses. `python` has its dependencies and `sources` its code. `environment` is added to the
    environment of this process.
    """

    def __init__(
        self,
        directory: Path,
        config: str,
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float = PATIENCE_SECONDS,
        python: str = sys.executable,
        sources: Path = _SOURCES,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "config.toml"
        self.config.write_text(without_defaults(config))
        super().__init__(
            *("kkdcpd", python, "-m", "kkdcpd", "--config", str(self.config)),
            environment={**os.environ, "PYTHONPATH": str(sources), **(environment or {})},
        )
        try:
            self.ports = _ports(self.wait_for_line(lambda line: bool(_READY.search(line)), timeout=timeout))
        except BaseException:
            self.stop()
            raise

    @property
    def workers(self) -> tuple[int, ...]:
        """The ids of its child processes, of earlier generations too until they end."""
        return tuple(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))

    @property
    def descriptors(self) -> int:
        """The number of open files and sockets of all its processes."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (self.pid, *self.workers))  # noqa: PTH208

    @property
    def megabytes(self) -> float:
        """The resident memory of all its processes, in MiB; shared memory counts for each process."""
        return sum(map(_resident_megabytes, (self.pid, *self.workers)))


def _resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _ports(ready_line: str) -> tuple[int, ...]:
    ready = _READY.search(ready_line)
    assert ready is not None
    return tuple(int(port) for port in _PORT.findall(ready["addresses"]))
