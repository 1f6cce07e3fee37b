"""Starts a kkdcpd for a measurement, with its clients and its KDC."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.bodies import request
from bench.kdc_process import start_kdcs
from bench.load import CLIENTS, Clients, Job
from bench.servers import Place, Server, start_kkdcpd
from lab.authority import Authority

__all__ = ["NO_LIMITS", "NO_RATES", "Stage"]

NO_RATES = """
    [guard.rates]
    client_rate = 1000000
    client_burst = 10000000
    realm_rate = 1000000
    realm_burst = 10000000
    total_rate = 1000000
    total_burst = 10000000
    """
"""Rates for more requests than all clients of a real kkdcpd send. The rules are still applied."""

NO_LIMITS = f"""{NO_RATES}
    [connections]
    per_network = 1048576
    handshake_rate = 1000000
    handshake_burst = 10000000
    """
"""Limits for more connections. Settings of [connections] may follow directly."""


class Stage:
    """Starts kkdcpds, each with its own KDCs, which run as long as the stack."""

    def __init__(self, stack: ExitStack, clients: int = CLIENTS) -> None:
        self._stack = stack
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._authority = Authority(self._directory / "tls")
        self._pair = self._authority.issue("localhost")
        self._count = 0
        self.clients = stack.enter_context(Clients(clients))

    def start(self, more: str = "", *, kdcs: int = 1, kdc_seconds: float = 0.0) -> Server:
        """Start a kkdcpd with `more` settings, in front of a number of KDCs with a delay."""
        ports = start_kdcs(self._stack, count=kdcs, seconds=kdc_seconds)
        directory = self._directory / f"{self._count}"
        self._count += 1
        place = Place(directory=directory, pair=self._pair, way_out="udp", kdc_ports=tuple(ports))
        return start_kkdcpd(place, self._stack, more)

    def paced(self, server: Server, *, requests: int, interval: float = 0.0) -> Job:
        """Make a job that sends AS-REQs over kept connections, with pauses."""
        return Job(
            port=server.port,
            authority=self._authority.certificate,
            bodies=(request("AS-REQ"),),
            requests=requests,
            keeps_connection=True,
            interval=interval,
        )

    def ask(self, server: Server, *, requests: int, threads: int = 1) -> list[float]:
        """Let all clients send requests, and return the latency of each request."""
        return self.clients.ask(self.paced(server, requests=requests), threads=threads)
