"""Declares the arguments of `kkdcpd agent`. It imports nothing of kkdcpd, so that `--help` is fast."""

import argparse
from pathlib import Path

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "urls",
        metavar="URL",
        nargs="*",
        help="a KDC proxy: https://... or wss://...; the most preferred one first. Without a URL, the agent"
        " finds the proxies of the realms in DNS",
    )
    parser.add_argument(
        "--realm",
        action="append",
        default=[],
        help="a realm to serve; may be repeated, the default realm first",
    )
    parser.add_argument(
        "--entra",
        metavar="TENANT",
        help="use the KDC proxy of Entra Kerberos for this tenant: its id or its domain",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS[:PORT]",
        action="append",
        default=[],
        help="an address of this host; may be repeated. Password changes use the port that is higher by"
        " 376, as 464 is higher than 88. Default: 127.0.0.1 and ::1, with port 88 for root"
        " and 10088 for other users",
    )
    parser.add_argument(
        "--socket",
        metavar="FOLDER",
        type=Path,
        help="listen at the UNIX sockets `kdc` and `kpasswd` of this folder (MIT Kerberos 1.22 and later)",
    )
    parser.add_argument(
        "--write-krb5-conf",
        dest="krb5_conf",
        metavar="FILE",
        type=Path,
        help="write the lines for MIT Kerberos to this file, and remove the file at the end",
    )
