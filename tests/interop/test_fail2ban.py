"""The fail2ban filter, in Debian's fail2ban-regex, with the log of a real kkdcpd about real clients."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from kkdcpd.log.lines import JsonLines, TextLines
from lab.program import run
from lab.realm import MitRealm
from tests.interop.conftest import REALM, ForwarderMaker, FrontMaker
from tests.interop.test_guard_failures import Place, guess
from tests.log.test_lines import failed
from tests.support import messages
from tests.support.http_client import post

FILTER = Path(__file__).parents[2] / "deploy" / "fail2ban" / "filter.d" / "kkdcpd.conf"
UNIT = "kkdcpd.service"
JOURNAL_REMOTE = "/usr/lib/systemd/systemd-journal-remote"

GUESSER = "127.0.0.66"
SPRAYER = "127.0.0.67"
LIAR = "127.0.0.68"
HONEST = "127.0.0.7"
VICTIM = "192.0.2.99"

GUESSES = 10
REFUSED = 3
SPRAYED = 6

LIES = (
    f"x client={VICTIM} kind=AS_REQ error=24 error_name=y",
    f'x" client={VICTIM} kind=AS_REQ error=24 z="',
    f'x", "client": "{VICTIM}", "kind": "AS_REQ", "error": 24, "z": "',
    f"x\n2026-11-22T00:00:00.000Z info exchange id=00000000 client={VICTIM} kind=AS_REQ error=24 x",
    f'x\n{{"time": "2026-11-22T00:00:00.000Z", "level": "info", "event": "exchange", "client": "{VICTIM}"}}',
    f"host kkdcpd[1]: info exchange id=0 client={VICTIM} kind=AS_REQ error=24 ",
    "x error=24 ",
    "x=24\\",
)


@pytest.fixture(params=["text", "json"])
def place(
    request: pytest.FixtureRequest,
    guarded: MitRealm,
    make_front: FrontMaker,
    make_forwarder: ForwarderMaker,
) -> Place:
    site = make_front(guarded, sections=f'[log]\nformat = "{request.param}"')
    return Place(site=site, forwarder=make_forwarder(site))


def log_of_a_day(place: Place) -> list[str]:
    """Make log lines that the filter should match, lines that it should not match, and forged lines."""
    for _ in range(GUESSES + REFUSED):
        place.log_in("alice", GUESSER, "wrong")
    place.send_all([guess(f"unknown-{number}") for number in range(SPRAYED)], SPRAYER)
    place.log_in("bob", HONEST).expect_ok()
    place.send_all([messages.as_req(realm=REALM, cname=(1, ["bob"]))], HONEST)
    with place.site.connect(place.forwarder.port_of(LIAR)) as client:
        for lie in LIES:
            # A requested name, a realm that is not served, a service, a path.
            client.ask(post(messages.envelope(messages.as_req(realm=REALM, cname=(1, ["bob"])), lie)))
            client.ask(post(messages.envelope(messages.as_req(realm=REALM, sname=(1, [lie])), REALM)))
    with place.site.connect(place.forwarder.port_of(LIAR)) as client:
        for lie in LIES:
            last = client.ask(post(messages.envelope(guess(lie), REALM)))
    place.site.daemon.wait_for_line(lambda line: last.request_id in line)
    return list(place.site.daemon.lines)


def hosts_by(log: str, *options: str) -> list[str]:
    """Return the host of each line that the filter matches."""
    done = run("fail2ban-regex", *options, "-o", "ip", log, str(FILTER), environment=os.environ)
    return done.expect_ok().output.split()


def check(found: Sequence[str]) -> None:
    assert set(found) == {GUESSER, SPRAYER, LIAR}
    # Each wrong password, and each try during the block; MIT's clients may repeat a request after a refusal.
    assert found.count(GUESSER) >= GUESSES + REFUSED
    assert found.count(SPRAYER) == SPRAYED
    # Each of the sprayer's names is unknown. The lines name only the sprayer's own address.
    assert found.count(LIAR) <= 2 * len(LIES)


def test_failures_are_seen_in_a_file(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "kkdcpd.log"
    path.write_text("".join(f"{line}\n" for line in log_of_a_day(place)))
    check(hosts_by(str(path)))


def test_failures_are_seen_in_the_journal(place: Place, tmp_path: Path) -> None:
    lines = log_of_a_day(place)
    if not lines[0].startswith("{"):
        lines = [
            line.partition(" ")[2] for line in lines
        ]  # the format of text for the journal, without a time
    path = tmp_path / "system.journal"
    write_journal(path, lines)
    check(hosts_by(f"systemd-journal[journalfiles={path}]", "-m", f"_SYSTEMD_UNIT={UNIT}"))


def write_journal(path: Path, lines: Sequence[str]) -> None:
    """Make a journal in its export format (systemd's JOURNAL_EXPORT_FORMATS)."""
    entries = [
        f"__REALTIME_TIMESTAMP={1795305600000000 + number}\n__MONOTONIC_TIMESTAMP={number + 1}\n"
        f"_BOOT_ID={'1' * 32}\n_SYSTEMD_UNIT={UNIT}\n_HOSTNAME=host\n_PID=1\nSYSLOG_IDENTIFIER=kkdcpd\n"
        f"PRIORITY=6\nMESSAGE={line}\n\n"
        for number, line in enumerate(lines)
    ]
    run(JOURNAL_REMOTE, f"--output={path}", "-", environment=os.environ, stdin="".join(entries)).expect_ok()


def test_traceback_is_no_line_of_an_exchange(tmp_path: Path) -> None:
    """The filter ignores the text of an exception."""
    forged = f"info exchange id=0 client={VICTIM} kind=AS_REQ error=24 x"
    timed = f"2026-11-22T00:00:00.000Z {forged}"
    path = tmp_path / "kkdcpd.log"
    texts = [f"odd\n{forged}", f"odd\n{timed}", f"odd\n host kkdcpd[1]: {forged}"]
    path.write_bytes(
        b"".join(form.render(failed(text), {}) for text in texts for form in (TextLines(), JsonLines()))
    )
    assert hosts_by(str(path)) == []
