"""Runs the command line for `python -m kkdcpd`."""

import sys

from kkdcpd.cli import main

__all__: list[str] = []

sys.exit(main())
