"""The daemons that this folder's tests ask."""

from collections.abc import Iterator

import pytest

from lab.authority import Authority
from tests.frontends.site import Site, run_site


@pytest.fixture(scope="package", params=["text", "json"])
def site(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A patient daemon, once for each format of the log."""
    settings = f"""
        [log]
        format = "{request.param}"
        [http]
        paths = ["/KdcProxy", "/", "/Tenant-1/kerberos"]
        [upstream]
        reach_timeout = 3
        reply_timeout = 8
    """
    with run_site(tmp_path_factory.mktemp(f"site-{request.param}"), authority, settings) as running:
        yield running


@pytest.fixture(scope="package")
def hasty_site(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A daemon with short deadlines."""
    settings = """
        [log]
        level = "debug"
        [http]
        body_timeout = 0.5
        head_timeout = 0.5
        keepalive_timeout = 0.5
        max_requests_per_connection = 3
    """
    with run_site(tmp_path_factory.mktemp("hasty"), authority, settings) as running:
        yield running
