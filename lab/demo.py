"""Shows kkdcpd at work: a user of a realm that can be reached through HTTPS alone logs in, and more.

    python -m lab.demo [--keep]

All of it is made in a temporary folder and gone at the end. Exits 0 if every step went as it should.
"""

import argparse
import contextlib
import itertools
import shlex
import signal
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from kkdcpd.values import Transport
from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon, is_exchange
from lab.program import Completed, ProgramError
from lab.realm import MitRealm, Principal

WIDTH = 100  # columns
LOG_SECONDS = 5.0  # a log line that takes longer than this is missing
SERVICE = "HTTP/www.kk.test"
OLD_PASSWORD = "winter-is-long"  # noqa: S105 - the realm lives for seconds
NEW_PASSWORD = "spring-has-come"  # noqa: S105

CONFIG = """\
[[listen]]
address = "127.0.0.1:0"
tls = true

[tls]
certificate = "server.pem"
key = "server.key"

[realms."{realm.name}"]
kdc = ["tcp://{realm.kdc.endpoints[0]}"]
kpasswd = ["{realm.kpasswd_endpoint}"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What the demo plays on."""

    folder: Path
    realm: MitRealm
    daemon: Daemon
    client: KerberosClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that Alice does, in so many `exchanges` with the realm.

    `refusal` is in what she is told, if she has to be refused.
    """

    title: str
    act: Callable[[KerberosClient], Completed]
    exchanges: int
    refusal: str | None = None

    def is_as_due(self, done: Completed) -> bool:
        """Whether it ended as it has to. Being refused for another reason, such as no KDC, is wrong too."""
        if self.refusal is None:
            return done.is_ok
        return not done.is_ok and self.refusal in done.output


STEPS = (
    Step(
        title="Alice logs in",
        act=lambda client: client.kinit("alice", OLD_PASSWORD),
        exchanges=2,
    ),
    Step(
        title="She gets a ticket for a web server",
        act=lambda client: client.kvno(SERVICE),
        exchanges=1,
    ),
    Step(
        title="She changes her password",
        act=lambda client: client.kpasswd("alice", OLD_PASSWORD, NEW_PASSWORD),
        exchanges=3,
    ),
    Step(
        title="She logs in with the new password",
        act=lambda client: client.kinit("alice", NEW_PASSWORD),
        exchanges=2,
    ),
    Step(
        title="The old password is good for nothing now",
        act=lambda client: client.kinit("alice", OLD_PASSWORD),
        exchanges=2,
        refusal="Password incorrect",
    ),
)


class Interrupted(BaseException):
    """A signal asks for the end: no error, and for nobody to catch on the way."""


class Interruption:
    """Lets signals end the play, but not the setting up or clearing away, which would leave things behind."""

    def __init__(self) -> None:
        self._is_welcome = False
        self._signal: signal.Signals | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    @contextlib.contextmanager
    def welcome(self) -> Iterator[None]:
        """Raise `Interrupted` for a signal that has come, or that comes from now on."""
        self._is_welcome = True
        try:
            if self._signal:
                raise Interrupted(self._signal.name)
            yield
        finally:
            self._is_welcome = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signal = signal.Signals(number)
        if self._is_welcome:
            self._is_welcome = False
            raise Interrupted(self._signal.name)


def main() -> int:
    """Play, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lab.demo", description="Shows kkdcpd at work.")
    parser.add_argument("--keep", action="store_true", help="leave it running afterwards, until Ctrl-C")
    is_to_stay = parser.parse_args().keep
    try:
        return _play(Interruption(), is_to_stay=is_to_stay)
    except Interrupted as interrupted:
        print(f"\nEnded by {interrupted}; everything was stopped and removed.")
        return 1
    except (OSError, ProgramError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1


def _play(interruption: Interruption, *, is_to_stay: bool) -> int:
    started = time.perf_counter()
    pause = 0.0
    with _stage() as stage:
        _introduce(stage)
        with interruption.welcome():
            good = [_take(number, step, stage) for number, step in enumerate(STEPS, start=1)]
        if is_to_stay:
            pause = _stay(stage, interruption)
        exit_code = stage.daemon.stop()
    seconds = time.perf_counter() - started - pause
    print(f"kkdcpd was stopped (exit code {exit_code}) and the realm removed; all took {seconds:.1f} s.")
    print(f"{sum(good)} of {len(good)} steps went as they should.", flush=True)
    return 0 if all(good) and exit_code == 0 else 1


@contextlib.contextmanager
def _stage() -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kkdcpd-demo-")))
        alice = Principal(name="alice", password=OLD_PASSWORD, options=("+requires_preauth",))
        realm = stack.enter_context(
            MitRealm(
                folder / "realm",
                principals=(alice, Principal(name=SERVICE)),
                transports={Transport.TCP},
            )
        )
        authority = Authority(folder / "kkdcpd")
        authority.issue("localhost", "127.0.0.1", "::1")
        daemon = stack.enter_context(Daemon(folder / "kkdcpd", CONFIG.format(realm=realm)))
        client = KerberosClient(
            folder / "client",
            {realm.name: RealmServers.behind(_url(daemon))},
            http_anchors=authority.certificate,
        )
        yield Stage(folder=folder, realm=realm, daemon=daemon, client=client)


def _url(daemon: Daemon) -> str:
    return f"https://localhost:{daemon.ports[0]}/KdcProxy"


def _introduce(stage: Stage) -> None:
    realm = stage.realm
    print("kkdcpd demo: a Kerberos realm that its users reach through HTTPS alone")
    print()
    print(f"  realm   {realm.name}: MIT's KDC {realm.kdc.endpoints[0]}, kpasswd {realm.kpasswd_endpoint}")
    print(f"  proxy   kkdcpd at {_url(stage.daemon)}")
    print("  client  MIT's kinit, kvno and kpasswd, which know nothing but that URL")
    print()


def _take(number: int, step: Step, stage: Stage) -> bool:
    mark = len(stage.daemon.lines)
    done = step.act(stage.client)
    is_good = step.is_as_due(done)
    _show_transcript(f"{number}. {step.title} ", done, is_good=is_good)
    try:
        # A line may come a moment after the client has its answer.
        stage.daemon.wait_for_lines(is_exchange, count=step.exchanges, after=mark, timeout=LOG_SECONDS)
    except ProgramError:
        is_good = False
        print(f"     WRONG: kkdcpd's log should have {step.exchanges} exchanges here")
    for line in stage.daemon.lines[mark:]:
        print(_log_line(line))
    print(flush=True)
    return is_good


def _show_transcript(title: str, done: Completed, *, is_good: bool) -> None:
    outcome = "ok" if done.is_ok else "refused"
    verdict = outcome if is_good else f"WRONG: {outcome}"
    print(f"{title}{f' {verdict} {done.seconds * 1000:4.0f} ms':.>{WIDTH - len(title)}}")
    print(f"     $ {shlex.join(done.command)}")
    for line in filter(None, done.output.splitlines()):
        print(f"     {line}")


def _log_line(line: str) -> str:
    return textwrap.fill(
        line,
        WIDTH,
        initial_indent="     kkdcpd> ",
        subsequent_indent=" " * 15,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _stay(stage: Stage, interruption: Interruption) -> float:
    """Leave it all running until somebody interrupts; return how many seconds that was."""
    started = time.perf_counter()
    with contextlib.suppress(Interrupted), interruption.welcome():
        _explain(stage)
        _follow(stage)
    print()
    return time.perf_counter() - started


def _explain(stage: Stage) -> None:
    client = stage.client
    print("It goes on until Ctrl-C. To be Alice in another terminal:")
    print()
    print(f"  export KRB5_CONFIG={client.krb5_conf}")
    print(f"  export KRB5CCNAME={client.credential_cache}")
    print(f"  kinit alice        # the password is {NEW_PASSWORD}")
    print(f"  kvno {SERVICE}")
    print("  klist")
    print()
    print(f"All files are in {stage.folder}; kkdcpd's log goes on here:", flush=True)


def _follow(stage: Stage) -> None:
    for shown in itertools.count(len(stage.daemon.lines)):
        line = stage.daemon.wait_for_line(lambda _: True, after=shown, timeout=threading.TIMEOUT_MAX)
        print(_log_line(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
