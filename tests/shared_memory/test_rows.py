import pytest

from kkdcpd.shared_memory.rows import MAX_ROWS, Rows


def test_lowest_free_row_is_taken() -> None:
    rows = Rows(count=3)
    assert [rows.take() for _ in range(3)] == [0, 1, 2]
    rows.give_back(2)
    rows.give_back(0)
    assert rows.free == 2
    assert rows.take() == 0


def test_row_that_is_given_back_is_cleared_first() -> None:
    cleared: list[int] = []
    rows = Rows([cleared.append, cleared.append], count=2)
    rows.take()
    assert cleared == []
    rows.give_back(0)
    assert cleared == [0, 0]


def test_number_of_rows_is_limited() -> None:
    rows = Rows()
    for _ in range(MAX_ROWS):
        rows.take()
    assert rows.free == 0
    with pytest.raises(OSError, match="too many processes"):
        rows.take()
