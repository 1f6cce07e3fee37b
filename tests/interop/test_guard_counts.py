"""Ways around the guard's counts, tried against a real KDC and password server."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.attack.guarded import REALM, WITHIN, GuardedSite, as_req, guarded_site, guess, tries_of
from tests.support import messages

USERS = tuple(f"user{number}" for number in range(20))
NT_ENTERPRISE = 10
GUESSES = 10
KPASSWD_FAILURES = 20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedSite]:
    directory: Path = tmp_path_factory.mktemp("counts")
    with guarded_site(directory, users=USERS, sections='aliases = ["CORP"]\n') as running:
        yield running


def test_ipv4_clients_behind_a_translator_are_counted_one_by_one(site: GuardedSite) -> None:
    spray = [site.send(guess(user), f"64:ff9b::198.51.{number}.1") for number, user in enumerate(USERS)]
    assert tries_of(spray) == len(USERS)


def test_translator_gives_a_client_no_second_limit(site: GuardedSite) -> None:
    addresses = itertools.cycle(["203.0.113.9", "64:ff9b::203.0.113.9", "64:ff9b::cb00:7109"])
    guesses = [site.send(guess("user0"), address) for _, address in zip(range(30), addresses, strict=False)]
    assert tries_of(guesses) == GUESSES


@pytest.mark.parametrize("name_type", [messages.NT_PRINCIPAL, NT_ENTERPRISE])
def test_each_spelling_of_an_unknown_name_counts(site: GuardedSite, name_type: int) -> None:
    client = f"203.0.113.{10 + name_type}"
    names = [(name_type, [f"unknown@suffix{number}"]) for number in range(60)]
    tries = [site.send(messages.as_req(realm=REALM, cname=name), client) for name in names]
    assert tries_of(tries) <= WITHIN


def test_one_spelling_of_an_unknown_name_counts_once(site: GuardedSite) -> None:
    assert tries_of(site.send_all([as_req("misconfigured@host")] * 60, "203.0.113.40")) == 60


def test_names_of_one_realm_share_its_counts(site: GuardedSite) -> None:
    names = itertools.cycle([REALM, "kk.test", "CORP", "corp", "KK.TEST."])
    tries = [
        site.send(guess("user1"), "203.0.113.50", name) for _, name in zip(range(60), names, strict=False)
    ]
    assert tries_of(tries) == GUESSES


def test_flood_of_password_changes_is_stopped_for_its_network_alone(site: GuardedSite) -> None:
    flood = [messages.kpasswd_req(realm=REALM)] * 60
    with site.honest_client() as honest:
        assert tries_of(site.send_all(flood, "203.0.113.60")) == KPASSWD_FAILURES
        assert tries_of(site.send_all(flood, "203.0.113.61")) == KPASSWD_FAILURES
    assert set(honest.result.statuses) <= {200}
    assert site.send(as_req("user2"), "203.0.113.60") == 200
