"""The arithmetic behind the defaults of [guard], and its bad values."""

from dataclasses import fields

import pytest

from kkdcpd.config import RealmConfig
from kkdcpd.config.sections.connections import ConnectionsConfig
from kkdcpd.config.sections.guard import FailuresConfig, GuardConfig, RatesConfig
from kkdcpd.config.sections.policy import PolicyConfig
from kkdcpd.values import Mode
from tests.config.broken import REALM, problems_of

REQUESTS_PER_LOGON = 10
PEOPLE = 2000
MORNING_SECONDS = 600


def test_office_behind_one_address_stays_below_the_limits() -> None:
    rates = RatesConfig()
    assert rates.client_rate > PEOPLE * REQUESTS_PER_LOGON / MORNING_SECONDS
    assert rates.client_burst >= 100 * REQUESTS_PER_LOGON
    assert rates.client_rate * 5 <= rates.client_concurrency


def test_office_that_mistypes_is_no_sprayer() -> None:
    failures = FailuresConfig()
    logged_on, mistyped = 190, 10
    allowed = failures.sprayed_principals + failures.principals_per_success * logged_on
    assert mistyped < allowed
    assert failures.sprayed_principals < 20, "a sprayer without log-ons is stopped within 20 tries"


def test_limits_of_one_client_are_below_the_limits_of_all() -> None:
    rates, connections = RatesConfig(), ConnectionsConfig()
    assert rates.client_rate < rates.realm_rate < rates.total_rate
    assert rates.client_burst < rates.realm_burst < rates.total_burst
    assert rates.client_concurrency < rates.total_concurrency
    assert connections.per_client < connections.maximum


def test_table_takes_four_mebibytes() -> None:
    assert GuardConfig().table_entries * 64 == 4 * 1024 * 1024


def test_defaults_refuse_no_ordinary_client() -> None:
    policy = PolicyConfig()
    enforced = {
        name
        for name in [field.name for field in fields(PolicyConfig)]
        if getattr(policy, name) is Mode.ENFORCE
    }
    harmless = {"message_kind", "cname", "sname", "client_certificate", "token"}
    assert enforced == {"realm_mismatch", *harmless}
    assert len(policy.message_kinds) == 3
    assert policy.cname_allow == policy.cname_deny == policy.sname_allow == policy.sname_deny == ()
    realm = RealmConfig(name="EXAMPLE.COM")
    assert (realm.client_certificates, realm.tokens) == ((), ())


BROKEN = {
    "a table that is no power of two": (
        REALM + "[guard]\ntable_entries = 100000",
        "guard.table_entries: 100000 is no power of two; write 131072",
    ),
    "blocks out of order": (
        REALM + "[guard.failures]\nblock = 600\nblock_maximum = 60",
        (
            "guard.failures.block: 600 seconds is longer than block_maximum, which is 60; "
            "write 60 or less, or raise block_maximum"
        ),
    ),
    "an unknown mode": (
        REALM + '[guard.rates]\nmode = "on"',
        'guard.rates.mode: "on" is not one of its values; write "off", "monitor" or "enforce"',
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines
