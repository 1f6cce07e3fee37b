"""The section [process]: the number of worker processes, their end, and the control socket."""

from pathlib import Path
from typing import Annotated

from kkdcpd.config.kinds import File, NoneAs, Range, seconds
from kkdcpd.frozen import frozen

__all__ = ["MAX_WORKERS", "ProcessConfig"]

MAX_WORKERS = 32


@frozen
class ProcessConfig:
    """The processes: a parent process, which holds sockets and key, and worker processes, which serve."""

    workers: Annotated[int | None, Range(1, MAX_WORKERS, "processes"), NoneAs("auto")] = None
    """The number of worker processes: "auto" is one for each usable CPU, at most 8.

    One worker process serves some thousand log-ons a second.
    """

    drain_timeout: Annotated[float, seconds(3600, minimum=0)] = 25.0
    """The time that a worker process has to finish its requests when it ends (at a reload, or when the
    service stops).

    The worker process asks clients to close open connections, so that no request is lost; after this time it
    closes them. The default is a little more than upstream.reply_timeout.
    """

    control: Annotated[Path | None, File("/run/kkdcpd/control.sock")] = Path("/run/kkdcpd/control.sock")
    """The UNIX socket of `kkdcpd reload`. With "", only SIGHUP reloads the configuration.

    Only root and the user of kkdcpd may use it. A relative path starts at the directory of this file.
    """
