"""Accepting, while file descriptors are short. test_acceptor has everything else of the listeners."""

import resource
import time

from kkdcpd.frontends.http.listening import ACCEPT_RETRY_SECONDS
from tests.frontends.site import Site, parse_line
from tests.support.http_client import post
from tests.support.messages import as_req, envelope


def limit_workers(site: Site, limits: tuple[int, int]) -> None:
    for pid in site.daemon.workers:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def test_each_worker_logs_a_lack_of_descriptors_once_and_recovers(site: Site) -> None:
    """The limit of all worker processes falls to the number of their open descriptors, and rises again."""
    limits = resource.prlimit(site.daemon.pid, resource.RLIMIT_NOFILE)
    after = len(site.daemon.lines)
    unserved = post(envelope(as_req(), "OTHER.TEST"))
    with site.plain_client() as earlier:
        assert earlier.ask(unserved).status == 503
        limit_workers(site, (3, limits[1]))
        try:
            with site.plain_client() as client:
                line = site.daemon.wait_for_line(lambda line: "accept_failed" in line, after=after)
                time.sleep(3 * ACCEPT_RETRY_SECONDS)  # Time for more lines.
                assert earlier.ask(unserved).status == 503
                limit_workers(site, limits)
                assert client.ask(unserved).status == 503
        finally:
            limit_workers(site, limits)
    logged = parse_line(line)
    assert (logged["level"], logged["reason"]) == ("warning", "[Errno 24] Too many open files")
    again = site.daemon.wait_for_line(lambda line: "accept_recovered" in line, after=after)
    assert parse_line(again)["listen"] == logged["listen"]
    times = sum("accept_failed" in line for line in site.daemon.lines[after:])
    assert 1 <= times <= len(site.daemon.workers)
