"""Each target for a short time with fixed random inputs; and a test that the long search finds bugs."""

import importlib.util
import re
import sys
from pathlib import Path
from random import Random

import pytest

from lab.program import run
from tests.fuzz import targets
from tests.fuzz.__main__ import LENGTHS
from tests.fuzz.mutation import change_bytes, change_element, repeat_slice
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.traps import TRAPS
from tests.support import der_tree, messages

ROOT = Path(__file__).parents[2]
INPUTS = 2500
LONGEST = 8192
FINDINGS = {"escape": "an exception", "hang": "a hang", "hoard": "memory grows"}
SLOW = {"discovery", "krb5_conf", "config", "records", "forwarded"}

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not available for this Python or machine"
)


def changed(target: Target, data: bytes, random: Random) -> bytes:
    for _ in range(random.randrange(1, 4)):
        if random.randrange(50) == 0:
            data = repeat_slice(data, random, LONGEST)
        elif target.is_der and random.randrange(3):
            data = change_element(data, random, lambda contents: change_bytes(contents, random))
        else:
            data = change_bytes(data, random)
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_no_exception_escapes(name: str) -> None:
    target, random = TARGETS[name], Random(4)
    for data in target.seeds:
        target.run(data)
    for _ in range(INPUTS // 5 if name in SLOW else INPUTS):
        data = changed(target, random.choice(target.seeds), random)
        try:
            target.run(data)
        except Exception as error:
            error.add_note(f"input: {data.hex()}")
            raise


@pytest.mark.parametrize("name", ["request", "policy", "refusal", "log"])
def test_seeds_are_valid_requests(name: str) -> None:
    assert all(map(targets.request_in, TARGETS[name].seeds))


def test_most_changes_of_an_element_keep_the_nesting() -> None:
    random = Random(4)
    sound = 0
    for _ in range(200):
        body = change_element(messages.envelope(messages.kpasswd_req()), random, bytes)
        try:
            der_tree.parse(body)
        except (ArithmeticError, AssertionError, ValueError, IndexError):
            continue
        sound += 1
    assert sound > 150


@needs_atheris
def test_long_search_reports_findings(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PYTHONDONTWRITEBYTECODE": "1"}
    options = ("--folder", str(tmp_path), "--runs", "5000")
    found = run(
        *(sys.executable, "-m", "tests.fuzz", *options, "envelope", *TRAPS),
        environment=environment,
        timeout=90,
    )

    assert len(re.findall(r"^envelope .* nothing$", found.output, re.MULTILINE)) == len(LENGTHS)
    for trap, finding in FINDINGS.items():
        assert f"\n{trap}: {finding}; the input is in" in found.output
    assert "\nenvelope:" not in found.output
    assert found.exit_code == 1
    assert list((tmp_path / "findings" / "escape").iterdir())
