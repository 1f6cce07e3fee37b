"""How many connections our file descriptors are enough for, and how many CPUs we may use."""

import contextlib
import dataclasses
import math
import os
import resource
from collections.abc import Iterable
from pathlib import Path

from kkdcpd.config import Config
from kkdcpd.errors import ConfigProblem
from kkdcpd.upstream.ports import ports_within

__all__ = ["count_cpus", "fit_to_descriptors"]

OTHER_DESCRIPTORS = 64
"""File descriptors besides those of connections and exchanges: listeners, DNS, the event loop's own."""

MOST_CPUS = 8
"""One CPU serves some thousand log-ons a second. Who has more to serve says so."""

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def fit_to_descriptors(config: Config) -> tuple[Config, Iterable[ConfigProblem]]:
    """Raise the limit of file descriptors as far as we may, and take no more connections than fit in it.

    Each connection has one, and while it is served another one to a KDC. Abandoned datagrams have some too.
    Strangers can then never take those with which KDCs are asked.
    """
    _soft, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    connections = config.connections
    room = max((limit - ports_within(limit) - OTHER_DESCRIPTORS) // 2, 1)
    if limit == resource.RLIM_INFINITY or connections.maximum <= room:
        return config, ()
    problem = ConfigProblem(
        key="connections.maximum",
        problem=f"is {connections.maximum}, but {limit} file descriptors are only enough for {room}",
        remedy=f"raise the limit (systemd: LimitNOFILE=), or write {room} or less",
    )
    return dataclasses.replace(config, connections=dataclasses.replace(connections, maximum=room)), (problem,)


def count_cpus(cpu_max: Path = _CPU_MAX) -> int:
    """Return how many CPUs we may use: those that we may run on, or the share that a cgroup leaves."""
    count = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        # "max 100000", or the microseconds in each period (cgroup v2, cpu.max).
        quota, period = cpu_max.read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, min(count, MOST_CPUS))
