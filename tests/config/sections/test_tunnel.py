import pytest

from tests.config.broken import REALM, problems_of

BROKEN = {
    "a path twice": (
        REALM + '[tunnel]\npaths = ["/KdcTunnel", "/kdctunnel"]',
        "tunnel.paths[1]: is the same path as tunnel.paths[0], as case doesn't count; remove one of them",
    ),
    "no requests": (
        REALM + "[tunnel]\nmax_exchanges = 0",
        "tunnel.max_exchanges: 0 is too small; write a whole number of requests from 1 to 65536",
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines
