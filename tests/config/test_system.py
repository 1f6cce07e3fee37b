"""What the system's files say, or don't."""

from pathlib import Path

from kkdcpd.config import SystemFiles


def test_files_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_bytes(b"192.0.2.1 kdc1 \xff\n")
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    system = SystemFiles.read(tmp_path)
    assert system.hosts.startswith("192.0.2.1 kdc1")
    assert system.resolv_conf == "nameserver 192.0.2.53\n"


def test_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert SystemFiles.read(tmp_path) == SystemFiles(hosts="", resolv_conf="")
