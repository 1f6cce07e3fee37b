"""How the property tests search: the same examples in every run, unless a number of random ones is asked for.

`KKDCPD_EXAMPLES=20000 .venv/bin/pytest tests/protocol` searches anew, and remembers what it found.
"""

import os

from hypothesis import settings

settings.register_profile("kkdcpd", deadline=None, derandomize=True, database=None, max_examples=200)
if examples := os.environ.get("KKDCPD_EXAMPLES"):
    settings.register_profile("kkdcpd-search", deadline=None, max_examples=int(examples))
settings.load_profile("kkdcpd-search" if examples else "kkdcpd")
