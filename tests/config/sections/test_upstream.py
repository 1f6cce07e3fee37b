import pytest

from tests.config.broken import REALM, problems_of

BROKEN = {
    "a stagger longer than a connect": (
        REALM + "[upstream]\nstagger = 2",
        (
            "upstream.stagger: 2 seconds is longer than connect_timeout, which is 1.5; "
            "write 1.5 or less, or raise connect_timeout"
        ),
    ),
    "hedges that come too late": (
        REALM + "[upstream]\nhedge_delay = 21",
        (
            "upstream.hedge_delay: 21 seconds is longer than reply_timeout, which is 20; "
            "write 20 or less, or raise reply_timeout"
        ),
    ),
    "hedges in per cent": (
        REALM + "[upstream]\nhedge_ratio = 10",
        "upstream.hedge_ratio: 10 is too large; write a number of hedges per request from 0 to 1",
    ),
    "two source addresses of one family": (
        REALM + '[upstream]\nsource_addresses = ["2001:db8::1", "192.0.2.1", "192.0.2.2"]',
        (
            "upstream.source_addresses[2]: is an IPv4 address as upstream.source_addresses[1] is; "
            "remove one of them"
        ),
    ),
    "a source address for all": (
        REALM + '[upstream]\nsource_addresses = ["0.0.0.0"]',
        (
            'upstream.source_addresses[0]: "0.0.0.0" is no address that one interface can have; '
            'write an IP address of this host, such as "192.0.2.1"'
        ),
    ),
    "a principal with its realm": (
        REALM + '[upstream]\nprobe_principal = "probe@EXAMPLE.COM"',
        (
            'upstream.probe_principal: "probe@EXAMPLE.COM" has an @ in it; '
            "leave out the realm: each realm's KDCs are asked for their own"
        ),
    ),
    "a principal that is none": (
        REALM + '[upstream]\nprobe_principal = "host/"',
        (
            'upstream.probe_principal: "host/" is no principal\'s name; '
            'write a name such as "krbtgt", "probe" or "host/kdc1"'
        ),
    ),
    "probes that never get rarer": (
        REALM + "[upstream]\nprobe_interval_maximum = 1",
        (
            "upstream.probe_interval: 2 seconds is longer than probe_interval_maximum, which is 1; "
            "write 1 or less, or raise probe_interval_maximum"
        ),
    ),
    "a boolean for a number": (
        REALM + "[upstream]\nreply_timeout = true",
        "upstream.reply_timeout: true is a boolean; write a number of seconds from 0.1 to 300",
    ),
    "milliseconds for seconds": (
        REALM + "[upstream]\nreply_timeout = 20000",
        "upstream.reply_timeout: 20000 is too large; write a number of seconds from 0.1 to 300",
    ),
    "timeouts out of order": (
        REALM + "[upstream]\nreach_timeout = 25.5",
        (
            "upstream.reach_timeout: 25.5 seconds is longer than reply_timeout, which is 20; "
            "write 20 or less, or raise reply_timeout"
        ),
    ),
    "a connect that takes too long": (
        REALM + "[upstream]\nconnect_timeout = 6",
        (
            "upstream.connect_timeout: 6 seconds is longer than reach_timeout, which is 5; "
            "write 5 or less, or raise reach_timeout"
        ),
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines
