"""The command line: the arguments and exit codes of `kkdcpd` and its commands.

Each command imports its modules when it runs, so that `--help` and `--version` are fast.
"""

import argparse
import datetime
import enum
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kkdcpd import __version__
from kkdcpd.commands.agent_arguments import add_arguments as add_agent_arguments

if TYPE_CHECKING:
    from kkdcpd.commands.service_user import Identity
    from kkdcpd.config import Config
    from kkdcpd.errors import ConfigError
    from kkdcpd.values import DcLocatorFlags, KdcService

__all__ = ["ExitCode", "main"]

DEFAULT_CONFIG = "/etc/kkdcpd/config.toml"

_EPILOG = """\
exit codes:
  0   success: the service stopped after a signal, or the configuration is valid
  1   kkdcpd cannot listen on an address; healthcheck: the service is not ready
  2   the command line is invalid
  3   locate: a service has no server, or DNS failed
  4   the worker processes do not become ready; reload: no running kkdcpd can be reached
  5   locate: no server of a service responds
  66  serve: a file that the configuration names is missing or unreadable
  78  the configuration is invalid; standard error has one line for each problem
      (serve, reload: a JSON line where log.format = "json")
"""

_COMMAND_HELP = {
    "serve": "serve in the foreground (the default)",
    "check": "check the configuration and the files that it names",
    "reload": "make a running kkdcpd load its configuration again",
    "healthcheck": "ask the admin listener whether the service is ready",
    "locate": "show which KDCs serve a realm and which respond",
    "agent": "run a KDC proxy on this host for programs that cannot use one",
    "dns-records": "print the DNS records by which clients find the KDC proxies of a realm",
}

_WITHOUT_CONFIG = frozenset({"agent", "dns-records"})
"""The commands that read no configuration."""

STANDARD_ERROR = 2

MAX_TTL = 2**31 - 1


class ExitCode(enum.IntEnum):
    """The exit codes; 66 is EX_NOINPUT and 78 is EX_CONFIG of sysexits.h.

    The unit of systemd restarts kkdcpd after all failures but USAGE and CONFIG, where a restart cannot help.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CANNOT_START = 4
    NO_ANSWER = 5
    NO_INPUT = 66
    CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    path = os.environ.get("KKDCPD_CONFIG") or DEFAULT_CONFIG
    options = _parser().parse_args(arguments, argparse.Namespace(config=path, command=None))
    from kkdcpd.errors import ConfigError  # noqa: PLC0415

    try:
        return _COMMANDS[options.command](options)
    except ConfigError as error:
        return _refuse(error)


def _refuse(error: "ConfigError") -> ExitCode:
    """Print each problem of the configuration."""
    for problem in error.problems:
        print(f"error: {problem}", file=sys.stderr)
    return ExitCode.CONFIG


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"the configuration; default $KKDCPD_CONFIG, else {DEFAULT_CONFIG}",
    )
    parser = argparse.ArgumentParser(
        prog="kkdcpd",
        description="A Kerberos KDC proxy (MS-KKDCP): lets Kerberos clients anywhere log on over HTTPS.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"kkdcpd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, text in _COMMAND_HELP.items():
        parents = [] if name in _WITHOUT_CONFIG else [common]
        command = commands.add_parser(name, parents=parents, help=text, description=f"kkdcpd {name}: {text}.")
        if name == "locate":
            _add_locate_arguments(command)
        elif name == "check":
            _add_check_arguments(command)
        elif name == "dns-records":
            _add_dns_records_arguments(command)
        elif name == "agent":
            add_agent_arguments(command)
            command.set_defaults(usage_error=command.error)
    return parser


def _add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--user",
        metavar="USER",
        help="read the files as this user; default for root: the user of kkdcpd.service, else kkdcpd",
    )
    parser.set_defaults(usage_error=parser.error)


def _add_locate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("realm", metavar="REALM", help="the realm, or another name that clients use")
    only = parser.add_mutually_exclusive_group()
    for service, servers in (("kdc", "KDCs"), ("kpasswd", "servers for password changes")):
        only.add_argument(
            f"--{service}",
            dest="services",
            action="store_const",
            const=(service,),
            help=f"only the {servers}",
        )
    parser.add_argument(
        "--hint",
        metavar="HINT",
        default="0",
        help="the dclocator-hint: a number such as 0x80, or words separated by commas:"
        " pdc, writable, force, flat, dns, fast",
    )
    parser.add_argument(
        "--as",
        dest="client",
        choices=("mit", "apple", "kerberos.net", "agent"),
        help="show how clients of this kind find the servers in DNS; without a configuration, the system's"
        " DNS servers are asked",
    )
    parser.set_defaults(usage_error=parser.error)


def _add_dns_records_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("realm", metavar="REALM", help="the realm, which is a domain name")
    parser.add_argument(
        "urls",
        metavar="URL",
        nargs="+",
        help="the URL of a proxy: https://..., or wss://... for its WebSocket; the most preferred one first",
    )
    for option, servers in (("--kdc", "KDC"), ("--password-server", "server for password changes")):
        parser.add_argument(
            option,
            metavar="HOST[:PORT]",
            action="append",
            default=[],
            help=f"a {servers} that inside clients use before the proxies; may be repeated",
        )
    parser.add_argument(
        "--ttl",
        metavar="SECONDS",
        type=_ttl,
        default=3600,
        help="how long resolvers keep the records; default 3600",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a part of a zone file")
    parser.set_defaults(usage_error=parser.error)


def _ttl(text: str) -> int:
    """Read a TTL (RFC 2181 8).

    Raises:
        ArgumentTypeError: the text is no TTL.
    """
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_TTL):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 0 to {MAX_TTL}")
    return int(text)


def _dns_records(options: argparse.Namespace) -> int:
    from kkdcpd.commands import dns_records  # noqa: PLC0415

    request = dns_records.Request(
        realm=options.realm,
        urls=tuple(options.urls),
        kdcs=tuple(options.kdc),
        password_servers=tuple(options.password_server),
    )
    try:
        publication = dns_records.publish(request)
    except dns_records.RequestError as error:
        options.usage_error(str(error))
    render = dns_records.render_json if options.json else dns_records.render_zone
    print(render(publication, options.ttl))
    return ExitCode.OK


def _agent(options: argparse.Namespace) -> int:
    from kkdcpd.commands import agent  # noqa: PLC0415
    from kkdcpd.commands.agent_options import AgentOptionsError, read_options  # noqa: PLC0415
    from kkdcpd.commands.krb5_drop_in import DropInError  # noqa: PLC0415
    from kkdcpd.commands.krb5_texts import Krb5TextError  # noqa: PLC0415
    from kkdcpd.errors import ListenError, StartError  # noqa: PLC0415

    try:
        agent.run(read_options(options, is_root=os.geteuid() == 0), show=functools.partial(print, flush=True))
    except (AgentOptionsError, Krb5TextError) as error:
        options.usage_error(str(error))
    except (DropInError, ListenError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.OK


def _check(options: argparse.Namespace) -> int:
    from kkdcpd.commands import service_user  # noqa: PLC0415
    from kkdcpd.config import SystemFiles, load_config  # noqa: PLC0415
    from kkdcpd.errors import ConfigError  # noqa: PLC0415

    path, now = Path(options.config), datetime.datetime.now(datetime.UTC)
    try:
        reader = _reader(options)
    except service_user.UnknownUserError as error:
        options.usage_error(f"{error}; name the user of the service with --user")
    try:
        loaded = service_user.call_as(reader, functools.partial(load_config, path, now=now))
        for warning in (*loaded.warnings, *SystemFiles.read().warnings(loaded.config)):
            print(f"warning: {warning}", file=sys.stderr)
        loaded.expect_within_dates(now)
    except ConfigError as error:
        code = _refuse(error)
        print(f"the files were read as {reader.text}", file=sys.stderr)
        return code
    print(f"{path}: valid; realms: {', '.join(realm.name for realm in loaded.config.realms)}")
    print(f"the files were read as {reader.text}")
    return ExitCode.OK


def _reader(options: argparse.Namespace) -> "Identity":
    """Return the identity with which `check` reads the files."""
    from kkdcpd.commands import service_user  # noqa: PLC0415

    current = service_user.current_identity()
    if options.user is None:
        return current if current.user else service_user.service_identity() or current
    wanted = service_user.identity_of(options.user)
    if current.user not in (0, wanted.user):
        options.usage_error("--user: only root can read files as another user")
    return current if wanted.user == current.user else wanted


def _locate(options: argparse.Namespace) -> int:
    return _locate_as(options) if options.client else _locate_as_service(options)


def _locate_as(options: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415

    from kkdcpd.commands import locate_as  # noqa: PLC0415
    from kkdcpd.config import LocateConfig, SystemFiles, load_config  # noqa: PLC0415
    from kkdcpd.locate.client_views import LocatingClient  # noqa: PLC0415
    from kkdcpd.values import DcLocatorFlags  # noqa: PLC0415

    if options.hint != "0":
        options.usage_error("--hint: these clients send none; leave --hint or --as out")
    path = Path(options.config)
    # The host of a client has no configuration of kkdcpd.
    is_configured = path != Path(DEFAULT_CONFIG) or path.exists()
    now = datetime.datetime.now(datetime.UTC)
    settings = load_config(path, now=now).config.locate if is_configured else LocateConfig()
    if options.client == locate_as.AGENT:
        return _show_servers(locate_as.agent_config(options.realm, settings), options, DcLocatorFlags(0))
    client, services = LocatingClient(options.client), _services(options)
    found = asyncio.run(locate_as.locate_as(client, options.realm, services, settings, SystemFiles.read()))
    print(locate_as.render(found))
    return ExitCode.OK if all(each.view.servers for each in found) else ExitCode.NOT_FOUND


def _locate_as_service(options: argparse.Namespace) -> int:
    from kkdcpd.commands import locate  # noqa: PLC0415
    from kkdcpd.config import load_config  # noqa: PLC0415

    try:
        flags = locate.parse_hint(options.hint)
    except ValueError:
        options.usage_error(f"--hint: {options.hint} is no number and none of {', '.join(locate.HINTS)}")
    config = load_config(Path(options.config), now=datetime.datetime.now(datetime.UTC)).config
    return _show_servers(config, options, flags)


def _show_servers(config: "Config", options: argparse.Namespace, flags: "DcLocatorFlags") -> int:
    import asyncio  # noqa: PLC0415
    import dataclasses  # noqa: PLC0415

    from kkdcpd.commands import locate  # noqa: PLC0415
    from kkdcpd.config import LogLevels, SystemFiles  # noqa: PLC0415
    from kkdcpd.log import configure_logging  # noqa: PLC0415
    from kkdcpd.values import LocateQuery  # noqa: PLC0415

    # The table shows the refused servers, so the log does not.
    log = dataclasses.replace(config.log, level="error", levels=LogLevels())
    configure_logging(log, STANDARD_ERROR)
    queries = [
        LocateQuery(target_domain=options.realm, service=service, flags=flags)
        for service in _services(options)
    ]
    findings = asyncio.run(locate.locate(config, queries, SystemFiles.read()))
    print(locate.render(findings))
    codes = {
        locate.Verdict.GOOD: ExitCode.OK,
        locate.Verdict.NO_ANSWER: ExitCode.NO_ANSWER,
        locate.Verdict.NOT_FOUND: ExitCode.NOT_FOUND,
    }
    return codes[locate.judge(findings)]


def _services(options: argparse.Namespace) -> "Sequence[KdcService]":
    from kkdcpd.values import KdcService  # noqa: PLC0415

    return [KdcService(service) for service in options.services or ("kdc", "kpasswd")]


def _healthcheck(options: argparse.Namespace) -> int:
    from kkdcpd.commands.healthcheck import reasons_against  # noqa: PLC0415
    from kkdcpd.config import read_admin  # noqa: PLC0415

    # An invalid file, or keys that this user may not read, do not make a running service unhealthy.
    admin, problems = read_admin(Path(options.config))
    address = admin.address
    no_listener = ["admin.address is empty, so kkdcpd has no admin listener; set it"]
    reasons = reasons_against(address) if address else no_listener
    if reasons:
        for reason in (*problems, *reasons):
            print(f"error: {reason}", file=sys.stderr)
    return ExitCode.FAILED if reasons else ExitCode.OK


def _serve(options: argparse.Namespace) -> int:
    from kkdcpd.commands.notices import notices_for  # noqa: PLC0415
    from kkdcpd.errors import ConfigError, ListenError, StartError  # noqa: PLC0415

    path = Path(options.config).absolute()
    problems: Sequence[object] = ()
    try:
        _serve_until_stopped(path)
    except ConfigError as error:
        code = ExitCode.NO_INPUT if error.is_temporary else ExitCode.CONFIG
        problems = error.problems
    except ListenError as error:
        code, problems = ExitCode.FAILED, (error,)
    except StartError as error:
        code, problems = ExitCode.CANNOT_START, (error,)
    else:
        return ExitCode.OK
    notices = notices_for(path)
    for problem in problems:
        notices.start_failed(problem)
    return code


def _serve_until_stopped(path: Path) -> None:
    from kkdcpd.config import load_config  # noqa: PLC0415
    from kkdcpd.log import configure_logging  # noqa: PLC0415
    from kkdcpd.supervisor import parent  # noqa: PLC0415

    loaded = load_config(path, now=datetime.datetime.now(datetime.UTC))
    # If standard output is closed, its number must not become the number of a connection.
    output = sys.stdout.fileno() if sys.stdout else os.open(os.devnull, os.O_WRONLY)
    journal_stream = os.environ.get("JOURNAL_STREAM")
    configure = functools.partial(configure_logging, descriptor=output, journal_stream=journal_stream)
    configure(loaded.config.log)
    parent.serve(path, loaded, configure)


def _reload(options: argparse.Namespace) -> int:
    from kkdcpd.commands import reload  # noqa: PLC0415
    from kkdcpd.commands.notices import notices_for  # noqa: PLC0415
    from kkdcpd.config import read_process  # noqa: PLC0415

    path = Path(options.config)
    # An invalid file is sent too: the service counts the failed reload, so that monitoring notices it.
    process, problems = read_process(path)
    notices = notices_for(path)
    try:
        outcome = reload.reload(process.control)
    except reload.UnreachableError as error:
        for reason in (*problems, error):
            notices.reload_failed(reason)
        return ExitCode.CONFIG if problems else ExitCode.CANNOT_START
    # If the reload succeeded in spite of these problems, kkdcpd has read another file than this one.
    for problem in outcome.problems or problems:
        notices.reload_failed(problem)
    if not outcome.is_done:
        notices.nothing_changed(outcome.generation)
    if problems or not outcome.is_done:
        return ExitCode.CONFIG
    notices.reloaded(outcome.generation)
    return ExitCode.OK


_COMMANDS: Mapping[str | None, Callable[[argparse.Namespace], int]] = {
    None: _serve,
    "serve": _serve,
    "check": _check,
    "locate": _locate,
    "agent": _agent,
    "dns-records": _dns_records,
    "reload": _reload,
    "healthcheck": _healthcheck,
}
