"""Drop-ins for krb5.conf: what is written, replaced, refused and removed."""

import os
import stat
from pathlib import Path

import pytest

from kkdcpd.commands.krb5_drop_in import MARK, DropInError, is_read_by_includedir, krb5_drop_in

TEXT = "[libdefaults]\n    udp_preference_limit = 1\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kkdcpd-agent.conf"


def test_file_exists_while_the_context_lasts_and_all_may_read_it(path: Path) -> None:
    before = os.umask(0o077)
    try:
        with krb5_drop_in(path, TEXT):
            assert path.read_text().startswith(MARK)
            assert path.read_text().endswith(TEXT)
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
            assert list(path.parent.iterdir()) == [path]
    finally:
        os.umask(before)
    assert not list(path.parent.iterdir())


def test_file_is_removed_after_an_error(path: Path) -> None:
    with pytest.raises(RuntimeError), krb5_drop_in(path, TEXT):
        raise RuntimeError
    assert not path.exists()


def test_file_of_a_killed_agent_is_replaced(path: Path) -> None:
    path.write_text(f"{MARK}\n# 1\nold")
    with krb5_drop_in(path, TEXT):
        assert path.read_text().endswith(TEXT)


def _make_file(path: Path) -> None:
    path.write_text("[libdefaults]\n")


def _make_marked_later(path: Path) -> None:
    path.write_text(f"[libdefaults]\n{MARK}\n")


def _make_empty(path: Path) -> None:
    path.touch()


def _make_link_to_own_file(path: Path) -> None:
    target = path.with_name("target")
    target.write_text(f"{MARK}\n")
    path.symlink_to(target)


def _make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("missing"))


def _make_folder(path: Path) -> None:
    path.mkdir()


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    "make",
    [
        _make_file,
        _make_marked_later,
        _make_empty,
        _make_link_to_own_file,
        _make_dangling_link,
        _make_folder,
        _make_pipe,
    ],
)
def test_path_that_is_not_a_drop_in_of_kkdcpd_is_left_alone(path: Path, make: object) -> None:
    assert callable(make)
    make(path)
    before = sorted(
        (each.name, each.lstat().st_ino, each.lstat().st_mtime_ns) for each in path.parent.iterdir()
    )
    with pytest.raises(DropInError, match="this file was not made by kkdcpd agent"), krb5_drop_in(path, TEXT):
        pass
    after = sorted(
        (each.name, each.lstat().st_ino, each.lstat().st_mtime_ns) for each in path.parent.iterdir()
    )
    assert after == before


def test_file_that_an_administrator_has_changed_is_not_removed(path: Path) -> None:
    with krb5_drop_in(path, TEXT):
        path.write_text(f"{path.read_text()}# changed by an administrator")
    assert path.read_text().endswith("administrator")


def test_end_of_an_earlier_agent_leaves_the_file_of_its_successor(path: Path) -> None:
    first = krb5_drop_in(path, TEXT)
    first.__enter__()
    with krb5_drop_in(path, TEXT):
        text = path.read_text()
        first.__exit__(None, None, None)
        assert path.read_text() == text
    assert not path.exists()


def test_removed_file_is_no_error(path: Path) -> None:
    with krb5_drop_in(path, TEXT):
        path.unlink()


def test_missing_folder_is_an_error_that_names_file_reason_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "agent.conf"
    with pytest.raises(DropInError) as caught, krb5_drop_in(path, TEXT):
        pass
    assert str(caught.value) == (
        f"{path}: No such file or directory; name a file in an existing folder where this user may write"
    )


@pytest.mark.parametrize("name", ["agent", "kkdcpd-agent.conf", "a_b-c1", "a b.conf"])
def test_names_that_libkrb5_reads_in_an_includedir(name: str) -> None:
    assert is_read_by_includedir(Path("/etc/krb5.conf.d") / name)


@pytest.mark.parametrize("name", [".agent.conf", "agent.krb5", "agent.conf~", "agent.conf.1"])
def test_names_that_libkrb5_skips_in_an_includedir(name: str) -> None:
    assert not is_read_by_includedir(Path("/etc/krb5.conf.d") / name)
