import os
import socket
from pathlib import Path

import pytest

from kkdcpd.config.disk import mode_problem, read_bytes, read_file, remedy_of
from kkdcpd.config.permissions import advice
from kkdcpd.errors import ConfigError

OTHER_USER = 65534


def problem_of(path: Path, most: int = 10) -> str:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its words are what is asked for
        read_bytes(path, most)
    return f"{caught.value.strerror}; {remedy_of(caught.value, path)}"


def test_file_is_read_whole_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_bytes(path, 10) == b"0123456789"
    assert problem_of(path, 9) == "it has more than 9 bytes; name another file"


def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert problem_of(path) == "it is no regular file; put a regular file there"


def test_device_that_never_ends_is_refused() -> None:
    assert problem_of(Path("/dev/zero")) == "it is no regular file; put a regular file there"


def test_directory_socket_and_loop_are_refused(tmp_path: Path) -> None:
    assert problem_of(tmp_path) == "Is a directory; name a file in it"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert problem_of(loop) == "Too many levels of symbolic links; correct the symbolic link"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        assert problem_of(tmp_path / "socket").startswith("No such device or address; ")


def test_unreadable_file_has_its_remedy() -> None:
    path = Path("/etc/kkdcpd/key.pem")
    assert remedy_of(PermissionError(13, "Permission denied"), path) == advice(path)


def test_folder_is_refused_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_file(tmp_path, "key")
    assert not caught.value.is_temporary
    assert str(caught.value) == (f"key: {tmp_path} can't be read: Is a directory; name a file in it")


def test_file_that_the_user_may_not_read_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.touch(mode=0o600)
    os.seteuid(OTHER_USER)
    try:
        with pytest.raises(ConfigError, match=r"can't be read: Permission denied; let .*chmod"):
            read_file(path, "tls.key")
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(("mode", "remedy"), [(0o644, "0640"), (0o666, "0640"), (0o660, "0640"), (0o600, "")])
def test_remedy_for_an_open_mode_closes_only_the_open_bits(tmp_path: Path, mode: int, remedy: str) -> None:
    path = tmp_path / "key.pem"
    path.touch()
    path.chmod(mode)
    problem = mode_problem(path, "key", 0o037)
    assert (problem.remedy if problem else "") == (f"close it: chmod {remedy} {path}" if remedy else "")
