"""The section [guard]: limits for the requests and the failures of clients."""

from collections.abc import Iterator
from typing import Annotated, Literal

from kkdcpd.config.kinds import Range, seconds
from kkdcpd.config.problems import in_order
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen
from kkdcpd.values import Mode

__all__ = ["FailuresConfig", "GuardConfig", "RatesConfig", "RefusalForm"]

RefusalForm = Literal["http", "krb_error"]

_RATE = Range(0.1, 1000000, "requests per second")
_BURST = Range(1, 10000000, "requests")
_CONCURRENCY = Range(1, 1000000, "requests")
_PRINCIPALS = Range(1, 1000000, "principals")
_FAILURES = Range(1, 1000000, "failures")


@frozen
class RatesConfig:
    """The rates of one client, of one realm, and of all requests.

    A Windows log-on sends some 10 requests. If 2000 people behind one address log on between 8:55 and 9:05,
    they send 20000 requests in 600 seconds, 33 a second. If 100 of them log on in the same second, they send
    1000 requests at once.
    """

    mode: Mode = Mode.ENFORCE
    """The mode of these limits."""

    client_rate: Annotated[float, _RATE] = 50.0
    client_burst: Annotated[int, _BURST] = 1000
    """The average rate of one client, and its burst.

    The default is the office above, and half as many again. The IPv6 /56 around a client may send 4 times as
    many requests, the /48 8 times as many.
    """

    client_concurrency: Annotated[int, _CONCURRENCY] = 256
    """The limit of requests in flight from one client.

    A KDC replies within some milliseconds; a delay of 5 seconds means 250 requests at the rate above.
    """

    realm_rate: Annotated[float, _RATE] = 500.0
    realm_burst: Annotated[int, _BURST] = 5000
    """The rate and burst of all clients at one realm.

    The default is ten such offices at a time. One KDC serves some thousands of requests a second.
    """

    total_rate: Annotated[float, _RATE] = 1000.0
    total_burst: Annotated[int, _BURST] = 10000
    """The rate and burst of all requests."""

    total_concurrency: Annotated[int, _CONCURRENCY] = 2048
    """The limit of all requests in flight.

    The default is about 2 seconds of the rate above. A client that waits longer leaves before its turn, and a
    503 sends it to another proxy.
    """


@frozen
class FailuresConfig:
    """The failures of one client.

    A KDC says in clear that a password is wrong or a principal unknown, so kkdcpd can recognise a client that
    guesses. It blocks this client, never the principal, so that no client can lock a user out through kkdcpd.
    """

    mode: Mode = Mode.ENFORCE
    """The mode of these limits."""

    window: Annotated[float, seconds(86400, minimum=10)] = 600.0
    """The time that a failure counts.

    Windows' security baseline has 10 minutes for the lock-out counter of Active Directory.
    """

    guesses: Annotated[int, _FAILURES] = 10
    """The number of failures of one principal from one client within the window that blocks this principal
    for this client.

    Twice as many from an IPv6 /56, or 4 times as many from a /48 or an IPv4 /24, block the principal for that
    network. Domains commonly lock an account after 5 to 10 failures. A phone with an old password takes about
    as many before its user notices.
    """

    sprayed_principals: Annotated[int, _PRINCIPALS] = 15
    principals_per_success: Annotated[float, Range(0, 100, "principals per success")] = 0.5
    """The number of principals that may fail from one client within the window, before kkdcpd treats it as a
    password sprayer. And the number of further principals for each principal that logs on from this client.

    People mistype passwords: in an office of 200, some 10 fail; 115 may.
    """

    unknown_principals: Annotated[int, _PRINCIPALS] = 15
    """The number of unknown principals, clients and services, that one client may name within the window.

    People mistype names more rarely than passwords; an enumerator tries thousands of names.
    """

    kpasswd_failures: Annotated[int, _FAILURES] = 20
    """The number of password changes that may fail from one client within the window.

    kkdcpd cannot see the user, so all failures count together. A server reports a weak new password in
    encrypted form, so such a failure does not count.
    """

    block: Annotated[float, seconds(86400, minimum=1)] = 60.0
    block_maximum: Annotated[float, seconds(86400, minimum=1)] = 3600.0
    """The time that kkdcpd blocks a client. Each further block is twice as long, up to the maximum.

    A minute costs people little; with one hour, 15 guesses are 360 a day.
    """

    alert_clients: Annotated[int, Range(2, 1000000, "clients")] = 5
    """The number of clients from which one principal must fail within the window before kkdcpd logs a
    warning.

    The warning blocks no client. Few people have 5 devices in 5 networks with an old password.
    """

    def find_problems(self, key: str) -> Iterator[ConfigProblem]:
        """Find a first block that is longer than the longest block."""
        return in_order(self, key, [("block", "block_maximum")])


@frozen
class GuardConfig:
    """The guard stops clients that guess passwords through kkdcpd or overload the KDCs.

    A client is an IPv4 address or an IPv6 /64; multiples of some limits hold for the wider networks around
    it. Rules have modes: "off"; "monitor" only logs what the rule would refuse; "enforce" refuses.
    """

    refusal: RefusalForm = "http"
    """The answer to a refused request.

    "http" answers it with status 403, 429 or 503; clients then try their next proxy, if they have one.
    "krb_error" answers it with a KRB-ERROR of KDC_ERR_POLICY that has the reason, which clients show to the
    user.
    """

    table_entries: Annotated[int, Range(1024, 16777216, "entries")] = 65536
    """The number of clients and failed principals that the guard remembers; a power of two.

    An entry takes 64 bytes: the default is 4 MiB for all worker processes. When the table is full, the least
    important entry gives way. An office takes some entries, a botnet 65536.
    """

    rates: RatesConfig = RatesConfig()
    failures: FailuresConfig = FailuresConfig()

    def find_problems(self, key: str) -> Iterator[ConfigProblem]:
        """Find a size of the table that is no power of two."""
        entries = self.table_entries
        if entries & (entries - 1):
            yield ConfigProblem(
                key=f"{key}.table_entries",
                problem=f"{entries} is no power of two",
                remedy=f"write {1 << entries.bit_length()}",
            )
