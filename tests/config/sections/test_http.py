import pytest

from tests.config.broken import REALM, problems_of

BROKEN = {
    "a misspelt setting": (
        REALM + "[http]\nmax_body_byte = 4096",
        "http.max_body_byte: there is no such setting; did you mean max_body_bytes?",
    ),
    "a number with a unit": (
        REALM + '[http]\nmax_body_bytes = "128k"',
        'http.max_body_bytes: "128k" is text; write a whole number of bytes from 1024 to 1048576',
    ),
    "a number that is too small": (
        REALM + "[http]\nmax_body_bytes = 1023",
        "http.max_body_bytes: 1023 is too small; write a whole number of bytes from 1024 to 1048576",
    ),
    "a path without its slash": (
        REALM + '[http]\npaths = ["KdcProxy"]',
        'http.paths[0]: "KdcProxy" does not begin with /; write "/KdcProxy"',
    ),
    "a path with a query": (
        REALM + '[http]\npaths = ["/KdcProxy?x"]',
        (
            'http.paths[0]: "/KdcProxy?x" has characters that a plain path can\'t have; '
            'write a plain path such as "/KdcProxy"'
        ),
    ),
    "a path twice": (
        REALM + '[http]\npaths = ["/KdcProxy", "/kdcproxy"]',
        "http.paths[1]: is the same path as http.paths[0], as case doesn't count; remove one of them",
    ),
    "an origin with a path": (
        REALM + '[http]\ncors_origins = ["https://desktop.example.com/"]',
        (
            'http.cors_origins[0]: "https://desktop.example.com/" is no origin, which is a scheme and a host '
            'in lower case, without a path; write an origin such as "https://desktop.example.com"'
        ),
    ),
    "no path": (
        REALM + "[http]\npaths = []",
        'http.paths: is empty; write a list of paths, such as ["/KdcProxy"]',
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines
