"""Fits the number of connections to the limit of file descriptors, and counts the usable CPUs."""

import contextlib
import dataclasses
import math
import os
import resource
from collections.abc import Iterable
from pathlib import Path

from kkdcpd.config import Config
from kkdcpd.errors import ConfigProblem, StartError
from kkdcpd.upstream.ports import ports_within

__all__ = ["MORE_DESCRIPTORS", "count_cpus", "fit_to_descriptors"]

OTHER_DESCRIPTORS = 64
"""File descriptors for listeners, DNS and the event loop, beside connections and exchanges."""

MINIMUM_DESCRIPTORS = 128
"""A process needs this limit to serve at all, with about 20 connections."""

MORE_DESCRIPTORS = f"raise the limit to at least {MINIMUM_DESCRIPTORS} (ulimit -n; systemd: LimitNOFILE=)"

MOST_CPUS = 8
"""Default for the number of worker processes at most. One CPU serves some thousand log-ons a second."""

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def fit_to_descriptors(config: Config) -> tuple[Config, Iterable[ConfigProblem]]:
    """Raise the soft limit of file descriptors, and lower `connections.maximum` to the number that fits.

    Each connection needs one descriptor, and a second one for the KDC while a request is in flight. Abandoned
    datagrams keep some, too. So clients can never use up the descriptors for the way to the KDCs.

    Raises:
        StartError: the limit is too low to serve at all.
    """
    _soft, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if limit == resource.RLIM_INFINITY:
        return config, ()
    if limit < MINIMUM_DESCRIPTORS:
        raise StartError(f"a process may have only {limit} file descriptors", MORE_DESCRIPTORS)
    connections = config.connections
    room = (limit - ports_within(limit) - OTHER_DESCRIPTORS) // 2
    if connections.maximum <= room:
        return config, ()
    problem = ConfigProblem(
        key="connections.maximum",
        problem=f"is {connections.maximum}, but {limit} file descriptors are only enough for {room}",
        remedy=f"raise the limit (systemd: LimitNOFILE=), or write {room} or less",
    )
    return dataclasses.replace(config, connections=dataclasses.replace(connections, maximum=room)), (problem,)


def count_cpus(cpu_max: Path = _CPU_MAX) -> int:
    """Return the number of CPUs that kkdcpd may use: by CPU affinity and by the quota of the cgroup."""
    count = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        # "max 100000", or the microseconds in each period (cgroup v2, cpu.max).
        quota, period = cpu_max.read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, min(count, MOST_CPUS))
