"""The generated documents are the committed documents."""

from pathlib import Path

import pytest

from deploy import documents
from tests.config.test_example import ALL_KINDS
from tests.deploy.conftest import REPOSITORY

DOCUMENTS = dict(documents.documents())
PAGE = documents.settings_page()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_committed_document_is_the_generated_one(name: str) -> None:
    assert (REPOSITORY / name).read_text() == DOCUMENTS[name], "run make docs"


def test_documents_are_written_below_the_given_folder(tmp_path: Path) -> None:
    assert documents.main([str(tmp_path)]) == 0
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(DOCUMENTS)


@pytest.mark.parametrize("key", sorted({key for key, _kind in ALL_KINDS}))
def test_each_setting_has_a_row(key: str) -> None:
    assert f"\n| `{key}` | " in PAGE


def test_rows_have_four_cells() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}
