import os
from pathlib import Path

import pytest

from kkdcpd.config import AdditionalCertificate, TlsConfig
from kkdcpd.supervisor.files import FileWatch, tls_files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "server.pem"
    path.write_text("first")
    return path


def test_nothing_has_changed_at_first(path: Path) -> None:
    watch = FileWatch([path])
    assert [watch.has_changed() for _ in range(3)] == [False] * 3


def test_change_is_told_once_when_it_has_stayed(path: Path) -> None:
    watch = FileWatch([path])
    path.write_text("second")
    assert [watch.has_changed() for _ in range(4)] == [False, True, False, False]


def test_file_that_is_still_written_is_waited_for(path: Path) -> None:
    watch = FileWatch([path])
    path.write_text("half")
    assert not watch.has_changed()
    path.write_text("all of it")
    assert not watch.has_changed()
    assert watch.has_changed()


def test_change_that_was_taken_back_is_told_all_the_same(path: Path) -> None:
    """What was served meanwhile is what counts, and nobody knows what was read."""
    watch = FileWatch([path])
    path.write_text("second")
    watch.has_changed()
    path.write_text("first")
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_rename_over_it_is_a_change(path: Path) -> None:
    watch = FileWatch([path])
    other = path.with_name("new.pem")
    other.write_text("other")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_symbolic_link_that_is_turned_is_a_change(path: Path, tmp_path: Path) -> None:
    """Kubernetes' way, and certbot's."""
    link, other = tmp_path / "live.pem", tmp_path / "other.pem"
    other.write_text("other")
    link.symlink_to(path)
    watch = FileWatch([link])
    link.unlink()
    link.symlink_to(other)
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_file_that_goes_and_comes_is_a_change(path: Path) -> None:
    watch = FileWatch([path])
    path.unlink()
    assert [watch.has_changed() for _ in range(2)] == [False, True]
    path.write_text("back")
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_other_mode_is_a_change(path: Path) -> None:
    """A reload that failed may work from now on."""
    watch = FileWatch([path])
    path.chmod(0o600)
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_all_files_of_tls_are_watched() -> None:
    tls = TlsConfig(
        certificate=Path("/a.pem"),
        key=Path("/a.key"),
        client_ca=Path("/ca.pem"),
        client_crl=Path("/crl.pem"),
        additional=(AdditionalCertificate(certificate=Path("/b.pem"), key=Path("/b.key")),),
    )
    names = ["/a.pem", "/a.key", "/b.pem", "/b.key", "/ca.pem", "/crl.pem"]
    assert list(map(str, tls_files(tls))) == names
    assert tls_files(None) == []
