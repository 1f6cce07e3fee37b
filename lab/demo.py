"""Shows kkdcpd in use: a user logs on to a realm through HTTPS alone, gets a ticket and changes a password.

The last log-on is by a program that cannot use HTTPS: it uses the agent.

    python -m lab.demo [--keep]

All files are in a temporary folder, which is removed at the end. The exit code is 0 if every step succeeded.
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

from kkdcpd.endpoints import Transport
from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon, is_exchange
from lab.ports import free_port
from lab.program import Completed, Program, ProgramError, environment
from lab.realm import MitRealm, Principal

WIDTH = 100  # columns
LOG_SECONDS = 5.0  # a log line that takes longer than this is missing
SERVICE = "HTTP/www.kk.test"
OLD_PASSWORD = "winter-is-long"  # noqa: S105 - the realm exists for seconds
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
    """The parts of the demo. `plain_client` knows the agent as its KDC, and no URL."""

    folder: Path
    realm: MitRealm
    daemon: Daemon
    client: KerberosClient
    agent: Program
    plain_client: KerberosClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command of Alice, which takes a number of `exchanges` with the realm.

    If the realm has to refuse the command, `refusal` is in the command's output.
    """

    title: str
    act: Callable[[Stage], Completed]
    exchanges: int
    refusal: str | None = None

    def is_as_expected(self, done: Completed) -> bool:
        """Whether the command ended as expected. A refusal for another reason, such as no KDC, is wrong."""
        if self.refusal is None:
            return done.is_ok
        return not done.is_ok and self.refusal in done.output


STEPS = (
    Step(
        title="Alice logs on",
        act=lambda stage: stage.client.kinit("alice", OLD_PASSWORD),
        exchanges=2,
    ),
    Step(
        title="She gets a ticket for a web server",
        act=lambda stage: stage.client.kvno(SERVICE),
        exchanges=1,
    ),
    Step(
        title="She changes her password",
        act=lambda stage: stage.client.kpasswd("alice", OLD_PASSWORD, NEW_PASSWORD),
        exchanges=3,
    ),
    Step(
        title="She logs on with the new password",
        act=lambda stage: stage.client.kinit("alice", NEW_PASSWORD),
        exchanges=2,
    ),
    Step(
        title="The old password is refused now",
        act=lambda stage: stage.client.kinit("alice", OLD_PASSWORD),
        exchanges=2,
        refusal="Password incorrect",
    ),
    Step(
        title="A program that cannot use HTTPS logs on through `kkdcpd agent`",
        act=lambda stage: stage.plain_client.kinit("alice", NEW_PASSWORD),
        exchanges=2,
    ),
)


class Interrupted(BaseException):
    """A signal ends the demo. This is not an error, and no `except Exception` catches it."""


class Interruption:
    """Lets signals end the steps, but not the set-up and the removal, which have to be complete."""

    def __init__(self) -> None:
        self._is_allowed = False
        self._signal: signal.Signals | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Raise `Interrupted` for an earlier signal or a signal from now on."""
        self._is_allowed = True
        try:
            if self._signal:
                raise Interrupted(self._signal.name)
            yield
        finally:
            self._is_allowed = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signal = signal.Signals(number)
        if self._is_allowed:
            self._is_allowed = False
            raise Interrupted(self._signal.name)


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lab.demo", description="Shows kkdcpd in use.")
    parser.add_argument("--keep", action="store_true", help="leave kkdcpd and the realm running until Ctrl-C")
    is_to_stay = parser.parse_args().keep
    try:
        return _play(Interruption(), is_to_stay=is_to_stay)
    except Interrupted as interrupted:
        print(f"\nEnded by {interrupted}; kkdcpd and the realm are stopped and removed.")
        return 1
    except (OSError, ProgramError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1


def _play(interruption: Interruption, *, is_to_stay: bool) -> int:
    started = time.perf_counter()
    pause = 0.0
    with _stage() as stage:
        _introduce(stage)
        with interruption.allowed():
            good = [_take(number, step, stage) for number, step in enumerate(STEPS, start=1)]
        if is_to_stay:
            pause = _stay(stage, interruption)
        # kkdcpd would wait for the idle connection of the agent.
        stage.agent.stop()
        exit_code = stage.daemon.stop()
    seconds = time.perf_counter() - started - pause
    print(f"kkdcpd is stopped (exit code {exit_code}), the realm is removed; this took {seconds:.1f} s.")
    print(f"{sum(good)} of {len(good)} steps succeeded.", flush=True)
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
        # No other program uses this address, so the port for password changes is free too.
        address = f"127.0.0.88:{free_port(('127.0.0.88',))}"
        agent = stack.enter_context(_agent(folder, _url(daemon), realm.name, address, authority))
        yield Stage(
            folder=folder,
            realm=realm,
            daemon=daemon,
            client=client,
            agent=agent,
            plain_client=KerberosClient(folder / "plain", {realm.name: RealmServers(kdc=(address,))}),
        )


def _agent(folder: Path, url: str, realm: str, address: str, authority: Authority) -> Program:
    """Start `kkdcpd agent`."""
    command = (sys.executable, "-m", "kkdcpd", "agent", url, "--realm", realm, "--listen", address)
    agent = Program(
        "kkdcpd agent", *command, environment=environment(folder, SSL_CERT_FILE=authority.certificate)
    )
    try:
        agent.wait_for_line(lambda line: " agent_ready " in line)
    except BaseException:
        agent.stop()
        raise
    return agent


def _url(daemon: Daemon) -> str:
    return f"https://localhost:{daemon.ports[0]}/KdcProxy"


def _introduce(stage: Stage) -> None:
    realm = stage.realm
    print("kkdcpd demo: a Kerberos realm that its users reach through HTTPS alone")
    print()
    print(f"  realm   {realm.name}: MIT's KDC {realm.kdc.endpoints[0]}, kpasswd {realm.kpasswd_endpoint}")
    print(f"  proxy   kkdcpd at {_url(stage.daemon)}")
    print("  client  MIT's kinit, kvno and kpasswd, which know only that URL")
    print("  agent   kkdcpd agent, which forwards the messages of other programs to that URL")
    print()


def _take(number: int, step: Step, stage: Stage) -> bool:
    mark = len(stage.daemon.lines)
    done = step.act(stage)
    is_good = step.is_as_expected(done)
    _show_transcript(f"{number}. {step.title} ", done, is_good=is_good)
    try:
        # The line may follow shortly after the reply to the client.
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
    """Leave kkdcpd and the realm running until a signal; return the seconds until then."""
    started = time.perf_counter()
    with contextlib.suppress(Interrupted), interruption.allowed():
        _explain(stage)
        _follow(stage)
    print()
    return time.perf_counter() - started


def _explain(stage: Stage) -> None:
    client = stage.client
    print("kkdcpd runs until Ctrl-C. To be Alice in another terminal:")
    print()
    print(f"  export KRB5_CONFIG={client.krb5_conf}")
    print(f"  export KRB5CCNAME={client.credential_cache}")
    print(f"  kinit alice        # the password is {NEW_PASSWORD}")
    print(f"  kvno {SERVICE}")
    print("  klist")
    print()
    print(f"All files are in {stage.folder}; the log of kkdcpd follows:", flush=True)


def _follow(stage: Stage) -> None:
    for shown in itertools.count(len(stage.daemon.lines)):
        line = stage.daemon.wait_for_line(lambda _: True, after=shown, timeout=threading.TIMEOUT_MAX)
        print(_log_line(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
