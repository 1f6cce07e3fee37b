"""Checks that the cost of a request does not grow with realms, KDCs and clients: `python -m bench.flat`.

Two kkdcpds with few and many realms or KDCs serve requests alternately. For clients, this process calls a
guard, because requests of a million clients would take an hour. The guard's table has the default size, and
its memory does not grow.
"""

import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

from bench.bodies import REALM, reply_to, request
from bench.clocks import cpu_seconds
from bench.document import replace_section, table
from bench.load import address
from bench.servers import Server
from bench.stage import NO_LIMITS, Stage
from kkdcpd.config import Config, GuardConfig, ListenConfig, RealmConfig
from kkdcpd.config.addresses import ListenAddress
from kkdcpd.guard.guard import Guard
from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.messages import classify, inspect_reply
from kkdcpd.shared_memory.entries import ENTRY_BYTES
from kkdcpd.values import ClientConnection
from tests.support.shared import own_counts, own_table

__all__ = ["run"]

ROUNDS = 11
REQUESTS = 800
LIMIT = 1.1
MANY_REALMS = 1000
MANY_KDCS = 50
MANY_CLIENTS = 1_000_000
"""The number of clients, each with its own address and one request."""

SAMPLE = 20_000


def run() -> bool:
    """Measure, print and document; return whether all results are within the limit."""
    with ExitStack() as stack:
        stage = Stage(stack)
        plain = stage.start(NO_LIMITS)
        others = {
            f"1 to {MANY_REALMS} realms": stage.start(NO_LIMITS + _realms(MANY_REALMS - 1)),
            f"1 to {MANY_KDCS} KDCs": stage.start(NO_LIMITS, kdcs=MANY_KDCS),
        }
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in others}
        for number in range(ROUNDS + 1):
            for name, other in others.items():
                pair = (plain, other) if number % 2 else (other, plain)
                first, second = (_cost(stage, server) for server in pair)
                # The first round warms up.
                if number:
                    costs[name].append((first, second) if number % 2 else (second, first))
    request_cost = statistics.median(before for pairs in costs.values() for before, _ in pairs)
    ratios = {name: [after / before for before, after in pairs] for name, pairs in costs.items()}
    early, late = _guard_costs()
    # The rest of a request costs the same.
    ratios[f"1 to {MANY_CLIENTS:,} addresses in the guard's table"] = [
        (request_cost + later - sooner) / request_cost for sooner, later in zip(early, late, strict=True)
    ]
    rows = [[name, _described(samples)] for name, samples in ratios.items()]
    memory = GuardConfig().table_entries * ENTRY_BYTES / 1048576
    text = "\n".join(
        (
            f"CPU per request, much to little; {ROUNDS} rounds, median (quartiles), limit {LIMIT}\n",
            *table(["what grows", "ratio"], rows),
            f"\nThe guard takes {statistics.median(early):.1f} µs of a request when its table is new,",
            f"{statistics.median(late):.1f} µs after {MANY_CLIENTS:,} addresses;",
            f"its table has {memory:.0f} MiB before and after.",
        )
    )
    print(text)
    replace_section("flat", text)
    return all(statistics.median(samples) <= LIMIT for samples in ratios.values())


def _realms(count: int) -> str:
    return "\n".join(f'[realms."R{number}.TEST"]\nkdc = ["udp://127.0.0.1:88"]' for number in range(count))


def _cost(stage: Stage, server: Server) -> float:
    """Return the CPU time of a request in microseconds."""
    before = cpu_seconds(server.pid)
    stage.ask(server, requests=REQUESTS)
    return (cpu_seconds(server.pid) - before) / REQUESTS * 1_000_000


def _guard_costs() -> tuple[list[float], list[float]]:
    """Return the guard's microseconds for the first clients and for clients after a million others."""
    realm = RealmConfig(name=REALM)
    listen = ListenConfig(address=ListenAddress(host="127.0.0.1", port=0), tls=False)
    config = Config(listen=(listen,), realms=(realm,))
    rates = replace(config.guard.rates, realm_rate=1e6, realm_burst=10**7, total_rate=1e6, total_burst=10**7)
    config = replace(config, guard=replace(config.guard, rates=rates))
    guard = Guard(config, own_table(config.guard.table_entries), own_counts(), time.monotonic)
    asked = classify(decode_proxy_message(request("AS-REQ")))
    facts = inspect_reply(asked.kind, reply_to(asked.payload))
    costs = []
    for start in range(0, MANY_CLIENTS, SAMPLE):
        clients = [_client(start + number) for number in range(SAMPLE)]
        before = time.process_time()
        for client in clients:
            with guard.in_flight(client) as verdict:
                assert not verdict.refusal
                assert not guard.admit(asked, client, realm).refusal
                assert not guard.review(asked, client, realm, facts).refusal
        costs.append((time.process_time() - before) / SAMPLE * 1_000_000)
    return costs[:ROUNDS], costs[-ROUNDS:]


def _client(number: int) -> ClientConnection:
    return ClientConnection(address=address(number), port=1024, tls="TLSv1.3", network=address(number))


def _described(samples: list[float]) -> str:
    low, median, high = statistics.quantiles(samples, n=4)
    return f"{median:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
