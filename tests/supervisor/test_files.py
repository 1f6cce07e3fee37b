import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kkdcpd.config import AdditionalCertificate, DatedItem, DatedKind, TlsConfig
from kkdcpd.supervisor.files import DateWatch, FileWatch, log_changes, tls_files

NOW = datetime(2026, 2, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def looks(watch: FileWatch, times: int) -> list[tuple[Path, ...]]:
    return [watch.changed() for _ in range(times)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "server.pem"
    path.write_text("first")
    return path


def test_nothing_has_changed_at_first(path: Path) -> None:
    watch = FileWatch([path])
    assert looks(watch, 3) == [()] * 3


def test_change_is_reported_once_when_it_is_stable(path: Path) -> None:
    watch = FileWatch([path])
    path.write_text("second")
    assert looks(watch, 4) == [(), (path,), (), ()]


def test_file_that_is_still_written_is_waited_for(path: Path) -> None:
    watch = FileWatch([path])
    path.write_text("half")
    assert not watch.changed()
    path.write_text("all of it")
    assert not watch.changed()
    assert watch.changed() == (path,)


def test_only_changed_files_are_reported(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    watch = FileWatch([path, other, path])
    other.write_text("new")
    assert looks(watch, 2) == [(), (other,)]


def test_reverted_change_is_reported_too(path: Path) -> None:
    """The served contents count, because it is unknown which contents were read."""
    watch = FileWatch([path])
    path.write_text("second")
    watch.changed()
    path.write_text("first")
    assert looks(watch, 2) == [(), (path,)]


def test_rename_over_it_is_a_change(path: Path) -> None:
    watch = FileWatch([path])
    other = path.with_name("new.pem")
    other.write_text("other")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)
    assert looks(watch, 2) == [(), (path,)]


def test_symbolic_link_that_is_turned_is_a_change(path: Path, tmp_path: Path) -> None:
    """Kubernetes' way, and certbot's."""
    link, other = tmp_path / "live.pem", tmp_path / "other.pem"
    other.write_text("other")
    link.symlink_to(path)
    watch = FileWatch([link])
    link.unlink()
    link.symlink_to(other)
    assert looks(watch, 2) == [(), (link,)]


def test_file_that_is_removed_and_restored_is_a_change(path: Path) -> None:
    watch = FileWatch([path])
    path.unlink()
    assert looks(watch, 2) == [(), (path,)]
    path.write_text("back")
    assert looks(watch, 2) == [(), (path,)]


def test_other_mode_is_a_change(path: Path) -> None:
    """A reload that failed may work from now on."""
    watch = FileWatch([path])
    path.chmod(0o600)
    assert looks(watch, 2) == [(), (path,)]


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


def item(*, start: datetime = NOW - DAY, end: datetime | None = NOW + DAY) -> DatedItem:
    return DatedItem(
        kind=DatedKind.SERVER,
        key="tls.certificate",
        path=Path("/a.pem"),
        subject="CN=a",
        names=("dns:a.example.com", "ip:192.0.2.1"),
        start=start,
        end=end,
    )


def logged(caplog: pytest.LogCaptureFixture) -> Sequence[tuple[str, str, dict[str, str]]]:
    found = [(record.levelname, record.message, record.__dict__["fields"]) for record in caplog.records]
    caplog.clear()
    return found


def test_item_outside_its_dates_is_logged_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    watch = DateWatch()
    watch.check([item()], NOW)
    assert logged(caplog) == []
    for _ in range(3):
        watch.check([item()], NOW + 2 * DAY)
    expired = {
        "key": "tls.certificate",
        "problem": "the certificate in /a.pem expired on 2026-02-02 00:00 UTC",
        "remedy": "renew it; or set this host's clock right (it says 2026-02-03 00:00 UTC)",
    }
    assert logged(caplog) == [("ERROR", "certificate_outside_dates", expired)]
    for _ in range(3):
        watch.check([item()], NOW)
    returned = {"key": "tls.certificate", "file": "/a.pem", "subject": "CN=a"}
    assert logged(caplog) == [("INFO", "certificate_within_dates", returned)]


def test_item_that_is_not_in_use_any_more_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch = DateWatch()
    watch.check([item(start=NOW + DAY)], NOW)
    assert [event for _, event, _ in logged(caplog)] == ["certificate_outside_dates"]
    watch.check([item()], NOW)
    assert logged(caplog) == []


def test_change_is_logged_with_the_new_contents_of_the_file(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_changes([Path("/a.pem"), Path("/a.key")], [item(), item(end=None)])
    names = {"file": "/a.pem", "subject": "CN=a", "names": "dns:a.example.com,ip:192.0.2.1"}
    assert logged(caplog) == [
        ("INFO", "certificate_changed", {**names, "expires": "2026-02-02T00:00:00Z"}),
        ("INFO", "certificate_changed", {**names, "expires": "unknown"}),
        ("INFO", "certificate_changed", {"file": "/a.key"}),
    ]
