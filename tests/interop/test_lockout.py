"""A realm with lockout after three wrong passwords counts each password once, though replies are lost."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.namespace import NetworkNamespace
from lab.program import PATIENCE_SECONDS, find_program
from lab.realm import MitRealm, Principal
from tests.interop.conftest import PASSWORD, REALM, FrontMaker, Site, Witness

IMPATIENT = """
    [upstream]
    reach_timeout = 2
    reply_timeout = 2
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkNamespace]:
    with NetworkNamespace(tmp_path) as network:
        yield network


@pytest.fixture
def realm(network: NetworkNamespace, tmp_path: Path) -> Iterator[MitRealm]:
    del network  # the realm's servers start in this namespace
    alice = Principal(name="alice", password=PASSWORD, options=("+requires_preauth",))
    with MitRealm(tmp_path / "realm", name=REALM, principals=[alice]) as realm:
        for _ in range(2):
            realm.start_kdc()
        realm.kadmin("addpol", "-maxfailure", "3", "lockout")
        realm.kadmin("modprinc", "-policy", "lockout", "alice")
        yield realm


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_two_wrong_passwords_count_two_failures_though_one_kdc_is_silent(
    transport: str, network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    network.drop_replies(realm.kdc.port)
    site = make_front(realm, *(f"{transport}://{kdc.endpoints[0]}" for kdc in realm.kdcs))
    witness = Witness(realm)
    for _ in range(2):
        assert "Password incorrect" in site.clients().kinit("alice", "wrong").output
    assert _failures(realm) == 2
    # The second KDC got the first request after the first KDC's silence.
    assert len(witness.seen_by(realm.kdc)) == 1
    site.clients().kinit("alice", PASSWORD).expect_ok()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_wrong_password_with_a_lost_reply_counts_once(
    transport: str, network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    kdcs = [f"{transport}://{kdc.endpoints[0]}" for kdc in realm.kdcs]
    site = make_front(realm, *kdcs, sections=IMPATIENT)
    assert not _log_in_but_lose_the_answer(site, "wrong", network)
    assert _failures(realm) == 1
    assert "Password incorrect" in site.clients().kinit("alice", "wrong").output
    assert _failures(realm) == 2
    [lost] = [line for line in site.wait_for_exchanges(4) if line["outcome"] != "answered"]
    assert (lost["outcome"], lost["attempts"]) == ("no_kdc_reply", "1")


def _log_in_but_lose_the_answer(site: Site, password: str, network: NetworkNamespace) -> bool:
    """Whether a log-on succeeds if no reply of the first KDC arrives after it got the password."""
    client = site.clients()
    with subprocess.Popen(
        [find_program("kinit"), "alice"],
        env=client.environment,
        start_new_session=True,
        stderr=subprocess.STDOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as kinit:
        try:
            # The KDC has answered the first request; its next reply is the reply to the password.
            site.wait_for_exchanges(1)
            network.drop_replies(site.realm.kdc.port)
            kinit.communicate(f"{password}\n", timeout=PATIENCE_SECONDS)
        finally:
            kinit.kill()
    return kinit.returncode == 0


def _failures(realm: MitRealm) -> int:
    shown = realm.kadmin("getprinc", "alice").output
    found = re.search(r"^Failed password attempts: (\d+)$", shown, re.MULTILINE)
    assert found, shown
    return int(found[1])
