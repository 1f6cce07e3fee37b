"""Checks the house: each module has tests, imports point down, docs list events, fields and metrics."""

import ast
import asyncio
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.cli import ExitCode
from kkdcpd.config import SystemFiles, read_config
from kkdcpd.frontends.http import responses
from kkdcpd.locate.locator import build_locator
from kkdcpd.log.areas import AREAS
from kkdcpd.metrics.exposition import Exposition, ServiceFacts
from kkdcpd.metrics.memory import make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.process_messages import ServiceStatus
from kkdcpd.service import Service
from kkdcpd.values import Outcome, RequestResult
from lab.program import run
from tests.pipeline.test_access_log import (
    AS_REQ,
    KPASSWD_REQ,
    LOCAL,
    LOG,
    RECORD,
    REFUSED,
    UNKNOWN_PRINCIPAL,
    WRONG_PASSWORD,
    answered,
)

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "kkdcpd"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("__"))
NOT_REFUSED = {Outcome.ANSWERED, Outcome.CLIENT_GONE}


def rows(document: str, *headings: str) -> Iterator[list[str]]:
    """Yield the rows of the table with these first headings."""
    lines = iter((ROOT / "docs" / document).read_text().splitlines())
    for line in lines:
        if cells(line)[: len(headings)] == list(headings):
            break
    else:
        pytest.fail(f"docs/{document} has no table with {headings}")
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield cells(line)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_source_file_has_its_test_file(source: Path) -> None:
    folder = source.relative_to(PACKAGE).parent
    assert (ROOT / "tests" / folder / f"test_{source.name}").is_file()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_source_file_has_a_docstring(source: Path) -> None:
    assert ast.get_docstring(ast.parse(source.read_text()))


def test_imports_point_down() -> None:
    # As a program: a call in this process would silence the loggers of all other tests.
    program = str(Path(sys.executable).with_name("lint-imports"))
    run(program, "--config", str(ROOT / "pyproject.toml"), "--no-cache", environment=os.environ).expect_ok()


DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def settings_in_the_example() -> set[str]:
    """Return every setting of config.toml.example, as `section.key`."""
    found, section = set(), ""
    for line in (ROOT / "config.toml.example").read_text().splitlines():
        if header := re.fullmatch(r"\[+([a-z_.]+).*\]+", line):
            section = header[1].rstrip(".")
        elif key := re.match(r"#?([a-z_0-9]+) = ", line):
            found.add(f"{section}.{key[1]}")
    return found


def is_in_the_house(name: str) -> bool:
    """Whether the name is a file of the clone, a module, a folder of modules, or a name in a module."""
    if (ROOT / name).is_file() or (PACKAGE / name).is_file():
        return True
    path = PACKAGE / name.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    module = path.parent.with_suffix(".py")
    return module.is_file() and path.name in module.read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_and_settings_that_a_document_names_exist(document: Path) -> None:
    settings = settings_in_the_example()
    sections = {setting.rpartition(".")[0] for setting in settings}
    first_parts = {section.partition(".")[0] for section in sections}
    first_parts |= {path.stem for path in PACKAGE.iterdir() if path.suffix in {"", ".py"}}
    names = set(re.findall(r"`([a-z_]+(?:[./][a-zA-Z_0-9]+)+)`", document.read_text()))
    named = {name for name in names if re.split("[./]", name)[0] in first_parts}
    assert not {name for name in named - settings - sections if not is_in_the_house(name)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_and_benchmarks_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text()
    known = {path.name for path in (ROOT / "tests").rglob("*.py")}
    assert not {name for name in re.findall(r"\b(test_[a-z0-9_]+\.py)", text) if name not in known}
    paths = re.findall(r"\b((?:tests|bench|lab)/[a-z0-9_/-]+(?:\.py)?)", text)
    assert not {path for path in paths if not (ROOT / path).exists()}


def codes(table: Iterator[list[str]]) -> set[int]:
    return {int(row[0]) for row in table}


def test_exit_codes_are_the_same_in_the_readme_the_help_and_the_operations() -> None:
    """docs/operations.md has the exit codes of serve in a table, and those of locate in a sentence."""
    help_text = run(sys.executable, "-m", "kkdcpd", "--help", environment=os.environ).expect_ok().output
    found = {int(code) for code in re.findall(r"^  (\d+) +\S", help_text, re.MULTILINE)}
    assert found == codes(rows("../README.md", "exit code", "meaning")) == set(ExitCode)
    served = codes(rows("operations.md", "code", "meaning"))
    assert served == set(ExitCode) - {ExitCode.NOT_FOUND, ExitCode.NO_ANSWER}


def test_every_outcome_is_documented_once() -> None:
    documented = [word for row in rows("http.md", "status", "outcome in the log") for word in words(row[1])]
    assert sorted(documented) == sorted(outcome.value for outcome in Outcome)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome not in NOT_REFUSED])
def test_status_and_end_of_the_connection_are_as_documented(outcome: Outcome) -> None:
    (row,) = (
        row for row in rows("http.md", "status", "outcome in the log") if words(row[1]) == [outcome.value]
    )
    response = responses.refuse(outcome, "0123abcd")
    fate = "closes" if response.closes else "stays"
    assert (row[0], row[-1]) == (str(response.status), fate)


def test_every_field_of_an_exchange_is_documented(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kkdcpd")
    for record in (
        replace(RECORD, request=replace(AS_REQ, is_armored=True, dclocator_hint=1)),
        replace(RECORD, request=KPASSWD_REQ, result=answered(WRONG_PASSWORD)),
        replace(RECORD, request=replace(AS_REQ, realm="example.com"), result=answered(UNKNOWN_PRINCIPAL)),
        replace(RECORD, result=RequestResult(outcome=Outcome.NO_KDC_REACHED, attempts=1, detail="why")),
        REFUSED,
        LOCAL,
    ):
        LOG.enter(record)
    fields: set[str] = set()
    for line in caplog.records:
        fields.update(line.fields)  # type: ignore[attr-defined]
    documented = [word for row in rows("log.md", "field", "meaning") for word in words(row[0])]
    assert sorted(documented) == sorted(fields)


def events() -> Iterator[tuple[str, str]]:
    """Yield each event in the source, with its level."""
    for source in SOURCES:
        yield from events_of(source)


def events_of(source: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(source.read_text())):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="logger"), attr=level),
                args=[ast.Constant(value=str(event)), *_],
            ):
                yield event, "error" if level == "exception" else level


def test_every_other_line_is_documented_with_its_level() -> None:
    documented = {words(row[0])[0]: row[1] for row in rows("log.md", "event", "level")}
    assert documented == dict(events())


def test_every_event_is_documented_in_its_area() -> None:
    documented = {
        event: words(row[0])[0] for row in rows("log.md", "area", "events") for event in words(row[1])
    }
    found = {event: area_of(source) for source in SOURCES for event, _level in events_of(source)}
    assert {event: documented.get(event) for event in found} == found


def area_of(source: Path) -> str:
    """Return the area of the log that the lines of a module belong to."""
    module = ".".join(source.relative_to(PACKAGE.parent).with_suffix("").parts)
    names = sorted((name, area) for area, name in AREAS.items() if f"{module}.".startswith(f"{name}."))
    return names[-1][1]


def test_every_event_is_one_word() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", event) for event, _level in events())


def test_every_field_in_the_source_is_documented() -> None:
    named: dict[str, Any] = {
        words(row[0])[0]: words(row[2]) for row in rows("log.md", "event", "level", "fields")
    }
    documented = {word for fields in named.values() for word in fields}
    written = {
        key
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        for key in _fields_of_events(node)
    }
    assert written <= documented


def _fields_of_events(node: ast.AST) -> Iterator[str]:
    """Yield the fields of `logger.info("event", field=...)`."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="logger")), keywords=keywords):
            yield from (each.arg for each in keywords if each.arg not in (None, "exc_info", "sum_by"))


def test_every_metric_is_documented_with_its_labels_and_type() -> None:
    documented = {
        words(row[0])[0]: (sorted(words(row[1])), row[2])
        for row in rows("metrics.md", "metric", "labels", "type")
    }
    status = ServiceStatus(generation=1, workers_ready=1, workers_wanted=1, started_at=0.0)
    exposition = Exposition(MetricsReader(make_metrics(1)), ServiceFacts(status=status))
    found = {
        family.name + ("_total" if family.type == "counter" else ""): (
            sorted(family._labelnames),  # type: ignore[attr-defined]
            family.type,
        )
        for family in exposition.collect()
    }
    assert documented == found


def test_every_outcome_is_in_the_sum_of_requests() -> None:
    named = [word for row in rows("metrics.md", "group") for word in words(row[1])]
    assert sorted(named) == sorted(outcome.value for outcome in Outcome)


def test_every_field_of_status_is_documented(tmp_path: Path) -> None:
    documented = [word for row in rows("metrics.md", "field", "meaning") for word in words(row[0])]

    async def describe() -> dict[str, object]:
        config = read_config('[realms."A"]\nkdc = ["192.0.2.1"]\n', source=tmp_path / "config.toml")
        status = ServiceStatus(generation=1, workers_ready=1, workers_wanted=1, started_at=0.0)
        async with build_locator(config, SystemFiles()) as locator:
            reader = MetricsReader(make_metrics(1))
            return await Service(config, locator, reader, ServiceFacts(status=status)).describe()

    assert documented == list(asyncio.run(describe()))
