"""The command line: `kkdcpd` serves, `kkdcpd check` only looks at the configuration.

What each command needs is imported when it runs, so that `--help` and `--version` answer at once.
"""

import argparse
import datetime
import enum
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kkdcpd import __version__
from kkdcpd.errors import ConfigError, ListenError

__all__ = ["ExitCode", "main"]

DEFAULT_CONFIG = "/etc/kkdcpd/config.toml"

_EPILOG = """\
exit codes:
  0   all is well: stopped as asked, or the configuration is good
  1   an address can't be listened on
  2   the command line is wrong
  78  the configuration is wrong; each problem is one line on standard error
"""


class ExitCode(enum.IntEnum):
    """What the process ends with; 78 is EX_CONFIG of sysexits.h."""

    OK = 0
    CANNOT_LISTEN = 1
    USAGE = 2
    CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    path = os.environ.get("KKDCPD_CONFIG") or DEFAULT_CONFIG
    options = _parser().parse_args(arguments, argparse.Namespace(config=path))
    run = _check if options.command == "check" else _serve
    try:
        return run(Path(options.config))
    except ConfigError as error:
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
        description="A Kerberos KDC proxy (MS-KKDCP): lets Kerberos clients anywhere log in over HTTPS.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"kkdcpd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    commands.add_parser("serve", parents=[common], help="serve in the foreground (the default)")
    commands.add_parser("check", parents=[common], help="check the configuration and everything it names")
    return parser


def _check(path: Path) -> int:
    from kkdcpd.config import load_config  # noqa: PLC0415

    loaded = load_config(path, now=datetime.datetime.now(datetime.UTC))
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{path}: good; realms served: {', '.join(realm.name for realm in loaded.config.realms)}")
    return ExitCode.OK


def _serve(path: Path) -> int:
    from kkdcpd import supervisor  # noqa: PLC0415
    from kkdcpd.config import load_config  # noqa: PLC0415
    from kkdcpd.log import configure_logging  # noqa: PLC0415

    loaded = load_config(path, now=datetime.datetime.now(datetime.UTC))
    configure_logging(loaded.config.log)
    supervisor.warn(loaded.warnings)
    try:
        supervisor.serve(loaded.config)
    except ListenError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.CANNOT_LISTEN
    return ExitCode.OK
