"""`python -m kkdcpd` is `kkdcpd`."""

import sys

from kkdcpd.cli import main

__all__: list[str] = []

sys.exit(main())
